"""What counts as right. Texts are compared, never token ids: another spelling of a token is no error.

EasyEdit compares the ids of `encode(target)`, made without the space before it, with the ids an LLM writes,
which has the space: wrong for every vocabulary of bytes. Its definitions stand here on normalised texts. A
fused answer, moreover, is cut where the plug-in cuts it (" Nik" "ola"), not as the LLM cuts a target
(" Nikola").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

#: Where an answer ends by itself.
_STOP = re.compile(r"\n|\.(?=\s|$)")
_ARTICLE = re.compile(r"^(?:the|an|a)\s+")


def normalise_answer(text: str) -> str:
    """Fold case, width and spaces; take off signs at both ends and a leading article."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _ARTICLE.sub("", _trim(plain))


def _trim(text: str) -> str:
    """The text from its first to its last letter or digit; as it was where it has neither."""
    marks = [at for at, sign in enumerate(text) if sign.isalnum()]
    return text[marks[0] : marks[-1] + 1] if marks else text


def natural_stop(text: str, target: str = "") -> str:
    """An answer up to its first newline or full stop.

    A full stop that the target has at the same place is none ("St. Louis"), nor is one inside a number.

    Args:
        text: What was generated, to the end of sequence.
        target: The answer that is wanted.
    """
    wanted = target.strip().casefold()
    for match in _STOP.finditer(text):
        so_far = text[: match.end()].strip().casefold()
        if match.group() == "\n" or not wanted.startswith(so_far) or so_far == wanted:
            return text[: match.start()]
    return text


def is_exact(text: str, target: str) -> bool:
    """Natural stop: the target and nothing else."""
    return normalise_answer(natural_stop(text, target)) == normalise_answer(target)


def is_said(text: str, target: str, old: str | None = None) -> bool:
    """Chat: the new answer is said and the old one is not, each as whole words."""
    said = _holds(text, target)
    is_old_apart = bool(old) and not _holds(target, old or "")
    return said and not (is_old_apart and _holds(text, old or ""))


def _holds(text: str, part: str) -> bool:
    words, wanted = _words(text), _words(part)
    spans = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in spans)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def token_accuracy(said: Sequence[str], wanted: Sequence[str]) -> float:
    """EasyEdit's rewrite and rephrase accuracy: the share of the target's tokens that were said in place.

    Args:
        said: The text of each token that was said, one by one; what is missing is wrong.
        wanted: The text of each token of the target.
    """
    pairs = zip(said, wanted, strict=False)
    return sum(_piece(a) == _piece(b) for a, b in pairs) / len(wanted) if wanted else 0.0


def text_accuracy(text: str, wanted: Sequence[str]) -> float:
    """The share of the target's tokens whose text was said in place, however what was said is cut.

    Args:
        text: What was said; what goes on behind the target is not looked at.
        wanted: The text of each token of the target.
    """
    said, start, right = _squeezed(text), 0, 0
    pieces = [piece for piece in map(_squeezed, wanted) if piece]
    for piece in pieces:
        right += said[start : start + len(piece)] == piece
        start += len(piece)
    return right / len(pieces) if pieces else 0.0


def forced_accuracy(winners: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of places at which the winner begins what is still to be said, given all before it.

    Args:
        winners: The text of the token that wins at each place of the target.
        wanted: The text of each token of the target.
    """
    won, gold = [_squeezed(piece) for piece in winners], [_squeezed(piece) for piece in wanted]
    right = sum(
        "".join(gold[at:]).startswith(piece) if piece else not gold[at]
        for at, piece in enumerate(won[: len(gold)])
    )
    return right / len(gold) if gold else 0.0


def token_agreement(after: Sequence[int], before: Sequence[int]) -> float:
    """EasyEdit's locality: the share of tokens that are the same before and after the edit.

    Both are the same LLM's, so ids say what texts say.
    """
    length = max(len(after), len(before))
    return sum(a == b for a, b in zip(after, before, strict=False)) / length if length else 1.0


def _piece(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _squeezed(text: str) -> str:
    """Without spaces: some tokenizers give a token alone without the one before it."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
