"""What is refused before vLLM is imported."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.serving import checks
from onceedit_vllm.serving.checks import check_named_once, check_settings, find_llm
from tests.unit.test_pack import flip
from tests.unit.test_pack import write as write_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "pack").root


def test_paths_become_absolute_and_links_stay(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "current").symlink_to(pack)
    monkeypatch.chdir(tmp_path)
    checked = check_settings(ServingConfig(pack=Path("current"), decisions_log=Path("log"), threshold=0.5))
    assert checked.pack == tmp_path / "current"
    assert checked.decisions_log == tmp_path / "log"
    # Only what was given: the rest may be given in --additional-config.
    assert checked.model_dump(exclude_unset=True).keys() == {"pack", "decisions_log", "threshold"}


def test_a_pack_that_is_missing_or_damaged_is_bad_input(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--pack .*absent: there is no such folder"):
        check_settings(ServingConfig(pack=tmp_path / "absent"))
    flip(pack)
    with pytest.raises(BadInputError, match=r"--pack .*model\.safetensors.*sha256"):
        check_settings(ServingConfig(pack=pack))


def test_a_log_that_cannot_be_is_refused(pack: Path, tmp_path: Path) -> None:
    for log, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "log", "there is no folder")):
        with pytest.raises(BadInputError, match=f"--decisions-log {log}: {said}"):
            check_settings(ServingConfig(pack=pack, decisions_log=log))


def test_a_port_that_is_taken_is_refused(pack: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(BadInputError, match=f"--metrics-port {port}: cannot be opened .*in use"):
            check_settings(ServingConfig(pack=pack, metrics_port=port))
    assert check_settings(ServingConfig(pack=pack, metrics_port=port)).metrics_port == port


@pytest.mark.parametrize(
    ("llm", "options", "said"),
    [
        ("--dtype", ["float32", "toy"], "--dtype: the LLM comes first"),
        ("toy", ["--model", "other"], "--model: the LLM is named once"),
        ("toy", ["--model=other"], "--model: the LLM is named once"),
    ],
)
def test_the_llm_is_named_once_and_first(llm: str, options: list[str], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        check_named_once(llm, options)
    check_named_once("toy", ["--model-impl", "auto", "--max_model_len=5"])


def test_a_folder_is_checked_and_a_name_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a model folder"):
        find_llm(str(tmp_path), [])
    with pytest.raises(BadInputError, match="unknown model name"):
        find_llm("smollm3", [])


def test_a_hub_id_stays_one_and_is_looked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(llm: str) -> Path:
        asked.append(llm)
        if llm == "someone/absent":
            raise ModelError("the hub has no such model")
        return Path("/snapshot")

    monkeypatch.setattr(checks, "resolve_model", resolve)
    assert find_llm("someone/model", ["--port", "1"]) == "someone/model"
    with pytest.raises(ModelError, match="no such model"):
        find_llm("someone/absent", [])
    # Where an option says which files, vLLM alone knows.
    for option in ("--revision=v2", "--download_dir", "--load-format"):
        assert find_llm("someone/absent", [option, "x"]) == "someone/absent"
    assert asked == ["someone/model", "someone/absent"]
    assert find_llm("smollm2-135m", ["--revision", "x"]) == "/snapshot"
