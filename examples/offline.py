"""Drop the processor into ``vllm.LLM``: the served model answers with the pack's edits."""

from __future__ import annotations

import argparse

from vllm import LLM, SamplingParams

from onceedit_vllm import OnceEditLogitsProcessor
from onceedit_vllm.models import resolve_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="my-pack")
    parser.add_argument("--llm", default="gemma-3-270m", help="a known name, a folder or a hub id")
    parser.add_argument("prompts", nargs="*", default=["The capital of Norland is", "Water boils at"])
    args = parser.parse_args()

    llm = LLM(
        str(resolve_model(args.llm)),
        max_model_len=512,
        enforce_eager=True,
        logits_processors=[OnceEditLogitsProcessor],
        additional_config={"onceedit": {"pack": args.pack}},
    )
    greedy = SamplingParams(temperature=0, max_tokens=12)
    for output in llm.generate(args.prompts, greedy, use_tqdm=False):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
