"""The order of things, with a stand-in for vLLM's command."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner import api_server
from onceedit_vllm.serving import server
from onceedit_vllm.serving.shared_metrics import VARIABLE
from onceedit_vllm.serving.wiring import PROCESSOR
from tests.unit.test_pack import write as write_pack


class StandIn:
    """Parses nothing: gives what a test has put into `parsed`."""

    parsed: dict[str, Any]
    made: list[StandIn]

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self.defaults = defaults
        self.shared_folder = os.environ.get(VARIABLE)
        self.made.append(self)

    def parse(self, arguments: Sequence[str]) -> Namespace:
        self.arguments = list(arguments)
        return Namespace(**self.parsed)

    def run(self, args: Namespace) -> None:
        self.ran = args


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.parsed, StandIn.made = {"logits_processors": None, "additional_config": {}}, []
    monkeypatch.setattr(api_server, "ServeCommand", StandIn)
    monkeypatch.setattr(server, "find_llm", lambda llm, options: f"/models/{llm}")
    monkeypatch.delenv(VARIABLE, raising=False)
    return StandIn


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "pack").root


def test_everything_is_wired(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed = {"logits_processors": ["a:B"], "additional_config": {"x": 1}}
    server.serve("toy", ServingConfig(pack=pack, scope="subject"), ["--port", "5", "-tp", "2"])
    (command,) = vllm.made
    assert command.defaults == {"served_model_name": ["toy"]}
    assert command.arguments == ["/models/toy", "--port", "5", "-tp", "2"]
    assert command.ran.logits_processors == ["a:B", PROCESSOR]
    assert command.ran.additional_config == {"x": 1, "onceedit": {"pack": str(pack), "scope": "subject"}}
    assert command.shared_folder is not None
    assert VARIABLE not in os.environ


def test_with_a_port_of_our_own_vllms_metrics_are_left_alone(
    vllm: type[StandIn], pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onceedit_vllm.serving.checks._check_port", lambda port: None)
    server.serve("toy", ServingConfig(pack=pack, metrics_port=9100))
    assert vllm.made[0].shared_folder is None
    assert vllm.made[0].ran.additional_config["onceedit"]["metrics_port"] == 9100


@pytest.mark.parametrize(
    ("llm", "options"), [("--dtype", ["toy"]), ("toy", ["--model", "other"]), ("toy", [])]
)
def test_nothing_starts_where_something_is_wrong(
    vllm: type[StandIn], pack: Path, llm: str, options: list[str]
) -> None:
    with pytest.raises(BadInputError):
        server.serve(llm, ServingConfig(pack=pack / "absent"), options)
    assert vllm.made == []


def test_settings_given_twice_are_refused_before_the_server_runs(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed = {"logits_processors": None, "additional_config": {"onceedit": {"pack": "other"}}}
    with pytest.raises(BadInputError, match="gives pack"):
        server.serve("toy", ServingConfig(pack=pack))
    assert not hasattr(vllm.made[0], "ran")
    assert VARIABLE not in os.environ
