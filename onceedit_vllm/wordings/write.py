"""Has an LLM write the wordings of edits, sieves them, and keeps them in a file as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.terminal import progress_bar
from onceedit_vllm.wordings.draft import Draft
from onceedit_vllm.wordings.file import load_wordings, read_wordings, write_wordings_file
from onceedit_vllm.wordings.kinds import KINDS
from onceedit_vllm.wordings.names import names_of, words_of
from onceedit_vllm.wordings.questions import Ask, ask_all, ask_texts
from onceedit_vllm.wordings.wordings import Wordings

#: Tokens that the writer may spend on one kind of text.
WRITING_TOKENS = 192
#: Edits whose texts are asked for at once.
BATCH_SIZE = 8
_NO_SUBJECT = "the edit has no subject"


def write_wordings(
    edits: Sequence[EditRecord],
    out: str | Path,
    ask: Ask,
    *,
    model: str,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> tuple[Wordings, ...]:
    """Write the wordings of edits into a file. Edits that it has already are not asked for again.

    Args:
        edits: The edits. Those without a subject get no wordings: nothing tells what a text is about.
        out: JSONL, one edit a line; whole after every batch.
        ask: The LLM.
        model: What it is called, for the file.
        batch_size: Edits that are asked for at once.
        progress: Show a bar.

    Returns:
        The wordings, in the order of the edits.

    Raises:
        BadInputError: `out` holds something else, or wordings of other edits with the same ids.
        OnceEditError: The LLM cannot be asked; what was written so far is in `out`.
    """
    target = Path(out).expanduser()
    lines = read_wordings(target) if target.exists() else []
    left = find_unwritten(edits, target)
    with _shown(len(edits), visible=progress) as report:
        report(len(edits) - len(left), _count(lines))
        for start in range(0, len(left), batch_size):
            batch = left[start : start + batch_size]
            lines += _write_batch(batch, edits, lines, ask, model)
            write_wordings_file(target, lines)
            report(len(batch), _count(lines))
    found = {line.id: line for line in lines}
    return tuple(found[edit.id] for edit in edits)


@contextmanager
def _shown(total: int, *, visible: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar; what it yields takes edits that are done and texts that were kept so far."""
    bar = progress_bar(
        TextColumn("wordings"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]} kept"),
        TimeElapsedColumn(),
        shown=visible,
    )
    task = bar.add_task("wordings", total=total, kept=0)
    with bar:
        yield lambda done, kept: bar.update(task, advance=done, kept=kept)


def find_unwritten(edits: Sequence[EditRecord], out: str | Path) -> list[EditRecord]:
    """The edits that have no line in a file yet, which may not be there.

    Raises:
        BadInputError: The file holds something else, or wordings of other edits with the same ids.
    """
    target = Path(out).expanduser()
    written = {line.id for line in read_wordings(target)} if target.exists() else set()
    if written & {edit.id for edit in edits}:
        load_wordings(target, edits)
    return [edit for edit in edits if edit.id not in written]


def _count(lines: Sequence[Wordings]) -> int:
    return sum(1 for line in lines for _ in line.texts())


def _write_batch(
    batch: Sequence[EditRecord],
    edits: Sequence[EditRecord],
    lines: Sequence[Wordings],
    ask: Ask,
    model: str,
) -> list[Wordings]:
    """Draft, and sieve by the answers with the edit in the context, and of what is left by those without."""
    drafts = list(_start_drafts(batch, edits, lines))
    chats = [(draft, kind, kind.ask_for(draft.edit)) for draft in drafts for kind in KINDS]
    written = ask_all(ask, [chat for _, _, chat in chats], WRITING_TOKENS)
    for (draft, kind, _), answer in zip(chats, written, strict=True):
        draft.add(kind, answer)
    _sieve(ask, [(draft.asked_told(), draft.sieve_told) for draft in drafts])
    _sieve(ask, [(draft.asked_alone(), draft.sieve_alone) for draft in drafts])
    date = datetime.now(UTC).isoformat(timespec="seconds")
    done = {draft.edit.id: draft.wordings(model, date) for draft in drafts}
    return [done.get(edit.id) or _without_subject(edit, model, date) for edit in batch]


def _sieve(
    ask: Ask, drafts: Sequence[tuple[Sequence[tuple[str | None, str]], Callable[[Sequence[str]], None]]]
) -> None:
    """Ask the texts of all drafts at once, and give each its answers."""
    answers = iter(ask_texts(ask, [text for texts, _ in drafts for text in texts]))
    for texts, sieve in drafts:
        sieve([next(answers) for _ in texts])


def _start_drafts(
    batch: Sequence[EditRecord], edits: Sequence[EditRecord], lines: Sequence[Wordings]
) -> Iterator[Draft]:
    """A draft for each edit that has a subject, knowing the other edits of it and other subjects' names."""
    proposed = {line.id: line.aliases for line in lines}
    by_subject: dict[str, list[EditRecord]] = defaultdict(list)
    for edit in edits:
        by_subject[_folded(edit.subject or "")].append(edit)
    for edit in batch:
        if edit.subject is not None:
            siblings = by_subject[_folded(edit.subject)]
            others = [one for one in edits if one.subject and _folded(one.subject) != _folded(edit.subject)]
            taken = {_folded(name) for one in others for name in names_of(one, proposed.get(one.id, ()))}
            yield Draft(edit, siblings, taken)


def _folded(name: str) -> str:
    return " ".join(words_of(name))


def _without_subject(edit: EditRecord, model: str, date: str) -> Wordings:
    return Wordings(
        id=edit.id, prompt=edit.prompt, target=edit.target, model=model, date=date, dropped={_NO_SUBJECT: 1}
    )


def yield_of(wordings: Sequence[Wordings]) -> dict[str, int]:
    """How many texts were kept, by list, and how many dropped, by reason."""
    found: dict[str, int] = {"asking": 0, "others": 0, "aliases": 0}
    for line in wordings:
        for field, _ in line.texts():
            found[field] += 1
        for reason, count in line.dropped.items():
            found[reason] = found.get(reason, 0) + count
    return found
