"""`onceedit host`: what it passes on, what it prints, and what it refuses. Ray itself is not asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from onceedit_vllm.cli.host import parse_cpus
from onceedit_vllm.cli.main import app
from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin import ray_host
from onceedit_vllm.plugin.ray_host import HostFacts
from tests.unit.test_pack import write as write_pack

FACTS = HostFacts(
    "shared", "/packs/a", "digest", "base", 14, "ipc:///tmp/x", "secret", 7, "", 2_500_000, [{"texts": 3}]
)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "set, so that the command leaves it")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["host", *arguments])


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), ("5, 2-2", (5, 2)), ("10-11", (10, 11))]
)
def test_cores(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1,1", "0-2,2", "1.5", "0x1"])
def test_no_cores(text: str) -> None:
    with pytest.raises(BadInputError, match="--cpus"):
        parse_cpus(text)


def test_start_passes_the_settings_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def start(name: str, pack: Any, config: PlugInConfig) -> HostFacts:
        asked.append((name, pack.root, config))
        return FACTS

    monkeypatch.setattr(ray_host, "start", start)
    pack = write_pack(tmp_path / "pack").root
    result = run("start", str(pack), "--name", "a", "--cpus", "1-2", "--num-gpus", "0.1", "--tcp", "h:5000")
    assert result.exit_code == 0, result.output
    config = PlugInConfig(name="a", cpus=(1, 2), num_gpus=0.1, tcp="h:5000")
    assert asked == [("a", pack, config)]
    assert "serves at ipc:///tmp/x" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cpus", "1-x"], "--cpus 1-x"),
        (["--num-gpus", "-1"], "--num-gpus -1"),
        (["--tcp", "5000"], "--tcp 5000"),
        (["--name", ""], "--name"),
    ],
)
def test_bad_options_are_named_before_anything_starts(options: list[str], said: str, tmp_path: Path) -> None:
    result = run("start", str(tmp_path), *options)
    assert result.exit_code == 2
    assert said in result.output


def test_list_as_a_table_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = FACTS._replace(swap="loading and trying /packs/b")
    broken = HostFacts("broken", failure="it does not answer (GetTimeoutError)")
    monkeypatch.setattr(ray_host, "list_hosts", lambda: [broken, busy])
    table = run("list")
    for shown in ("shared", "/packs/a", "14", "2.5 MB", "it does not answer", "loading and trying /packs/b"):
        assert shown in table.output
    (first, second) = json.loads(run("list", "--json", "-").output)
    assert first["failure"].startswith("it does not answer")
    assert (second["name"], second["num_edits"], second["texts"]) == ("shared", 14, 3)
    assert "token" not in second


def test_load_tells_what_is_done_and_shows_what_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def load(name: str, pack: Any, progress: Any) -> HostFacts:
        asked.append((name, pack.root))
        progress(f"loading and trying {pack.root}")
        return FACTS._replace(pack=str(pack.root), epoch=2, num_packs=2)

    monkeypatch.setattr(ray_host, "load", load)
    pack = write_pack(tmp_path / "pack").root
    result = run("load", str(pack), "--name", "shared", "--json", "-")
    assert result.exit_code == 0, result.output
    assert asked == [("shared", pack)]
    assert f"Loading and trying {pack} ..." in result.stderr
    served = json.loads(result.stdout)
    assert (served["epoch"], served["pack"], served["num_packs"]) == (2, str(pack), 2)
    assert not {"token", "digests"} & set(served)


def test_load_refuses_what_is_no_pack_before_the_host_is_asked(tmp_path: Path) -> None:
    result = run("load", str(tmp_path / "none"), "--name", "shared")
    assert result.exit_code != 0
    assert "there is no such folder" in result.output


def test_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rollback(name: str, progress: Any) -> HostFacts:
        asked.append(name)
        return FACTS._replace(epoch=3)

    monkeypatch.setattr(ray_host, "rollback", rollback)
    result = run("rollback", "--name", "shared")
    assert (result.exit_code, asked) == (0, ["shared"])
    assert "/packs/a" in result.output


def test_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(ray_host, "stop", stopped.append)
    assert run("stop", "shared").exit_code == 0
    assert stopped == ["shared"]


def test_without_ray_each_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    pack = write_pack(tmp_path / "pack").root
    for arguments in (["list"], ["stop", "x"], ["start", str(pack)], ["load", str(pack)], ["rollback"]):
        result = run(*arguments)
        assert (result.exit_code, "onceedit-vllm[ray]" in result.output) == (1, True)
