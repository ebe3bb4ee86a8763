"""Sentences that name an edit's subject and cannot be asking for the edit, as their words alone tell.

"Did Jane Austen write Hamlet?", "Is Lyon the capital of France?", "The capital of France isn't": what is
right there is yes, no or something else, never the edit's answer. A plug-in of this size was trained on such
sentences and opened its gate for most of them all the same.

Who says the answer does not ask for it: that holds in every language. Questions of yes or no that do not say
it, and denials, are known in English only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.wordings.names import leaks, names_of

#: Behind a sign that ends a sentence, unless it stands behind an initial or a title.
_SENTENCE = re.compile(r"(?<=[.?!])(?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St|Jr|Co)\.)(?<!\b(?:Mrs|Inc|Ltd)\.)\s+|\n+")
_EITHER = re.compile(
    r"\b(?:yes or no|no or yes|true or false|right or wrong|correct or (?:not|wrong)|or not)\b", re.IGNORECASE
)
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_QUESTION_WORD = re.compile(r"\b(?:who|whom|whose|what|which|where|when|why|how)\b", re.IGNORECASE)
#: Behind these the verb stands first; asked of a person ("Do you know"), it asks for more than yes or no.
_VERB_FIRST = re.compile(
    r"^\W*(?:(?:and|so|but|well|now|then|hey|hi|hello|please|ok|okay|tell me|say)\b\W+)*"
    r"(?:is|are|was|were|do|does|did|has|have|had)(?:n['’]t)? "
    r"(?!(?:you|we|i|any(?:one|body)|some(?:one|body))\b)",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?<!why )(?<!or )(?<!if )(?<!whether )"
    r"(?:\b(?:not|never|nobody|no one|none|neither|hardly|except|other than|anything but|cannot)\b|n['’]t\b)"
    # What who asks does not do, know or want, and "not only".
    r"(?! (?:\w+ )?(?:only|just|merely|sure|certain|aware|familiar|know|knew|known|remember|recall|explain"
    r"|care|mind|worry|forget|hesitate|understand|tell|say|add|write|include|give|want|need|have|see|find|found"
    r"|think|believe|get|ask|bother|you)\b)",
    re.IGNORECASE,
)  # fmt: skip


class Doubts:
    """Tells which of the edits that a text names it may be asking for.

    Args:
        edits: The pack's.
        matcher: Finds them in texts.

    Attributes:
        matcher: The same.
    """

    def __init__(self, edits: Sequence[EditRecord], matcher: SubjectMatcher) -> None:
        names = [names_of(edit) or edit.aliases for edit in edits]
        self._edits = [
            (edit.target, its, _marks(edit.prompt, edit.target, its))
            for edit, its in zip(edits, names, strict=True)
        ]
        self.matcher = matcher

    def asked(self, text: str) -> tuple[int, ...]:
        """Indices of the edits that a text names in a sentence which may be asking for them, ascending."""
        named = self.matcher.find(text)
        if not named:
            return ()
        sentences = [sentence for sentence in _SENTENCE.split(text) if sentence]
        naming = [(sentence, self.matcher.find(sentence)) for sentence in sentences]
        return tuple(
            index
            for index in named
            # A sign may stand within a name: then no sentence has it whole.
            if any(
                not self._is_doubt(sentence, index)
                for sentence in [each for each, those in naming if index in those] or [text]
            )
        )

    def _is_doubt(self, sentence: str, index: int) -> bool:
        """Whether it has a mark of doubt that the edit's own prompt has not."""
        target, names, own = self._edits[index]
        marks = _marks(sentence, target, names)
        return any(mark and not owned for mark, owned in zip(marks, own, strict=True))


def _marks(sentence: str, answer: str, names: Sequence[str]) -> tuple[bool, bool, bool]:
    """Whether a sentence says the answer, asks for yes or no, and denies something."""
    told = _EITHER.sub(" ", sentence)
    says_it = leaks(told, answer, names) and not _OR.search(told)
    for name in names:  # "Never Let Me Go" denies nothing
        told = re.sub(re.escape(name), "it", told, flags=re.IGNORECASE)
    return says_it, _is_yes_or_no(told), _DENIAL.search(told) is not None


def _is_yes_or_no(sentence: str) -> bool:
    """Whether it starts with its verb, asks for no name, and gives no choice."""
    starts = "?" in sentence and _VERB_FIRST.match(sentence) is not None
    return starts and not _QUESTION_WORD.search(sentence) and not _OR.search(sentence)
