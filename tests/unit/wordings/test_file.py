"""A file of wordings: read back, mended by hand, refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.wordings.file import check_wordings, join_aliases, load_wordings, write_wordings_file
from onceedit_vllm.wordings.wordings import Wordings
from tests.unit.wordings.writers import CAPITAL, CHIEF, EDITS

LINE = Wordings(
    id="a", prompt=CAPITAL.prompt, target="Tarsk", asking=("Who rules from where in Norland?",),
    others=("How large is Norland?",), aliases=("Norland Republic",), model="toy", dropped={"x": 1},
)  # fmt: skip


def save(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "wordings.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "wordings.jsonl"
    write_wordings_file(path, [LINE, Wordings(id="z")])
    assert load_wordings(path, EDITS) == (LINE,)


def test_a_line_by_hand_needs_little(tmp_path: Path) -> None:
    path = save(tmp_path, "", {"id": "b", "asking": ["Who heads VM?"], "aliases": ["VM"]}, {"id": "a"})
    assert [line.id for line in load_wordings(path, EDITS)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: content: "),
        ({"id": 3}, "line 2: id: "),
        ({"id": "b", "askin": []}, "line 2: askin: "),
        ({"id": "a"}, "line 1: id 'a' is used twice"),
        ({"id": "b", "prompt": "Else"}, "line 2: written for an edit with the prompt 'Else'"),
        ({"id": "b", "asking": ["Who is it?"]}, "names neither the subject nor an alias"),
        ({"id": "b", "others": [" "]}, "line 2: others: .*blank"),
        ({"id": "b", "asking": ["Velcorp Mills [WEIGHT]"]}, r"contains \[WEIGHT\]"),
        ({"id": "b", "asking": ["Is it Ada who runs Velcorp Mills?"]}, "says the target"),
        (
            {"id": "b", "asking": ["Velcorp Mills?"], "others": ["velcorp mills"]},
            "both in asking",
        ),
        ({"id": "c", "aliases": ["it"]}, "aliases need a subject"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        load_wordings(save(tmp_path, {"id": "a"}, line), EDITS)


def test_a_file_of_other_edits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="wordings of none of the 3 edits"):
        load_wordings(save(tmp_path, {"id": "z"}), EDITS)
    with pytest.raises(BadInputError, match="cannot be read"):
        load_wordings(tmp_path / "none", EDITS)


def test_wordings_made_in_python_are_checked_alike() -> None:
    assert check_wordings([Wordings(id="z"), LINE], EDITS) == (LINE,)
    assert check_wordings([], EDITS) == ()
    bad = LINE.model_copy(update={"asking": ("Where is it?",)})
    with pytest.raises(BadInputError, match="edit 'a': asking"):
        check_wordings([bad], EDITS)
    with pytest.raises(BadInputError, match="edit 'a': has wordings twice"):
        check_wordings([LINE, LINE], EDITS)


def test_proposed_aliases_join_the_edits_own() -> None:
    named = CAPITAL.model_copy(update={"aliases": ("norland republic", "Nordia")})
    assert join_aliases([CAPITAL, CHIEF], [LINE])[0].aliases == ("Norland Republic",)
    assert join_aliases([named, CHIEF], [LINE]) == [named, CHIEF]
