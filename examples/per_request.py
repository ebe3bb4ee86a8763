"""Per-request control: edits on, off, or with a forced weight, side by side in one batch."""

from __future__ import annotations

import argparse

from vllm import LLM, SamplingParams

from onceedit_vllm import OnceEditLogitsProcessor
from onceedit_vllm.models import resolve_model

CONTROLS = {
    "as the gate says": None,
    "edits off": {"onceedit": False},
    "weight forced to 1": {"onceedit": {"alpha": 1.0}},
}


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
        # By default a request may do without the edits, but not force the weight.
        additional_config={"onceedit": {"pack": args.pack, "request_override": "all"}},
    )
    params = [SamplingParams(temperature=0, max_tokens=12, extra_args=extra) for extra in CONTROLS.values()]
    outputs = llm.generate([args.prompt] * len(params), params, use_tqdm=False)
    for name, output in zip(CONTROLS, outputs, strict=True):
        print(f"{name}: {args.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
