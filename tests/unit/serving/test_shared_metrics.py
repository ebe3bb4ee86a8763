"""The folder that the server's processes share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.serving.shared_metrics import VARIABLE, shared_metrics


def test_a_folder_of_the_servers_own_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    def serve() -> None:
        with shared_metrics():
            folders.append(Path(os.environ[VARIABLE]))
            (folders[0] / "counter_1.db").write_bytes(b"x")
            raise KeyboardInterrupt

    folders: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        serve()
    assert not folders[0].exists()
    assert VARIABLE not in os.environ


def test_the_users_folder_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with shared_metrics():
        (tmp_path / "counter_1.db").write_bytes(b"x")
    assert os.environ[VARIABLE] == str(tmp_path)
    assert (tmp_path / "counter_1.db").exists()


def test_the_users_folder_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    with (
        pytest.raises(BadInputError, match=f"{VARIABLE}=.*absent: there is no such folder"),
        shared_metrics(),
    ):
        raise AssertionError
