"""The changelog's versions of file formats are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onceedit_vllm.alignment.cache import METHOD_VERSION
from onceedit_vllm.models.recipes import RECIPE_VERSION
from onceedit_vllm.pack import FORMAT_VERSION

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("field", "version"),
    [
        ("format_version", FORMAT_VERSION),
        ("method_version", METHOD_VERSION),
        ("recipe_version", RECIPE_VERSION),
    ],
)
def test_a_format_that_changes_is_in_the_changelog(field: str, version: int) -> None:
    found = re.search(rf"^\|[^|]*`{field}`[^|]*\| (\d+) \|", CHANGELOG, flags=re.MULTILINE)
    assert found is not None
    assert int(found[1]) == version


def test_what_is_unreleased_comes_first() -> None:
    assert re.findall("^## (.*)$", CHANGELOG, flags=re.MULTILINE)[0] == "Unreleased"
