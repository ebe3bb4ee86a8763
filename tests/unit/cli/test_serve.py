"""``onceedit serve``: what is ours, what goes to vLLM, and what is refused early."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from onceedit_vllm.cli.main import app
from onceedit_vllm.config import PlugInConfig, ServingConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.serving import server

Seen = list[tuple[str, ServingConfig, Sequence[str], bool]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    calls: Seen = []
    monkeypatch.setattr(server, "serve", lambda *arguments: calls.append(arguments))
    return calls


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["serve", *arguments])


def test_what_is_not_ours_goes_to_vllm_in_its_order(seen: Seen) -> None:
    others = ["-tp", "2", "--additional-config.a.b", "1", "-dph", "--port=5", "-O3", "--no-x", "--y", "{}"]
    result = run("toy", *others[:4], "--pack", "P", *others[4:], "--scope=weight")
    assert result.exit_code == 0, result.output
    (call,) = seen
    assert call[0] == "toy"
    assert list(call[2]) == others
    assert call[1].model_dump(exclude_unset=True) == {"pack": Path("P"), "scope": "weight"}


def test_every_setting_has_its_option(seen: Seen) -> None:
    options = {
        "scope": "subject", "weight": "alpha", "threshold": "0.25", "request-override": "all",
        "decisions-log": "L", "metrics-port": "9100", "plugin-host": "ray", "plugin-name": "facts",
    }  # fmt: skip
    result = run("toy", "--pack", "P", *(f"--{name}={value}" for name, value in options.items()))
    assert result.exit_code == 0, result.output
    assert seen[0][1] == ServingConfig(
        pack=Path("P"), scope="subject", weight="alpha", threshold=0.25, request_override="all",
        decisions_log=Path("L"), metrics_port=9100, plugin=PlugInConfig(host="ray", name="facts"),
    )  # fmt: skip


def test_what_is_not_said_of_the_host_may_be_said_elsewhere(seen: Seen) -> None:
    assert run("toy", "--pack", "P", "--plugin-host", "ray").exit_code == 0
    assert seen[0][1].model_dump(exclude_unset=True) == {"pack": Path("P"), "plugin": {"host": "ray"}}


@pytest.mark.parametrize(("given", "expected"), [([], False), (["--allow-pack-updates"], True)])
def test_packs_stay_as_they_are_unless_it_is_allowed(seen: Seen, given: list[str], expected: bool) -> None:
    assert run("toy", "--pack", "P", *given).exit_code == 0
    assert seen[0][3] is expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["toy"], "Missing option '--pack'"),
        (["--pack", "P"], "Missing argument"),
        (["toy", "--pack", "P", "--threshold", "2"], "--threshold 2.0:"),
        (["toy", "--pack", "P", "--metrics-port", "0"], "--metrics-port 0:"),
        (["toy", "--pack", "P", "--plugin-host", "there"], "'local', 'ray'"),
        (["toy", "--pack", "P", "--plugin-name", "x"], "--plugin-name x: only a host of Ray has a name"),
        (["toy", "--pack", "P", "--plugin-host", "ray", "--plugin-name", ""], "--plugin-name :"),
        (["toy", "--pack", "P", "--scope", "all"], "'subject+weight', 'weight', 'subject'"),
    ],
)
def test_wrong_options_exit_with_2(seen: Seen, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert seen == []


def test_help_tells_ours_and_where_the_rest_is() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "--vllm-help" in result.output


def test_vllms_own_help_needs_neither_llm_nor_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    topics: list[str] = []

    def show(topic: str) -> None:
        topics.append(topic)
        raise SystemExit(0)

    monkeypatch.setattr(server, "show_options", show)
    assert run("--vllm-help", "max-model-len").exit_code == 0
    assert topics == ["max-model-len"]


def test_what_the_server_prints_stays_on_the_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def serve(*_: object) -> None:
        print("a line of the server")
        raise ModelError("The server ended: no memory")

    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(server, "serve", serve)
    result = run("toy", "--pack", "P")
    assert result.exit_code == 1
    assert result.stdout == "a line of the server\n"
    assert result.stderr == "Error: The server ended: no memory\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("llm", "options", "said"),
    [
        ("toy", [], "P: there is no such folder"),
        ("--dtype", ["float32", "toy"], "--dtype: the LLM comes first"),
    ],
)
def test_no_vllm_is_needed_to_refuse(tmp_path: Path, llm: str, options: list[str], said: str) -> None:
    code = "import sys\nfor edge in ('vllm', 'transformers', 'ray'): sys.modules[edge] = None\n"
    code += "from onceedit_vllm.cli.main import app\napp(sys.argv[1:])"
    command = [sys.executable, "-c", code, "serve", llm, *options, "--pack", "P"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
