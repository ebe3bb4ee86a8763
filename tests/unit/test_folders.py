"""Folders and files that are whole or absent, whoever dies on the way."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from onceedit_vllm.folders import scratch_folder, sweep_leftovers, write_file, written_folder
from tests.unit.folder_writer import read_version, write_version

WRITER = Path(__file__).with_name("folder_writer.py")
#: More than the calls of one writing; the exhaustive test below fails where it is not.
MOST_STEPS = 60


class Writers:
    """Processes that write a folder and are killed; see folder_writer.py."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(WRITER)], env=environment, **pipes)

    def run(self, target: Path, steps: list[int]) -> list[dict[str, Any]]:
        """What is at the target after each writer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(target), steps]) + "\n")
        self.process.stdin.flush()
        seen: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return seen


@contextmanager
def started_writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with started_writers() as writers:
        yield writers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask() -> Iterator[Any]:
    """Sets the umask of this process, and puts it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_folder_appears_with_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "x"
    with written_folder(target, replace=False) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert names(target.parent) == ["x"]


def test_killed_anywhere_a_first_folder_is_whole_or_absent(tmp_path: Path, writers: Writers) -> None:
    for step in range(1, MOST_STEPS):
        target = tmp_path / str(step) / "x"
        killed, after = writers.run(target, [step, 0])
        assert killed["found"] in ("1", None)
        assert after["found"] == "2"
        assert names(target.parent) == ["x"]
        if killed["lived"]:
            return
    pytest.fail("the writer has more calls than were tried")


def test_killed_anywhere_an_old_folder_stays_or_comes_back(tmp_path: Path, writers: Writers) -> None:
    for step in range(1, MOST_STEPS):
        target = tmp_path / str(step) / "x"
        _, killed = writers.run(target, [0, step])
        assert killed["found"] in ("1", "2", None)
        sweep_leftovers(target)
        assert read_version(target) in ("1", "2")
        assert names(target.parent) == ["x"]
        if killed["lived"]:
            return
    pytest.fail("the writer has more calls than were tried")


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.integers(1, MOST_STEPS), min_size=2, max_size=6))
def test_killed_again_and_again(
    steps: list[int], writers: Writers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("killed") / "x"
    seen = writers.run(target, [*steps, 0])
    assert "half" not in [state["found"] for state in seen]
    assert seen[-1]["found"] == str(len(seen))
    assert names(target.parent) == ["x"]


def test_several_processes_write_one_target(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with ExitStack() as stack:
        processes = [stack.enter_context(started_writers()) for _ in range(3)]
        threads = [threading.Thread(target=writers.run, args=(target, [0] * 40)) for writers in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [writers.process.returncode for writers in processes] == [0, 0, 0]
    assert read_version(target) == "40"
    assert names(tmp_path) == ["x"]


def test_several_threads_write_one_target(tmp_path: Path) -> None:
    target = tmp_path / "x"
    threads = [threading.Thread(target=write_version, args=(target, str(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_version(target) in {str(i) for i in range(8)}
    assert names(tmp_path) == ["x"]


def fail_in_the_middle(target: Path, failure: BaseException) -> None:
    with written_folder(target, replace=True) as folder:
        (folder / "a").write_text("2")
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, failure: BaseException) -> None:
    write_version(tmp_path / "x", "1")
    for target in (tmp_path / "x", tmp_path / "new"):
        with pytest.raises(type(failure)):
            fail_in_the_middle(target, failure)
    assert names(tmp_path) == ["x"]
    assert read_version(tmp_path / "x") == "1"


def test_a_move_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    write_version(target, "1")
    rename = Path.rename

    def broken(path: Path, to: Path) -> Path:
        if path.name == ".made" and not target.exists():
            raise OSError(errno.EIO, "broken disk")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="broken disk"):
        write_version(target, "2")
    assert read_version(target) == "1"
    assert names(tmp_path) == ["x"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("onceedit_vllm.folders.os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_version(tmp_path / "x", "1")
    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path / "y", "1")
    assert names(tmp_path) == []


def test_a_taken_place_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.mkdir()
    with written_folder(target, replace=False) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(FileExistsError, match="x"), written_folder(target, replace=False) as folder:
        (folder / "a").write_text("2")
    assert (target / "a").read_text() == "1"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError), written_folder(tmp_path / "file", replace=True):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["file", "x"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write_version(tmp_path / "v1", "1")
    (tmp_path / "alias").symlink_to("v1")
    write_version(tmp_path / "alias", "2")
    assert (tmp_path / "alias").is_symlink()
    assert read_version(tmp_path / "v1") == "2"
    assert names(tmp_path) == ["alias", "v1"]


@pytest.mark.parametrize(("mask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o007, 0o770, 0o660)])
def test_the_umask_alone_decides_who_may_read(
    tmp_path: Path, umask: Any, mask: int, folder_mode: int, file_mode: int
) -> None:
    umask(mask)
    with written_folder(tmp_path / "x", replace=False) as folder:
        (folder / "sub").mkdir(mode=0o700)
        save_file({"a": torch.zeros(1)}, folder / "sub" / "a.safetensors")  # 0600, by itself
        folder.chmod(0o700)
    write_file(tmp_path / "y", "text")
    modes = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")
    }
    assert modes == {"x": folder_mode, "x/sub": folder_mode, "x/sub/a.safetensors": file_mode, "y": file_mode}


def test_the_scratch_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "x") as mine, scratch_folder(tmp_path / "x") as other:
        sweep_leftovers(tmp_path / "x")
        assert mine.is_dir()
        assert other.is_dir()
    assert names(tmp_path) == []


def test_only_leftovers_of_the_same_target_are_swept(tmp_path: Path) -> None:
    left = [".x.0123abcd.tmp", ".x.y.0123abcd.tmp", ".x.0123abcd.tmp.bak", "x.0123abcd.tmp"]
    for name in left:
        (tmp_path / name).mkdir()
    write_version(tmp_path / "x", "1")
    assert names(tmp_path) == sorted([*left[1:], "x"])


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EBADF, "no locks on folders here")

    monkeypatch.setattr("onceedit_vllm.folders.fcntl.flock", unsupported)
    (tmp_path / ".x.0123abcd.tmp").mkdir()
    write_version(tmp_path / "x", "1")
    assert names(tmp_path) == [".x.0123abcd.tmp", "x"]  # it may be alive: nobody can tell


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "a.json"
    write_file(file, "é")
    write_file(file, "ü")
    (tmp_path / "link").symlink_to(file)
    write_file(tmp_path / "link", "ö")
    assert file.read_text(encoding="utf-8") == "ö"
    assert names(file.parent) == ["a.json"]
    assert names(tmp_path) == ["deep", "link"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_file(pipe, "text")
    reader.join()
    assert read == ["text"]
    assert pipe.is_fifo()
