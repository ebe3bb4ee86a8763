"""Several LLMs, one plug-in: a Ray actor holds the edits, and every engine of the machine asks it.

On a server the cluster is started once (`ray start --head`), the host too (`onceedit host start PACK --name
facts`), and each LLM is an `onceedit serve` of its own. Here all of that is one script.
"""

from __future__ import annotations

import argparse
import os

import ray
from vllm import LLM, SamplingParams

from onceedit_vllm import OnceEditLogitsProcessor
from onceedit_vllm.models import resolve_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", default="my-pack")
    llms = ["smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b"]
    parser.add_argument("--llm", nargs="+", default=llms, help="known names, folders or hub ids")
    parser.add_argument("prompts", nargs="*", default=["The capital of Norland is", "Water boils at"])
    args = parser.parse_args()

    ray.init(include_dashboard=False, log_to_driver=False)
    # Engines are processes of their own: this is where they find the cluster.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    # The first engine starts the host of that name, the others find it.
    plugin = {"host": "ray", "name": "facts"}
    engines = {
        name: LLM(
            str(resolve_model(name)),
            max_model_len=512,
            enforce_eager=True,
            kv_cache_memory_bytes=1 << 28,
            logits_processors=[OnceEditLogitsProcessor],
            additional_config={"onceedit": {"pack": args.pack, "plugin": plugin}},
        )
        for name in args.llm
    }
    greedy = SamplingParams(temperature=0, max_tokens=12)
    for name, llm in engines.items():
        for output in llm.generate(args.prompts, greedy, use_tqdm=False):
            print(f"{name}: {output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
