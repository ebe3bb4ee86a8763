"""What the Ray host decides without Ray."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from onceedit_vllm.errors import HostError
from onceedit_vllm.plugin import ray_host
from onceedit_vllm.plugin.ray_host import HostActor, manifest_digest, socket_folder
from tests.unit.test_pack import write as write_pack


def test_the_folder_of_the_sockets_is_this_users_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = socket_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert socket_folder() == folder
    folder.chmod(0o750)
    with pytest.raises(HostError, match="0700"):
        socket_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="0700"):
        socket_folder()


def niceness_of_an_actor() -> int:
    """Of one that Ray has made nicer than its parent."""
    os.nice(5)
    ray_host._be_as_nice_as_its_parent()
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_an_actor_has_the_same_right_to_the_cpu_as_its_cluster() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(niceness_of_an_actor).result(timeout=60)
    # Who is not root has to leave it as Ray wants it.
    assert found == (own if os.geteuid() == 0 else own + 5)


def test_another_edit_is_another_digest(tmp_path: Path) -> None:
    one, same = write_pack(tmp_path / "one"), write_pack(tmp_path / "same")

    def save(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(999) + b"x")

    other = write_pack(tmp_path / "other", save=save)
    assert manifest_digest(one) == manifest_digest(same) != manifest_digest(other)


def test_an_actor_that_cannot_serve_lives_to_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_host, "_pin", lambda _: None)  # this process is not the actor's
    actor = HostActor("a", str(tmp_path / "none"), "{}", "key")
    assert "there is no such folder" in actor.facts()["failure"]
    actor.end()
