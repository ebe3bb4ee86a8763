"""Given names and their short forms."""

from __future__ import annotations

from onceedit_vllm.wordings.given_names import is_given_name, other_given_names


def test_full_and_short_forms_are_one_persons() -> None:
    assert {"jim", "jimmy"} <= other_given_names("james")
    assert "james" in other_given_names("jim")
    assert other_given_names("ted") >= {"edward", "theodore"}


def test_short_forms_are_alike_where_one_begins_the_other() -> None:
    assert "jimmy" in other_given_names("jim")
    assert "bob" in other_given_names("bobby")
    assert "betty" not in other_given_names("liz")


def test_two_full_names_are_two_names() -> None:
    assert "erin" not in other_given_names("aaron")
    assert "mary" not in other_given_names("maureen")


def test_what_is_in_no_list_has_no_other() -> None:
    assert other_given_names("kamala") == frozenset()
    assert not is_given_name("kamala")
    assert is_given_name("james")
    assert is_given_name("jim")
