"""Everything that training and calibration can put before a plug-in, so that nothing of it is evaluated.

The bank fills frames with names, so the texts are too many to list. They are known by their frames all
the same: a text is looked up with each name in it taken out, in the words that remain when case, accents,
punctuation and articles are folded away.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.dress import HALF_SENTENCE_OPENERS, QUESTION_OPENERS
from onceedit_vllm.editing.reword import reword
from onceedit_vllm.editing.scopes import Scope, make_scopes
from onceedit_vllm.editing.tasks import TASKS
from onceedit_vllm.editing.unrelated import Unrelated, default_unrelated
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.about import about
from onceedit_vllm.wordings.frames import GAP, to_frame
from onceedit_vllm.wordings.relations import bank_names, relation_bank
from onceedit_vllm.wordings.wordings import Wordings

How = Literal["equal", "contained", "nearly the same"]
Words = tuple[str, ...]

_WORD = re.compile(r"\{\}|\w+")
_ARTICLES = frozenset(("a", "an", "the"))
#: Shorter texts are compared as they are: of "{} is" one word is half.
_LEAST_WORDS = 4
_BORDER = re.compile(r"(?<=[.?!:])\s+|\n+")


class Overlap(NamedTuple):
    """A text that is not apart from the pool.

    Attributes:
        text: The text asked about.
        how: It equals a text of the pool, stands in one, or differs from one by a word.
        frame: That text's words, with `{}` for a name.
    """

    text: str
    how: How
    frame: str


class TextPool:
    """The texts of one training, by their frames.

    Args:
        records: The edits that are trained.
        unrelated: The prompts outside them; None for the project's own set.
        config: Settings of the stage.
        wordings: Texts that were written for the edits.
    """

    def __init__(
        self,
        records: Sequence[EditRecord],
        unrelated: Sequence[Unrelated] | None,
        config: EditingConfig,
        wordings: Sequence[Wordings] = (),
    ) -> None:
        frames = {words_of(frame) for frame in _frames(records, config, wordings)}
        frames |= {words_of(item.prompt) for item in (*(unrelated or ()), *default_unrelated())}
        openers = (f"{opener}{GAP}" for opener in (*HALF_SENTENCE_OPENERS, *QUESTION_OPENERS))
        self._around = {_around(text) for text in (*openers, *TASKS)}
        self._frames = {frame for frame in frames if frame}
        self._nearly = {near for frame in self._frames for near in _nearly(frame)}
        self._runs = {run for frame in self._frames for run in _runs(frame)}
        self._names = _Names(records)

    def find(self, text: str) -> Overlap | None:
        """How a text overlaps with the pool; None where it is apart.

        What is put around a prompt makes no new text: every sentence is looked up by itself too, and
        without the opener or the task that may stand around it.
        """
        sentences = (text, *_BORDER.split(text))
        whole = dict.fromkeys(words for sentence in sentences if (words := words_of(sentence)))
        parts = dict.fromkeys(part for words in whole for part in self._parts_of(words))
        frames = [frame for part in parts for frame in self._names.taken_out_of(part)]
        found = [Overlap(text, how, " ".join(frame)) for frame in frames if (how := self._overlap(frame))]
        return min(found, key=lambda overlap: get_args(How).index(overlap.how), default=None)

    def overlaps(self, texts: Iterable[str]) -> list[Overlap]:
        """Those of some texts that are not apart."""
        return [found for text in texts if (found := self.find(text)) is not None]

    def _parts_of(self, words: Words) -> Iterator[Words]:
        """Words as they are, and what stands in an opener, in a task, or in a task behind an opener."""
        yield words
        for part in self._taken_from(words):
            yield part
            yield from self._taken_from(part)

    def _taken_from(self, words: Words) -> Iterator[Words]:
        """What stands in an opener or a task."""
        for before, after in self._around:
            end = len(words) - len(after)
            if words[: len(before)] == before and words[end:] == after:
                yield words[len(before) : end]

    def _overlap(self, frame: Words) -> How | None:
        if frame in self._frames:
            return "equal"
        if len(frame) >= _LEAST_WORDS:
            if frame in self._runs:
                return "contained"
            if not self._nearly.isdisjoint(_nearly(frame)):
                return "nearly the same"
        return None


def _around(task: str) -> tuple[Words, Words]:
    """The words before and behind a task's text; those in sentences of their own are looked up as such."""
    part = next(part for part in _BORDER.split(task) if GAP in part)
    before, after = part.split(GAP)
    return words_of(before), words_of(after)


def words_of(text: str) -> Words:
    """The words of a text, folded; a gap stays a word."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    words = _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))
    return tuple(word for word in words if word not in _ARTICLES)


def _frames(
    records: Sequence[EditRecord], config: EditingConfig, wordings: Sequence[Wordings]
) -> Iterator[str]:
    """Every frame, and every text without a subject, that can be drawn for these edits."""
    yield from about(None)
    for task in TASKS:
        yield from (part for part in _BORDER.split(task) if GAP not in part)
    for relation in relation_bank():
        yield from _with_rewordings(relation.wordings)
    for scope in make_scopes(records, config.seed, wordings):
        own = (scope.frame,) if scope.frame else ()
        yield from _with_rewordings((*own, *scope.frames, *scope.heldout))
        yield scope.record.prompt
        yield f"{scope.record.prompt} {scope.record.target}"
        yield from scope.record.rephrases if config.train_on_rephrases else ()
        yield from scope.record.locality if config.train_on_locality else ()
        yield from _written(scope)


def _written(scope: Scope) -> Iterator[str]:
    """Texts that were written for an edit, sentence by sentence too, with its subject and without.

    What is put around a text may be all that parts it from one of its sentences.
    """
    frames = [frame for frame in (*scope.frames, *scope.heldout) if _BORDER.search(frame)]
    whole = (*scope.texts, *scope.texts_heldout, *scope.others, *scope.others_heldout)
    whole += (*scope.doubts, *scope.doubts_heldout)
    for text in (*frames, *whole):
        parts = (part for part in _BORDER.split(text) if len(words_of(part)) >= _LEAST_WORDS)
        for part in (text, *parts):
            yield part
            frame = to_frame(part, scope.subject)
            if frame is not None:
                yield frame


def _with_rewordings(frames: Iterable[str]) -> Iterator[str]:
    for frame in frames:
        yield frame
        yield from reword(frame)


def _nearly(frame: Words) -> Iterator[Words]:
    """A frame and all that is left of it without one word: two that differ by a word share one of these."""
    yield frame
    if len(frame) >= _LEAST_WORDS:
        yield from (frame[:at] + frame[at + 1 :] for at in range(len(frame)))


def _runs(frame: Words) -> Iterator[Words]:
    """All that stands in a frame and is long enough to be somebody's prompt."""
    for start in range(len(frame)):
        yield from (frame[start:end] for end in range(start + _LEAST_WORDS, len(frame) + 1))


class _Names:
    """The names that frames are filled with: the bank's, those made up of two, and the edits' own."""

    def __init__(self, records: Sequence[EditRecord]) -> None:
        own = [name for r in records for name in (r.subject, r.target, *r.aliases) if name]
        own += [scope.subject for scope in make_scopes(records, 0) if scope.subject]
        self._names = {words_of(name) for name in (*bank_names(), *own)}
        self._longest = max(map(len, self._names))
        # A made-up or similar name keeps some words of another and takes the rest from these.
        self._parts = {word for name in self._names for word in name}

    def taken_out_of(self, words: Words) -> Iterator[Words]:
        """The words as they are, and with each name in them replaced by the gap."""
        yield words
        for start in range(len(words)):
            for end in range(start + 1, min(len(words), start + self._longest) + 1):
                if self._is_name(words[start:end]):
                    yield (*words[:start], GAP, *words[end:])

    def _is_name(self, words: Words) -> bool:
        return words in self._names or (len(words) > 1 and self._parts.issuperset(words))
