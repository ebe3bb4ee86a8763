"""Prompts in LLM tokens: their text, and what their subjects say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.runner.scope import Found, Look, PromptScope, Scopes
from tests.unit.plugin.fakes import EDITED, EDITS, EOS
from tests.unit.runner.fakes import NAMED, SURFACE, UNNAMED, some_scope


@pytest.mark.parametrize(
    ("kind", "named", "other"),
    [("subject+weight", "subject", "out"), ("subject", "subject", "out"), ("weight", "weight", "weight")],
)
def test_verdicts(kind, named, other):
    scope = some_scope(kind)
    assert [scope.of(prompt).verdict for prompt in ([1, NAMED], [EDITED])] == [named, named]
    assert (scope.of([1, 2]), scope.of([])) == (Found(other), Found(other))
    assert scope.mention_opens == (kind == "subject")


def test_the_named_edits_are_told():
    scope = some_scope()
    assert [scope.of(prompt)[1] for prompt in ([NAMED], [EDITED], [EDITED, 1, NAMED])] == [(0,), (1,), (0, 1)]
    assert some_scope("weight").of([NAMED]) == Found("weight")


def test_an_edit_without_a_subject_keeps_other_prompts_from_being_out():
    scope = some_scope("subject+weight", UNNAMED)
    assert scope.num_unnamed == 1
    assert (scope.of([1]), scope.of([NAMED])) == (Found("weight"), Found("subject", (0,)))


def test_what_cannot_be_asking_for_the_edit_is_out_by_default_only():
    surface = Surface(
        "byte-level", [None, b" Oslo", b" Lima", b" not"], frozenset({EOS}), frozenset(), EOS, False
    )
    edit = EditRecord(id="a", prompt="p", target="Lima", subject="Oslo")
    told, denied = [2, 1], [1, 3]
    scope = PromptScope([edit], surface, "subject+weight")
    assert [scope.of(prompt) for prompt in ([1], told, denied)] == [
        Found("subject", (0,)),
        *2 * [Found("out")],
    ]
    scope = PromptScope([edit], surface, "subject")
    assert [scope.of(prompt).verdict for prompt in (told, denied)] == 2 * ["subject"]
    scope = PromptScope([edit, UNNAMED], surface, "subject+weight")
    assert [scope.of(prompt).verdict for prompt in (told, denied)] == 2 * ["weight"]


@pytest.mark.parametrize("has_bytes", [True, False])
def test_a_person_is_read_by_the_name_that_the_edit_has(has_bytes: bool):
    text = b"We met. Who is the mother of Ada Mia Quill?"
    words = [text[:8], b"Who is the mother of", b" Ada", b" Mia", b" Quill", b"?"]
    single = [bytes((byte,)) for byte in range(256)] if has_bytes else []
    pieces = [None, *words, *single]
    surface = Surface("byte-level", pieces, frozenset({0}), frozenset(), 0, False)
    edit = EditRecord(id="a", prompt="The mother of Ada Quill is", target="Lima", subject="Ada Quill")
    found = PromptScope([edit], surface, "subject+weight").of([0, 1, 2, 3, 4, 5, 6])
    assert found.named == (0,)
    assert found.asked is not None
    name = b"Ada Quill" if has_bytes else b"Ada Mia Quill"
    assert surface.bytes_of(found.asked) == b"Who is the mother of %b?" % name
    assert PromptScope([edit], surface, "subject").of([0, 1, 2, 3, 4, 5, 6]).verdict == "out"


def test_a_name_may_span_tokens_but_not_a_special_one():
    pieces = [None, b" Vel", b"corp", b"so"]
    scope = PromptScope(
        [EditRecord(id="a", prompt="p", target="t", subject="Velcorp")],
        Surface("byte-level", pieces, frozenset({EOS}), frozenset(), EOS, False),
        "subject+weight",
    )
    assert scope.of([3, 1, 2]) == Found("subject", (0,))
    assert scope.of([1, EOS, 2]) == Found("out")
    # No space between a chat's marker and the name.
    assert scope.text_of([3, EOS, 1, 2]) == "so  Velcorp"


def windowed(window: int, kind: Any = "subject+weight") -> PromptScope:
    pieces = [None, b" Oslo", b"land", b" so", b"so"]
    surface = Surface("byte-level", pieces, frozenset({EOS}), frozenset(), EOS, False)
    edit = EditRecord(id="a", prompt="p", target="t", subject="Oslo", aliases=("Land",))
    return PromptScope([edit], surface, kind, window=window)


def test_of_a_long_prompt_only_the_end_counts():
    scope = windowed(8)
    assert scope.of([1, *7 * [3]]) == Found("subject", (0,))
    assert scope.of([1, *8 * [3]]).verdict == "out"
    assert scope.of([3, 3, 1, *7 * [3]]) == Found("subject", (0,), [1, *7 * [3]])
    assert windowed(8, "weight").of([1, *8 * [3]]) == Found("weight", (), 8 * [3])


def test_a_word_that_a_window_cuts_is_none():
    scope = windowed(8)
    assert scope.of([2, *7 * [3]]).verdict == "subject"  # the whole prompt: the word begins there
    assert scope.of([3, 2, *7 * [3]]) == Found("out", (), 7 * [3])
    assert scope.of([3, 2, *6 * [3], 1]) == Found("subject", (0,), [*6 * [3], 1])
    # Where the next blank is far, as in scripts without blanks, all of it is kept.
    assert windowed(24).of([3, *23 * [2], 3]).asked == [*23 * [2], 3]
    # One endless word has no place to begin at.
    assert scope.of([*9 * [4], 2]) == Found("out", (), [*7 * [4], 2])


def test_a_request_may_say_what_is_asked():
    letters = [bytes((letter,)) for letter in b"Oslo?"]
    surface = Surface("byte-level", [None, b" Oslo", *letters], frozenset({EOS}), frozenset(), EOS, False)
    edit = EditRecord(id="a", prompt="p", target="t", subject="Oslo")
    scope = PromptScope([edit], surface, "subject+weight", window=3)
    assert scope.of([6], "Oslo?") == Found("subject", (0,), [2, 3, 4, 5, 6])
    assert scope.of([1], "o") == Found("out", (), [5])
    assert scope.of([6], " Oslo").asked == [1]
    with pytest.raises(KeyError):
        scope.of([1], "Oslo!")
    scopes = Scopes(SimpleNamespace(active=ActivePack(1, [edit])), lambda _: scope)
    assert scopes.look([6], False, "Oslo?") == Look(1, "subject", (0,), False, [2, 3, 4, 5, 6])
    assert scopes.look([6], True, "Oslo?") == Look(1, "forced", (), False, [2, 3, 4, 5, 6])


def test_half_a_character_and_an_id_without_a_token_part_words():
    scope = some_scope()
    assert scope.text_of([NAMED, 11, 500, EDITED]) == " Oslo\ufffd  Lima"
    assert scope.of([11, 500, EDITED]) == Found("subject", (1,))


def test_a_request_is_looked_at_with_the_pack_that_is_active_then() -> None:
    one, other = EDITS[:1], EDITS[1:2]
    plugin: Any = SimpleNamespace(active=ActivePack(1, one))
    scopes = Scopes(plugin, lambda edits: PromptScope(edits, SURFACE, "subject"))
    assert scopes.look([NAMED], False) == Look(1, "subject", (0,), True)
    plugin.active = ActivePack(2, other)
    assert scopes.look([NAMED], False) == Look(2, "out")
    assert scopes.look([EDITED], False) == Look(2, "subject", (0,), True)
    assert scopes.look([EDITED], True) == Look(2, "forced")
    assert Scopes(plugin, None).look([EDITED], False) == Look(2, "weight")
