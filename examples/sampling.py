"""Sampling: temperature, top-p, seeds and n work on the fused distribution."""

from __future__ import annotations

import argparse

from vllm import LLM, SamplingParams

from onceedit_vllm import OnceEditLogitsProcessor
from onceedit_vllm.models import resolve_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="my-pack")
    parser.add_argument("--llm", default="gemma-3-270m", help="a known name, a folder or a hub id")
    parser.add_argument("--prompt", default="The capital of Norland is")
    args = parser.parse_args()

    llm = LLM(
        str(resolve_model(args.llm)),
        max_model_len=512,
        enforce_eager=True,
        logits_processors=[OnceEditLogitsProcessor],
        additional_config={"onceedit": {"pack": args.pack}},
    )
    sampled = SamplingParams(temperature=0.7, top_p=0.9, seed=7, n=3, max_tokens=12)
    (output,) = llm.generate([args.prompt], sampled, use_tqdm=False)
    for sample in output.outputs:
        print(f"{args.prompt!r} -> {sample.text!r}")


if __name__ == "__main__":
    main()
