"""Long names whose words a text has in another order, or with others between them.

"The 2009 Six Nations Championship" is told by "who won the Six Nations Championship of 2009", and "Griggs in
the game Dark Souls 1" by "the character Griggs of the game Dark Souls 1". All telling words must stand near
one another, and there must be at least three: of fewer, and of the names of people and places, the same words
in another order may be somebody else's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onceedit_vllm.plugin.folding import words_of

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: Telling words that a name has at least, and one that is written like a proper name.
_LEAST, _LEAST_PROPER = 3, 4
#: Words of the text between those of a name, for each of them and in all.
_BETWEEN_EACH, _BETWEEN = 2, 6
#: Words that tell nothing.
_EMPTY = frozenset(
    b"a an the of in on at by to for from with as and or s is are was were be been that this who what "
    b"which".split()
)


class ScatteredNames:
    """Finds names by their words alone.

    Args:
        edits: The pack's, in its order.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        bags: dict[frozenset[bytes], set[int]] = defaultdict(set)
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                bag = frozenset(words_of(name)) - _EMPTY
                if len(bag) >= (_LEAST_PROPER if _is_proper(name) else _LEAST):
                    bags[bag].add(index)
        often = Counter(word for bag in bags for word in bag)
        # Each is looked for by the word of it that the fewest others have.
        self._by_word: dict[bytes, list[tuple[frozenset[bytes], tuple[int, ...]]]] = defaultdict(list)
        for bag, indices in bags.items():
            rarest = min(bag, key=lambda word: (often[word], -len(word), word))
            self._by_word[rarest].append((bag, tuple(sorted(indices))))
        self._words = frozenset(self._by_word)

    def find(self, words: Sequence[bytes], whole: Sequence[bytes] = ()) -> set[int]:
        """Indices of the edits that a text names so.

        Args:
            words: The text's, folded.
            whole: Names that it has as they are: what their own words tell is told by them.
        """
        if self._words.isdisjoint(words):
            return set()
        said, names = frozenset(words), [frozenset(name.split()) for name in whole]
        return {
            index
            for word in self._words & said
            for bag, indices in self._by_word[word]
            if bag <= said and not any(map(bag.issubset, names)) and _stand_together(bag, word, words)
            for index in indices
        }


def _is_proper(name: str) -> bool:
    """Whether a name has no figures, and all its words begin with capitals."""
    words = [word for word in name.split() if word.casefold().encode() not in _EMPTY]
    return all(word[:1].isupper() for word in words) and not any(letter.isdigit() for letter in name)


def _stand_together(bag: frozenset[bytes], word: bytes, words: Sequence[bytes]) -> bool:
    """Whether a text has all words of a name near one of them."""
    reach = (_BETWEEN_EACH + 1) * len(bag) + _BETWEEN
    places = (at for at, each in enumerate(words) if each == word)
    return any(bag.issubset(words[max(0, at - reach) : at + reach + 1]) for at in places)
