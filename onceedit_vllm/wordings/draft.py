"""What was written for one edit, while it is sieved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.kinds import Field, Kind
from onceedit_vllm.wordings.lines import read_lines
from onceedit_vllm.wordings.names import are_alike, is_like, is_telling, leaks, names_of, says, words_of
from onceedit_vllm.wordings.questions import Pair, fact_of, fault_of_asking, fault_of_other
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

    def asked(self) -> list[tuple[str, str]]:
        """The facts and the texts to be asked behind them, in the order that :meth:`sieve` takes."""
        own = fact_of(self.edit)
        return [
            *((own, text) for text in self.kept["asking"]),
            *((self._facts, text) for text in self.kept["others"]),
            *((own, self._rename(alias)) for alias in self.kept["aliases"]),
        ]

    def _rename(self, alias: str) -> str:
        """The prompt with another name in the subject's place; before it where it does not stand there."""
        subject = re.escape(self.edit.subject or "")
        renamed, count = re.subn(subject, lambda _: alias, self.edit.prompt, count=1, flags=re.IGNORECASE)
        return renamed if count else f"{alias}: {self.edit.prompt}"

    def sieve(self, pairs: Sequence[Pair]) -> None:
        """Drop what did not stand the round trip."""
        answers = iter(pairs)
        for field in self.kept:
            texts, self.kept[field] = self.kept[field], []
            for text in texts:
                pair = next(answers)
                if field == "others":
                    self._keep(field, text, fault_of_other(pair, self._targets))
                else:
                    self._keep(field, text, fault_of_asking(pair, self.edit.target))

    def wordings(self, model: str, date: str) -> Wordings:
        """What is left."""
        texts = {field: tuple(kept) for field, kept in self.kept.items()}
        return Wordings(
            id=self.edit.id, prompt=self.edit.prompt, target=self.edit.target,
            asking=texts["asking"], others=texts["others"], aliases=texts["aliases"],
            model=model, date=date, dropped=dict(sorted(self._dropped.items())),
        )  # fmt: skip
