"""What the user gave vLLM stays; what is given twice is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner import offline
from onceedit_vllm.runner.extension import EXTENSION, OnceEditWorkerExtension
from onceedit_vllm.serving.wiring import (
    MIDDLEWARE,
    PROCESSOR,
    with_extension,
    with_processor,
    with_settings,
    with_updates,
)


def test_the_processor_is_the_one_that_offline_engines_get() -> None:
    assert PROCESSOR == offline.PROCESSOR


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, [PROCESSOR]),
        ([], [PROCESSOR]),
        (["a:B", "c:D"], ["a:B", "c:D", PROCESSOR]),
        ([PROCESSOR, "a:B"], [PROCESSOR, "a:B"]),
    ],
)
def test_other_processors_stay_and_ours_is_listed_once(listed: list[str] | None, expected: list[str]) -> None:
    assert with_processor(listed) == expected


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (None, {"onceedit": {"pack": "p"}}),
        ({"backend": 1}, {"backend": 1, "onceedit": {"pack": "p"}}),
        ({"onceedit": {"fusion": {"top_k": 4}}}, {"onceedit": {"fusion": {"top_k": 4}, "pack": "p"}}),
    ],
)
def test_settings_join_what_is_there(theirs: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert with_settings(theirs, {"pack": "p"}) == expected


def test_a_setting_given_twice_is_refused_even_if_equal() -> None:
    theirs = {"onceedit": {"pack": "p", "weight": "alpha"}}
    with pytest.raises(BadInputError, match="gives pack, weight, and so do"):
        with_settings(theirs, {"weight": "alpha", "pack": "p", "scope": "weight"})
    assert theirs == {"onceedit": {"pack": "p", "weight": "alpha"}}


def test_groups_of_settings_are_joined_and_each_of_their_settings_is_given_once() -> None:
    theirs = {"onceedit": {"plugin": {"retry_seconds": 1.0}, "weight": "alpha"}}
    joined = with_settings(theirs, {"pack": "p", "plugin": {"host": "ray", "name": "facts"}})
    plugin = {"retry_seconds": 1.0, "host": "ray", "name": "facts"}
    assert joined == {"onceedit": {"pack": "p", "weight": "alpha", "plugin": plugin}}
    with pytest.raises(BadInputError, match=r"gives plugin\.host, and so do"):
        with_settings({"onceedit": {"plugin": {"host": "local"}}}, {"plugin": {"host": "ray"}})
    with pytest.raises(BadInputError, match="gives plugin, and so do"):
        with_settings({"onceedit": {"plugin": "ray"}}, {"plugin": {"host": "ray"}})


class Extended(OnceEditWorkerExtension):
    """A user's own."""


OWN = f"{__name__}.Extended"


@pytest.mark.parametrize(
    ("named", "is_needed", "expected"),
    [
        ("", False, EXTENSION),
        ("", True, EXTENSION),
        (EXTENSION, True, EXTENSION),
        (OWN, True, OWN),
        ("no.such.Thing", False, "no.such.Thing"),
    ],
)
def test_a_worker_extension_of_the_users_stays(named: str, is_needed: bool, expected: str) -> None:
    assert with_extension(named, is_needed) == expected


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("no.such.Thing", r"no\.such\.Thing: cannot be imported \(No module named 'no'\)"),
        ("collections.Nothing", r"collections\.Nothing: cannot be imported"),
        ("collections.Counter", f"packs are changed through {re.escape(EXTENSION)}"),
        ("Counter", "packs are changed through"),
    ],
)
def test_one_that_does_not_know_packs_is_refused_where_they_are_to_be_changed(named: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        with_extension(named, True)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [(None, [MIDDLEWARE]), (["a.B"], ["a.B", MIDDLEWARE]), ([MIDDLEWARE], [MIDDLEWARE])],
)
def test_other_middleware_stays_and_ours_is_listed_once(
    listed: list[str] | None, expected: list[str]
) -> None:
    assert with_updates(listed) == expected


def test_settings_that_are_no_object_are_refused() -> None:
    with pytest.raises(BadInputError, match=r'"onceedit" must be an object of settings, not True'):
        with_settings({"onceedit": True}, {"pack": "p"})
