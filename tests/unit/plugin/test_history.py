"""What a host has served, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceedit_vllm.errors import HostError
from onceedit_vllm.plugin.history import History, ServedPack

FIRST, SECOND = ServedPack("/packs/a", "d1", "base", 1), ServedPack("/packs/b", "d2", "base", 2)


def test_what_was_written_is_read_by_the_next(tmp_path: Path) -> None:
    history = History(tmp_path / "file.json")
    assert (history.active, history.before, history.highest_epoch, history.digests) == (None, None, 0, [])
    for pack in (FIRST, SECOND, FIRST):
        history.add(pack)
    again = History(tmp_path / "file.json")
    assert (again.active, again.before, again.highest_epoch) == (FIRST, SECOND, 2)
    assert again.digests == ["d1", "d2"]
    again.take_back()
    assert History(tmp_path / "file.json").active == SECOND
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_what_cannot_be_written_has_not_happened(tmp_path: Path) -> None:
    history = History(tmp_path / "taken" / "file.json")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        history.add(FIRST)
    assert history.active is None


@pytest.mark.parametrize("text", ["", "{}", '[{"root": "a"}]', "[1]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(HostError, match=r"file\.json does not say which pack"):
        History(tmp_path / "file.json")
