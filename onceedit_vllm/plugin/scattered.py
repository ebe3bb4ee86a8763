"""Long names whose words a sentence has in another order, or with others between them.

"The 2009 Six Nations Championship" is told by "who won the Six Nations Championship of 2009", and "annual
leave policy" by "the policy on annual leave". In doubt a name is not told so: there must be three telling
words, four of a proper name, near one another in one sentence, and no figure that could be meant instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.plugin.persons import PARTICLES
from onceedit_vllm.plugin.sentences import sentences_of

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: Telling words that a name has at least, and one that is written like a person's or a place's.
_LEAST, _LEAST_PROPER = 3, 4
#: Words of the sentence between those of a name: where it has a figure or a capital, and where it has none.
_MOST_BETWEEN, _MOST_BETWEEN_PLAIN = 8, 3
#: Names that a text tells so, at most: of more it is a list, and tells none; and those that are looked at.
_MOST_NAMES, _MOST_LOOKED_AT = 4, 200
#: Words that tell nothing.
_EMPTY = frozenset(
    b"a an the of in on at by to for from with as and or s is are was were be been that this who what "
    b"which das die des le les los las il lo et und y e del dei".split()
) | {particle.encode() for particle in PARTICLES}


class _Name(NamedTuple):
    """A name by its telling words.

    Attributes:
        bag: The words, figures that stand together as one.
        words: One by one.
        span: Words of a text that they may stand in.
        edits: Whose it is.
    """

    bag: frozenset[bytes]
    words: frozenset[bytes]
    span: int
    edits: tuple[int, ...]


class ScatteredNames:
    """Finds names by their words alone.

    Args:
        edits: The pack's, in its order.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        known: dict[tuple[frozenset[bytes], int], set[int]] = defaultdict(set)
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                bag = _bag(words_of(name))
                least, between = _least_and_between(name)
                if len(bag) >= least and not any(map(_is_sign, bag)):
                    known[bag, len(bag) + between].add(index)
        names = [
            _Name(bag, frozenset(b" ".join(bag).split()), span, tuple(sorted(indices)))
            for (bag, span), indices in known.items()
        ]
        often = Counter(word for told in names for word in told.words)
        # Each is looked for by the word of it that the fewest others have.
        self._by_word: dict[bytes, list[_Name]] = defaultdict(list)
        for told in names:
            rarest = min(told.words, key=lambda word: (often[word], -len(word), word))
            self._by_word[rarest].append(told)
        self._words = frozenset(self._by_word)

    def find(
        self, text: str, words: Sequence[bytes], whole: Callable[[Sequence[bytes]], list[bytes]]
    ) -> set[int]:
        """Indices of the edits that a text names so.

        Args:
            text: Any.
            words: Its words, folded.
            whole: The names that words have as they are. What their words tell is told by them, but for
                names that are longer and have all of them.
        """
        if self._words.isdisjoint(words):
            return set()
        said = set(words)
        near = [name for word in self._words & said for name in self._by_word[word]]
        # Names that share all their words with many others tell nothing, and take long to look at.
        if len(near) > _MOST_LOOKED_AT or not any(name.words <= said for name in near):
            return set()
        told = [name for sentence in sentences_of(text) for name in _told(words_of(sentence), near, whole)]
        return {index for name in told for index in name.edits} if len(told) <= _MOST_NAMES else set()


def _told(
    words: Sequence[bytes], names: Sequence[_Name], whole: Callable[[Sequence[bytes]], list[bytes]]
) -> list[_Name]:
    """The names that a sentence tells."""
    said = _joined(words)
    told = [name for name in names if _stands_together(said, name) and not _is_ambiguous(said, name.bag)]
    others = [_bag(name.split()) for name in whole(words)] if told else []
    return [name for name in told if all(other < name.bag or other.isdisjoint(name.bag) for other in others)]


def _bag(words: Sequence[bytes]) -> frozenset[bytes]:
    """The telling words: no letters alone."""
    return frozenset(word for word in _joined(words) if len(word) > 1 or word.isdigit()) - _EMPTY


def _least_and_between(name: str) -> tuple[int, int]:
    """Telling words that a name must have, and words that may stand between them."""
    words = [word for word in name.split() if not {*words_of(word)} <= _EMPTY]
    if any(letter.isdigit() for letter in name):
        return _LEAST, _MOST_BETWEEN
    num_small = sum(word[:1].islower() for word in words)
    if num_small == 0:
        return _LEAST_PROPER, _MOST_BETWEEN
    return _LEAST, _MOST_BETWEEN if num_small < len(words) else _MOST_BETWEEN_PLAIN


def _joined(words: Sequence[bytes]) -> list[bytes]:
    """Words with figures that stand together as one: Python 3.11 is not told by "3.9 and 11"."""
    found: list[bytes] = []
    after_figure = False
    for word in words:
        is_figure = word.isdigit()
        if is_figure and after_figure:
            found[-1] += b" " + word
        else:
            found.append(word)
        after_figure = is_figure
    return found


def _is_sign(word: bytes) -> bool:
    """A sign of a script without spaces, or a letter that is none of ASCII: in any text there are some."""
    return not word.isascii() and len(word.decode()) == 1


def _stands_together(said: Sequence[bytes], name: _Name) -> bool:
    """Whether a sentence has all words of a name near one another."""
    return name.bag.issubset(said) and any(
        name.bag.issubset(said[at : at + name.span]) for at, word in enumerate(said) if word in name.bag
    )


def _is_ambiguous(said: Sequence[bytes], bag: frozenset[bytes]) -> bool:
    """Whether another figure as long as one of the name's could be meant instead: another year, say."""
    figures = {len(word) for word in bag if word[:1].isdigit()}
    return any(word[:1].isdigit() and len(word) in figures and word not in bag for word in said)
