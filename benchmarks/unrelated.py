"""A thousand prompts that no edit concerns: is what a served LLM says, token by token, what it says alone?

    python benchmarks/unrelated.py --data FOLDER --pack PACK --work FOLDER --out FILE

They are prompts of CounterFact's training file, which ask what the edits ask, of other subjects. Those of the
pack's own subjects are left out. Answers are kept in `--work`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from outcome import print_targets, save
from provenance import provenance
from rich.console import Console

from onceedit_vllm import EditPack
from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.evaluation.evaluate import evaluate
from onceedit_vllm.folders import write_file
from onceedit_vllm.plugin.scope import same_name

FILE = "counterfact_train_2000.json"


def main() -> int:
    args = parse_arguments()
    result = provenance() | measure(args)
    save(result, args.out)
    print_targets(Console(), result)
    return 1 if result["changed"] else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="answers are kept here, to go on from")
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True, help="the result's file")
    args = parser.parse_args()
    if not (args.data / FILE).is_file():
        parser.error(f"--data {args.data}: holds no {FILE}; name the folder of the data sets")
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    pack = EditPack.load(args.pack)
    prompts = unrelated_prompts(args.data / FILE, pack, args.prompts)
    args.work.mkdir(parents=True, exist_ok=True)
    data = args.work / f"unrelated-{len(prompts)}.jsonl"
    # The prompts belong to none of the edits; the first one carries them.
    edit = pack.edits[0]
    record = {"id": edit.id, "prompt": edit.prompt, "target": edit.target, "subject": edit.subject}
    write_file(data, json.dumps(record | {"locality": prompts}) + "\n")
    out = args.work / f"unrelated-{len(prompts)}-{Path(args.llm).name}.json"
    report = evaluate(args.llm, pack.root, data, out, EvaluationConfig(dataset="jsonl"), progress=True)
    asked = [one for one in report.records[0].questions if one.stratum == "locality"]
    changed = sum(not one.unchanged for one in asked)
    return {
        "llm": args.llm,
        "edits": len(pack.edits),
        "prompts": len(asked),
        "in_scope": sum(one.in_scope for one in asked),
        "gated": sum(one.gated for one in asked),
        "changed": changed,
        "targets": {"changed": {"wanted": 0, "reached": changed}},
    }


def unrelated_prompts(file: Path, pack: EditPack, number: int) -> list[str]:
    """Prompts about none of the pack's subjects, each once, from the file's first on."""
    records = json.loads(file.read_text(encoding="utf-8"))
    names = [name for edit in pack.edits for name in (edit.subject or "", *edit.aliases) if name]
    others = (r["prompt"] for r in records if not any(same_name(r["subject"], name) for name in names))
    return list(islice(dict.fromkeys(others), number))


if __name__ == "__main__":
    sys.exit(main())
