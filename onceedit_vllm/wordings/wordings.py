"""Other wordings of one edit, questions that are not it, and other names of its subject."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict


class Wordings(BaseModel):
    """One line of `wordings.jsonl`; whoever writes one by hand needs `id` and a list or two.

    Attributes:
        id: The edit's.
        prompt: The edit's, so that a file is not taken for another edit's of the same id.
        target: The same with its answer.
        asking: Whole texts that ask for the edit; each names the subject or an alias.
        others: Whole texts that name the subject and ask for something else.
        aliases: Proposed other names of the subject.
        model: Who wrote them.
        date: When, ISO 8601.
        dropped: What was written and not kept, by reason: `asking: leaks`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    prompt: str | None = None
    target: str | None = None
    asking: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    model: str | None = None
    date: str | None = None
    dropped: dict[str, int] = {}

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text with the name of its list."""
        for name in ("asking", "others", "aliases"):
            yield from ((name, text) for text in getattr(self, name))
