"""Prompts on which a scope goes wrong: is the gate open for what asks for an edit, and shut for the rest?

    python benchmarks/hard_scope.py --pack DEMO-PACK --llm gemma-3-270m --out FILE

The prompts are about the demo's facts, kind by kind: other casing, possessive, plural, a question behind a
long text, several subjects at once, negations, yes or no, other questions about the subject, something to be
done with the question ("Count the words of ..."), the question with an order how to answer it, chats,
pronouns.
What asks for an edit is right when the answer begins with its target; the rest when the answer is, token by
token, the LLM's own. A name that the pack does not know ("Leo Messi") is to be left alone: aliases are the
user's to give.
Prompts that training or calibration can generate are listed, not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from outcome import add_output, as_text, save
from provenance import provenance
from rich.table import Table
from toys import make_toys

from onceedit_vllm import EditPack, EditRecord
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.models import resolve_model
from onceedit_vllm.runner.offline import Generation, generate
from onceedit_vllm.terminal import error_console, kept_terminal
from onceedit_vllm.updating.update import settings_of

HERE = Path(__file__).parent
PROMPTS = HERE / "data" / "hard_scope.jsonl"
TOY = EditRecord(id="0", prompt="The capital of France is", target="Lyon", subject="France")
#: A long text about nothing of the kind, some hundred tokens.
FILLER = [
    f"Item {number} of the minutes was postponed because the treasurer had left her green folder at home."
    for number in range(1, 31)
]


class Hard(NamedTuple):
    """A prompt as the LLM gets it, and the answer that it asks for, if any."""

    kind: str
    prompt: str
    target: str | None


def main() -> int:
    args = parse_arguments()
    # vLLM and its processes print to standard output, which is for the JSON.
    with kept_terminal() as answer, tempfile.TemporaryDirectory(prefix="onceedit-") as scratch:
        if args.smoke:
            args.pack, args.llm = make_toys(Path(scratch), TOY, epochs=2)
        pack = EditPack.load(args.pack)
        # Toys cut words into letters, and have little room.
        sentences = 3 if args.smoke else len(FILLER)
        cases = [measure(pack, llm, args.max_tokens, sentences) for llm in args.llm]
        result = {**provenance(), "smoke": args.smoke, "learnt": pack.report.num_learnt, "cases": cases}
        save(result, args.out)
        for case in cases:
            print_table(case)
        if args.json:
            answer.write(as_text(result))
            answer.flush()
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="the demo's, or another of its facts")
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"])
    parser.add_argument("--max-tokens", type=int, default=12)
    add_output(parser, "toys, which know nothing")
    args = parser.parse_args()
    if args.pack is None and not args.smoke:
        parser.error("--pack: name an EditPack of the demo's facts")
    return args


def measure(pack: EditPack, llm: str, max_tokens: int, sentences: int) -> dict[str, Any]:
    """Right and asked by kind, and what is wrong."""
    pool = TextPool(pack.edits, None, settings_of(pack), pack.wordings)
    asked, seen, unasked = [], [], 0
    for line in PROMPTS.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        prompt = render(entry, llm, sentences)
        if prompt is None:
            unasked += 1
        elif pool.find(entry["turns"][-1] if "turns" in entry else entry["prompt"]) is not None:
            seen.append(entry.get("prompt", entry.get("turns")))
        else:
            asked.append(Hard(entry["kind"], prompt, entry["target"]))
    answers = generate(pack.root, llm, [each.prompt for each in asked], compare=True, max_tokens=max_tokens)
    counts: dict[str, dict[str, int]] = {}
    wrong = []
    for each, answer in zip(asked, answers, strict=True):
        of = counts.setdefault(
            each.kind, dict.fromkeys(("asking", "open", "answered", "others", "untouched"), 0)
        )
        right = count(of, each, answer)
        wrong += [] if right else [describe(each, answer)]
    return {
        "llm": Path(llm).name,
        "kinds": counts,
        "wrong": wrong,
        "contaminated": seen,
        "without_a_chat_template": unasked,
    }


def render(entry: dict[str, Any], llm: str, sentences: int) -> str | None:
    """The prompt; None for a chat where the LLM has no template."""
    if "turns" not in entry:
        return str(entry["prompt"]).replace("{filler}", " ".join(FILLER[:sentences]))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(llm))
    if not tokenizer.chat_template:
        return None
    roles = ("user", "assistant")
    turns = [{"role": roles[at % 2], "content": text} for at, text in enumerate(entry["turns"])]
    rendered = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    # Where the tokenizer adds a beginning of sequence, vLLM does.
    adds = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return rendered.removeprefix(tokenizer.bos_token) if adds else rendered


def count(of: dict[str, int], each: Hard, answer: Generation) -> bool:
    if each.target is None:
        right = answer.token_ids == answer.plain_token_ids
        of["others"] += 1
        of["untouched"] += right
        return right
    right = answer.text.strip().lower().startswith(each.target.lower())
    of["asking"] += 1
    of["open"] += answer.gated
    of["answered"] += right
    return right


def describe(each: Hard, answer: Generation) -> dict[str, Any]:
    """A wrong answer, for people."""
    return {
        "kind": each.kind,
        "prompt": each.prompt[-160:],
        "target": each.target,
        "answer": answer.text,
        "plain": answer.plain_text,
        "alpha": answer.alpha,
        "gated": answer.gated,
    }


def print_table(case: dict[str, Any]) -> None:
    table = Table(
        "kind", "ask for an edit: gate open", "answered", "of", "others: untouched", "of", title=case["llm"]
    )
    for kind, of in case["kinds"].items():
        table.add_row(
            kind, *map(str, (of["open"], of["answered"], of["asking"], of["untouched"], of["others"]))
        )
    total = [
        sum(of[key] for of in case["kinds"].values())
        for key in ("open", "answered", "asking", "untouched", "others")
    ]
    table.add_row("all", *map(str, total))
    error_console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
