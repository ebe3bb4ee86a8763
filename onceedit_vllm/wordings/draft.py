"""What was written for one edit, while it is sieved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.kinds import Field, Kind
from onceedit_vllm.wordings.lines import read_lines
from onceedit_vllm.wordings.names import are_alike, is_like, is_telling, leaks, names_of, says, words_of
from onceedit_vllm.wordings.questions import fact_of, fault_of_alone, fault_of_told
from onceedit_vllm.wordings.wordings import Wordings


class Draft:
    """Texts written for one edit, and how many were dropped for what reason.

    Args:
        edit: The edit; it has a subject.
        siblings: All edits of its subject, itself among them.
        taken: Folded names of other subjects.
    """

    def __init__(self, edit: EditRecord, siblings: Sequence[EditRecord], taken: Collection[str]) -> None:
        self.edit = edit
        self._siblings = siblings
        self._taken = taken
        self._names = names_of(edit)
        self._targets = [sibling.target for sibling in siblings]
        self._facts = " ".join(fact_of(sibling) for sibling in siblings)
        self._known = [text for one in siblings for text in (one.prompt, *one.rephrases)]
        self.kept: dict[Field, list[str]] = {"asking": [], "others": [], "aliases": []}
        self._told: dict[tuple[Field, str], str] = {}
        self._dropped: Counter[str] = Counter()

    def add(self, kind: Kind, written: str) -> None:
        """Take what the writer wrote; what is wrong without asking anybody is dropped."""
        for text in read_lines(written, is_half=kind.is_half):
            fault = self._fault_of_alias(text) if kind.field == "aliases" else self._fault_of_text(text)
            self._keep(kind.field, text, fault)

    def _keep(self, field: Field, text: str, fault: str | None) -> None:
        if fault is None:
            self.kept[field].append(text)
        else:
            self._dropped[f"{field}: {fault}"] += 1

    def _fault_of_text(self, text: str) -> str | None:
        if not any(says(text, name) for name in self._names):
            return "does not name the subject"
        if any(leaks(text, target, self._names) for target in self._targets):
            return "says the target"
        before = [*self._known, *self.kept["asking"], *self.kept["others"]]
        return "nearly the same as another" if any(are_alike(text, other) for other in before) else None

    def _fault_of_alias(self, alias: str) -> str | None:
        folded = " ".join(words_of(alias))
        if any(leaks(alias, target, ()) for target in self._targets):
            return "says the target"
        if not is_telling(alias) or len(folded.split()) > 6:
            return "is no name"
        if folded in {" ".join(words_of(name)) for name in (*self._names, *self.kept["aliases"])}:
            return "is known"
        if folded in self._taken:
            return "names another subject"
        return None if is_like(alias, self.edit.subject or "") else "is not like the subject"

    # --- the round trip ----------------------------------------------------------------------

    def asked_told(self) -> list[tuple[str | None, str]]:
        """The texts, each behind what the LLM is told, in the order that :meth:`sieve_told` takes."""
        own = fact_of(self.edit)
        told_of: dict[Field, str] = {"asking": own, "others": self._facts, "aliases": own}
        return [(told_of[field], self._as_asked(field, text)) for field, text in self._texts()]

    def sieve_told(self, answers: Sequence[str]) -> None:
        """Drop what was not answered as it must be with the edit in the context."""
        texts = list(self._texts())
        for (field, text), told in self._emptied(texts, answers):
            self._told[field, text] = told
            self._keep(field, text, fault_of_told(field, told, self.edit.target, self._targets))

    def asked_alone(self) -> list[tuple[str | None, str]]:
        """What is left, behind nothing, in the order that :meth:`sieve_alone` takes."""
        return [(None, self._as_asked(field, text)) for field, text in self._texts()]

    def sieve_alone(self, answers: Sequence[str]) -> None:
        """Drop what was answered otherwise than it must be without the edit."""
        texts = list(self._texts())
        for (field, text), alone in self._emptied(texts, answers):
            fault = fault_of_alone(field, text, alone, self._told[field, text], self.edit.target)
            self._keep(field, text, fault)

    def _texts(self) -> Iterator[tuple[Field, str]]:
        for field, texts in self.kept.items():
            yield from ((field, text) for text in texts)

    def _emptied(
        self, texts: Sequence[tuple[Field, str]], answers: Sequence[str]
    ) -> Iterator[tuple[tuple[Field, str], str]]:
        """Texts with their answers; the lists are empty for those that are kept."""
        for field in self.kept:
            self.kept[field] = []
        yield from zip(texts, answers, strict=True)

    def _as_asked(self, field: Field, text: str) -> str:
        return self._rename(text) if field == "aliases" else text

    def _rename(self, alias: str) -> str:
        """The prompt with another name in the subject's place; before it where it does not stand there."""
        subject = re.escape(self.edit.subject or "")
        renamed, count = re.subn(subject, lambda _: alias, self.edit.prompt, count=1, flags=re.IGNORECASE)
        return renamed if count else f"{alias}: {self.edit.prompt}"

    def wordings(self, model: str, date: str) -> Wordings:
        """What is left."""
        texts = {field: tuple(kept) for field, kept in self.kept.items()}
        return Wordings(
            id=self.edit.id, prompt=self.edit.prompt, target=self.edit.target,
            asking=texts["asking"], others=texts["others"], aliases=texts["aliases"],
            model=model, date=date, dropped=dict(sorted(self._dropped.items())),
        )  # fmt: skip
