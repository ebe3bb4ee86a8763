"""``onceedit pack``: what is asked of the server, and how its answer is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from onceedit_vllm.cli.main import app
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.serving import pack_client

STATUS = {
    "state": "idle", "error": None, "waiting": None,
    "epoch": 2, "pack": "/packs/one", "edits": 3, "packs_in_memory": 1,
}  # fmt: skip
Asked = list[tuple[Any, ...]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls: Asked = []

    def ask(client: Any, what: str, body: Any) -> dict[str, Any]:
        calls.append((client._url, client._headers.get("Authorization"), what, body))
        return STATUS

    monkeypatch.setattr(pack_client.PackClient, "_ask", ask)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    return calls


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(app, ["pack", *arguments], env=variables)


def test_a_pack_is_named_by_its_absolute_path(asked: Asked) -> None:
    result = run("load", "my-pack", "--url", "http://there:9000", "--api-key", "secret")
    assert result.exit_code == 0, result.output
    body = {"pack": str(Path("my-pack").absolute())}
    assert asked == [("http://there:9000", "Bearer secret", "load", body)]
    for part in ("/packs/one", "edits", "3"):
        assert part in result.stdout


def test_the_others_ask_for_what_their_name_says(asked: Asked) -> None:
    assert run("show").exit_code == 0
    assert run("rollback", VLLM_API_KEY="secret").exit_code == 0
    local = "http://localhost:8000"
    assert asked == [(local, None, "pack", None), (local, "Bearer secret", "rollback", {})]


def test_json_is_the_servers_answer(asked: Asked) -> None:
    assert json.loads(run("show", "--json", "-").stdout) == STATUS


def test_another_pack_that_is_under_way_is_shown(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS, "state", "failed")
    monkeypatch.setitem(STATUS, "error", "PackError: damaged")
    assert "failed: PackError: damaged" in run("show").stdout


def test_what_the_server_refuses_exits_with_2(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BadInputError("another pack is being loaded")

    monkeypatch.setattr(pack_client.PackClient, "_ask", refuse)
    result = run("load", "my-pack")
    assert (result.exit_code, result.stderr) == (2, "Error: another pack is being loaded\n")
