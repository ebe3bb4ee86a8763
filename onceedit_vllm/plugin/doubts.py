"""Sentences that name an edit's subject and cannot be asking for the edit, as their words alone tell.

"Did Jane Austen write Hamlet?", "Is Lyon the capital of France?", "The capital of France isn't", "The money
of France is": what is right there is yes, no or something else, never the edit's answer. A plug-in of this
size was trained on such sentences and opened its gate for many of them all the same.

Who says the answer does not ask for it: that holds in every language. Questions of yes or no that do not say
it, questions why, denials, other relations, questions a step further, and what a subject is known for or what
is one famous thing about it are known in English only, and only in a text that ends with the sentence:
"Didn't France move its capital? Where is it now?" asks. Shutting out who asks is the worse error, for the
gate is still behind; so in doubt a sentence passes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.forms import replace_forms
from onceedit_vllm.plugin.scope import Named, SubjectMatcher
from onceedit_vllm.plugin.sentences import sentences_of
from onceedit_vllm.wordings.frames import GAP
from onceedit_vllm.wordings.hops import asks_further
from onceedit_vllm.wordings.names import names_of, replace_name, says, words_of
from onceedit_vllm.wordings.relations import Relation, ask_otherwise, find_relations

_LETTER = re.compile(r"\w")
#: Parts of a sentence of which one may deny what another asks for.
_CLAUSE = re.compile(r"[,;:()\[\]–—]|\s-+\s")
_EITHER = re.compile(
    r"(?:\b(?:please )?(?:answer|reply|respond)(?: with| only| just)* )?"
    r"\b(?:yes ?(?:or|/) ?no|no or yes|true or false|right or wrong|correct or (?:not|wrong)|or not)\b",
    re.IGNORECASE,
)
_EITHER_WORDS = ("yes", "true or", "right or", "correct or", "or not")
#: Of several answers one is asked for, and the edit's may be among them.
_CHOICE = re.compile(
    r"\b(?:or|pick|choose|select|options?|which (?:one|of)|who(?:['’]s| is) right)\b|\w ?/ ?\w", re.IGNORECASE
)
_QUESTION_WORD = re.compile(r"\b(?:who|whom|whose|what|which|where|when|why|how)\b", re.IGNORECASE)
#: What may stand before a question.
_OPENER = r"^\W*(?:(?:and|so|but|well|now|then|hey|hi|hello|please|ok|okay|tell me|say)\b\W+)*"
#: "Was ist" is German.
_VERB = (
    r"(?:is|are|was(?! (?:ist|sind|war|waren|hat|haben|macht|bedeutet|kann|sagt)\b)|were|do|does|did|has|have"
    r"|had)(?:n['’]t)?"
)
#: Asked of a person or of a text ("Do you know", "Is there") it is more than a question of yes or no.
_ASKED = (
    r"(?:you|we|i|there|any(?:one|body)|some(?:one|body)"
    r"|(?:this|that|the|your) (?:text|passage|article|document|page|context))"
)
_WHY = re.compile(
    rf"{_OPENER}(?P<asked>why) (?:is|are|was|were|do|does|did|has|have|had) (?!{_ASKED}\b).*\?",
    re.IGNORECASE,
)
_VERB_FIRST = re.compile(rf"{_OPENER}{_VERB} (?!{_ASKED}\b)", re.IGNORECASE)
_NO = (
    r"(?:\b(?:not|never|nobody|no one|none(?! other)|neither|hardly|except|(?<!none )other than|anything but"
    r"|cannot)\b|n['’]t\b)"
)
#: What who asks does not know, do or want; and "not only".
_KNOW = r"(?:know|knew|known|remember|recall|sure|certain|aware)"
_DO = (
    r"(?:only|just|merely|familiar|explain|care|mind|worry|forget|hesitate|understand|tell|say|add|include|give"
    r"|want|need|have|see|find|think|believe|get|ask|bother|you)"
)
_DENIAL = re.compile(
    rf"(?<!why )(?<!or )(?<!if )(?<!whether ){_NO}"
    rf"(?! (?:\w+ ){{0,5}}?{_KNOW}\b)(?! (?:\w+ )?{_DO}\b)(?!.*\bbut\W*$)",
    re.IGNORECASE,
)
#: Who asks for an edit asks for one thing, not for any that is famous.
_FAMED = (
    r"(?:famous|famed|well[ -]known|notable|noted|noteworthy|iconic|renowned|celebrated|popular|remarkable"
    r"|memorable|interesting)"
)
_ANY_FAMED = re.compile(
    r"(?:\b(?:what|which)(?:['’]s| is| are| was| were)|\b(?:name|list|mention|share|give me|tell me)|^\W*)"
    rf" ?(?:a|an|one|some)(?: of the)?(?: (?:very|most|best|particularly))? {_FAMED}\b",
    re.IGNORECASE,
)
_KNOWN_FOR = re.compile(
    rf"\b(?:known|remembered|recogni[sz]ed|{_FAMED}) (?:for|because of)"
    r"(?: (?:its|his|her|their)| in (?:the )?\w+(?: \w+){0,5})?\W*$",
    re.IGNORECASE,
)
#: Letters by which long words are compared: "works" and "work", "located" and "location".
_STEM = 5
_FILLERS = frozenset((
    "what", "which", "where", "when", "whose", "from", "does", "that", "this", "with", "name", "have",
    "been", "were", "most", "some", "best", "very", "well",
))  # fmt: skip
_FAME = re.compile(rf"\b(?:known|{_FAMED})\b", re.IGNORECASE)


#: Edits that a text names of which it is told which may be asked for; of more all may be.
_MOST_DOUBTED = 64


class _Marks(NamedTuple):
    """What tells that a sentence asks for something else.

    `frame` is the sentence without its subject, `naming` its parts that name one.
    """

    wants_no_name: bool
    denies: bool
    relations: tuple[Relation, ...]
    frame: str
    naming: tuple[str, ...]


class _Own(NamedTuple):
    """An edit's own prompt: what would tell so of another sentence tells nothing of one that has it, too."""

    marks: _Marks
    says_answer: bool
    goes_further: bool


class _Told(NamedTuple):
    """A text in sentences, the edits and other forms in each, and the marks found so far."""

    text: str
    sentences: Sequence[str]
    named: Sequence[set[int]]
    forms: Mapping[int, Sequence[str]]
    marks: dict[tuple[str, ...], _Marks]


class Doubts:
    """Tells which of the edits that a text names it may be asking for.

    Args:
        edits: The pack's.
        matcher: Finds them in texts.

    Attributes:
        matcher: The same.
    """

    def __init__(self, edits: Sequence[EditRecord], matcher: SubjectMatcher) -> None:
        self._edits = edits
        # Each edit's own, when it is first named: of all of them they would hold up the step after a swap.
        self._own: dict[int, _Own] = {}
        self.matcher = matcher

    def asked(self, text: str, named: Named | None = None) -> tuple[int, ...]:
        """Indices of the edits that a text names in a sentence which may be asking for them, ascending.

        Args:
            text: Any.
            named: What it names, where that is known.
        """
        edits, found_forms = named or self.matcher.look(text)
        if not edits or len(edits) > _MOST_DOUBTED:
            return edits
        told = _without_either(text)
        sentences = sentences_of(told)
        forms: dict[int, list[str]] = defaultdict(list)
        for form, meant in found_forms.items():
            for index in meant.edits:
                forms[index].append(form)
        looked_at = _Told(told, sentences, self.matcher.look_into(sentences, found_forms), forms, {})
        return tuple(index for index in edits if self._may_be_asked(looked_at, index))

    def _may_be_asked(self, told: _Told, index: int) -> bool:
        places = [place for place, named in enumerate(told.named) if index in named]
        if not places:  # a sign may stand within a name: then no sentence has it whole
            return not self._is_doubt(told.text, told, index, True)
        last = len(told.sentences) - 1
        return not all(self._is_doubt(told.sentences[place], told, index, place == last) for place in places)

    def _is_doubt(self, sentence: str, told: _Told, index: int, is_last: bool) -> bool:
        """Whether it has a mark of doubt that the edit's own prompt has not."""
        edit, own = self._edits[index], self._own_of(index)
        key = (sentence, *told.forms.get(index, ()), "", *_names(edit))
        marks = told.marks.get(key)
        if marks is None:  # edits of one subject share them
            marks = told.marks[key] = _marks(sentence, edit, told.forms.get(index, ()))
        if not own.says_answer and _says_answer(marks, sentence, edit):
            return True
        return is_last and (
            (marks.wants_no_name and not own.marks.wants_no_name)
            or (marks.denies and not own.marks.denies)
            or ask_otherwise(marks.relations, own.marks.relations)
            or _asks_for_fame(marks, own.marks.frame)
            or (not own.goes_further and _goes_further(marks, own.marks.frame))
        )

    def _own_of(self, index: int) -> _Own:
        known = self._own.get(index)
        if known is None:
            edit = self._edits[index]
            prompt = _without_either(edit.prompt)
            marks = _marks(prompt, edit)
            further = _goes_further(marks, marks.frame)
            known = self._own[index] = _Own(marks, _says_answer(marks, prompt, edit), further)
        return known


def _names(edit: EditRecord) -> tuple[str, ...]:
    return names_of(edit) or edit.aliases


def _marks(sentence: str, edit: EditRecord, forms: Sequence[str] = ()) -> _Marks:
    """Of a sentence that names the edit, by its names or by other forms of them."""
    frame = " ".join(sentence.split())
    frame = replace_forms(frame, dict.fromkeys(forms, GAP))
    for name in _names(edit):  # "Never Let Me Go" denies nothing
        frame = replace_name(frame, name, GAP, any_case=True)
    clauses = [part for part in _CLAUSE.split(frame) if _LETTER.search(part) or GAP in part] or [frame]
    naming = [clause for clause in clauses if GAP in clause] or [frame]
    return _Marks(
        _wants_no_name(frame),
        GAP in clauses[-1] and _DENIAL.search(clauses[-1]) is not None,
        find_relations(frame.strip()) if frame.count(GAP) == 1 else (),
        frame,
        tuple(naming),
    )


def _says_answer(marks: _Marks, sentence: str, edit: EditRecord) -> bool:
    """Whether all that names the subject says the edit's answer, elsewhere than in a name."""
    if _CHOICE.search(sentence) or not all(says(clause, edit.target) for clause in marks.naming):
        return False
    return GAP in marks.frame or not any(says(name, edit.target) for name in names_of(edit))


def _goes_further(marks: _Marks, own: str) -> bool:
    return marks.frame.count(GAP) == 1 and asks_further(marks.naming[-1], own)


def _without_either(text: str) -> str:
    """A text without "yes or no", and what else says only that one of the two is wanted."""
    lowered = text.lower()  # a long text is searched for words ten times faster than for a pattern
    return _EITHER.sub(" ", text) if any(words in lowered for words in _EITHER_WORDS) else text


def _wants_no_name(sentence: str) -> bool:
    """Whether it asks why, or starts with its verb, asks for no name, and gives no choice."""
    why = _WHY.match(sentence)
    if why and not _QUESTION_WORD.search(sentence[why.end("asked") :]):
        return True
    starts = "?" in sentence and _VERB_FIRST.match(sentence) is not None
    return starts and not _QUESTION_WORD.search(sentence) and not _CHOICE.search(sentence)


def _asks_for_fame(marks: _Marks, own: str) -> bool:
    """Whether any famous thing will do, and the edit is about neither fame nor such a thing."""
    any_famed = _ANY_FAMED.search(marks.naming[-1])
    if _FAME.search(own) or not (any_famed or _KNOWN_FOR.search(marks.frame)):
        return False
    wanted = marks.naming[-1][any_famed.end() :] if any_famed else marks.frame
    return _stems(wanted).isdisjoint(_stems(own))


def _stems(text: str) -> set[str]:
    words = (word for word in words_of(text) if len(word) >= _STEM - 1 and word not in _FILLERS)
    return {word[:_STEM] for word in words}
