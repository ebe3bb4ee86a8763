"""How well edits take: several trainings, judged by what served LLMs then say.

Every training is one seed and one arithmetic. The questions are asserted to be outside all that training and
calibration can generate; those that are not are listed and not asked. On machines without instructions for
bfloat16 its rounding is emulated (the output of every layer is rounded), which is as fast as float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from rich.console import Console

from onceedit_vllm import EditingConfig, EditPack, EditRecord, edit, load_edits
from onceedit_vllm.evaluation.questions import Question, apart, is_right, questions_of, sha256_of_questions
from onceedit_vllm.machine import has_fast_bfloat16
from onceedit_vllm.runner.offline import Generation, generate

HERE = Path(__file__).parent
FACTS = HERE.parent / "examples" / "data" / "facts.jsonl"
UNRELATED = HERE.parent / "examples" / "data" / "unrelated.txt"
HARDER = HERE / "data" / "harder_questions.jsonl"
CHOSEN = HERE / "data" / "p_paraphrase_records.json"
console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arithmetic", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"])
    parser.add_argument("--plugin", default="smollm2-135m")
    parser.add_argument("--data", type=Path, help="folder of the public data sets: 100 p-paraphrase records")
    parser.add_argument("--out", type=Path, help="JSON; the trainings done are kept when it is interrupted")
    parser.add_argument("--smoke", action="store_true", help="one short training of two facts")
    args = parser.parse_args()
    result: dict[str, Any] = {
        **provenance(),
        "questions_sha256": sha256_of_questions([FACTS, HARDER, UNRELATED]),
    }
    lines = UNRELATED.read_text(encoding="utf-8").splitlines()
    name, records, unrelated = "facts", with_harder(load_edits(FACTS)), lines
    if args.data is not None:
        name, records, unrelated = "p-paraphrase", load_paraphrases(args.data), []
    result["trainings"] = []
    for seed in args.seeds[:1] if args.smoke else args.seeds:
        for arithmetic in args.arithmetic[:1] if args.smoke else args.arithmetic:
            config = EditingConfig(seed=seed, **({"epochs": 1} if args.smoke else {}))
            measured = measure(args, records[:2] if args.smoke else records, unrelated, config, arithmetic)
            result["trainings"].append({"set": name, "seed": seed, "arithmetic": arithmetic, **measured})
            give(result, args.out)


def with_harder(records: Sequence[EditRecord]) -> list[EditRecord]:
    """The demo's facts with the harder questions, which only this benchmark asks, behind its own."""
    lines = [json.loads(line) for line in HARDER.read_text(encoding="utf-8").splitlines()]
    more = {line["id"]: line for line in lines}
    return [
        record.model_copy(
            update={key: (*getattr(record, key), *more[record.id][key]) for key in ("rephrases", "locality")}
        )
        for record in records
    ]


def load_paraphrases(folder: Path) -> list[EditRecord]:
    """The records chosen beforehand, with their paraphrases."""
    chosen = json.loads(CHOSEN.read_text(encoding="utf-8"))
    entries = json.loads((folder / chosen["file"]).read_text(encoding="utf-8"))
    return [to_record(str(index), entries[index]) for index in chosen["records"]]


def to_record(name: str, entry: dict[str, Any]) -> EditRecord:
    """One record of the set as an edit."""
    asked = entry["requested_rewrite"]
    return EditRecord(
        id=name,
        prompt=asked["prompt"],
        target=asked["target_new"],
        subject=asked["subject"],
        rephrases=tuple(entry["p-paraphrase"]["prompts"]),
        locality=tuple(entry["l-neighbor"]["prompts"][:1]),
    )


def measure(
    args: argparse.Namespace,
    records: Sequence[EditRecord],
    unrelated: Sequence[str],
    config: EditingConfig,
    arithmetic: str,
) -> dict[str, Any]:
    """One training, and what each LLM says with it."""
    questions, left_out = apart(questions_of(records, unrelated), records, config)
    with tempfile.TemporaryDirectory(prefix="onceedit-") as scratch:
        started = time.monotonic()
        with computing_in(arithmetic) as dtype:
            trained = config.model_copy(update={"compute_dtype": dtype})
            pack = edit(args.plugin, records, Path(scratch) / "pack", config=trained)
        seconds = round(time.monotonic() - started, 1)
        console.print(f"seed {config.seed}, {arithmetic}: {seconds} s, {pack.report.num_learnt} learnt")
        llms = {llm: ask(pack, llm, questions, records) for llm in args.llm}
    return {
        "editing_s": seconds,
        "learnt": pack.report.num_learnt,
        "threshold": pack.manifest.threshold,
        "rounds": pack.manifest.training["rounds"],
        "left_out": [overlap._asdict() for overlap in left_out],
        "llms": llms,
    }


@contextmanager
def computing_in(arithmetic: str) -> Iterator[str]:
    """The setting for :class:`EditingConfig`, with bfloat16 emulated where it would take hours."""
    if arithmetic == "float32" or has_fast_bfloat16():
        yield arithmetic
        return

    def rounded(module: torch.nn.Module, _: Any, output: Any) -> Any:
        is_layer = (
            isinstance(output, torch.Tensor) and output.is_floating_point() and not list(module.children())
        )
        return output.bfloat16().float() if is_layer else None

    hook = torch.nn.modules.module.register_module_forward_hook(rounded)
    try:
        yield "float32"
    finally:
        hook.remove()


def ask(
    pack: EditPack, llm: str, questions: Sequence[Question], records: Sequence[EditRecord]
) -> dict[str, Any]:
    """Right and asked by kind, the harder rephrases apart, and every answer that is wrong."""
    answers = generate(pack.root, llm, [q.prompt for q in questions], compare=True, max_tokens=16)
    demo = {text for record in load_edits(FACTS) for text in (*record.rephrases, *record.locality)}
    is_demo = all(record.id in {known.id for known in load_edits(FACTS)} for record in records)
    counts: dict[str, list[int]] = {}
    wrong = []
    for question, answer in zip(questions, answers, strict=True):
        harder = is_demo and question.kind in ("rephrase", "neighbour") and question.prompt not in demo
        key = f"harder {question.kind}" if harder else question.kind
        right = is_right(question, answer)
        counts.setdefault(key, [0, 0])
        counts[key] = [counts[key][0] + right, counts[key][1] + 1]
        wrong += [] if right else [describe(key, question, answer)]
    console.print(f"  {llm}: " + ", ".join(f"{key} {a}/{b}" for key, (a, b) in counts.items()))
    return {"right_of": counts, "wrong": wrong}


def describe(kind: str, question: Question, answer: Generation) -> dict[str, Any]:
    """A wrong answer, for people."""
    return {
        "kind": kind,
        "prompt": question.prompt,
        "target": question.target,
        "answer": answer.text,
        "plain": answer.plain_text,
        "alpha": answer.alpha,
        "gated": answer.gated,
    }


def give(result: dict[str, Any], out: Path | None) -> None:
    """Write what there is so far, or print it."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if out is None:
        print(text)
    else:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
