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
from onceedit_vllm.runner.extension import EXTENSION
from onceedit_vllm.serving import server
from onceedit_vllm.serving.shared_metrics import VARIABLE
from onceedit_vllm.serving.wiring import MIDDLEWARE, PROCESSOR
from tests.unit.test_pack import write as write_pack

#: As vLLM's parser leaves what the user says nothing about.
PARSED: dict[str, Any] = {
    "logits_processors": None, "additional_config": {}, "worker_extension_cls": "", "middleware": [],
    "chat_template": None, "data_parallel_size": 1,
}  # fmt: skip


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
    StandIn.parsed, StandIn.made = dict(PARSED), []
    monkeypatch.setattr(api_server, "ServeCommand", StandIn)
    monkeypatch.setattr(server, "find_llm", lambda llm, options: f"/models/{llm}")
    monkeypatch.delenv(VARIABLE, raising=False)
    return StandIn


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "pack").root


def test_everything_is_wired(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed |= {"logits_processors": ["a:B"], "additional_config": {"x": 1}}
    server.serve("toy", ServingConfig(pack=pack, scope="subject"), ["--port", "5", "-tp", "2"])
    (command,) = vllm.made
    assert command.defaults == {"served_model_name": ["toy"]}
    assert command.arguments == ["/models/toy", "--port", "5", "-tp", "2"]
    assert command.ran.logits_processors == ["a:B", PROCESSOR]
    assert command.ran.additional_config == {"x": 1, "onceedit": {"pack": str(pack), "scope": "subject"}}
    assert command.ran.worker_extension_cls == EXTENSION
    assert command.ran.middleware == []
    assert command.shared_folder is not None
    assert VARIABLE not in os.environ


def test_the_servers_own_chat_template_is_told_to_the_processor(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed |= {"chat_template": "chat.jinja"}
    server.serve("toy", ServingConfig(pack=pack))
    assert vllm.made[0].ran.additional_config["onceedit"]["chat_template"] == "chat.jinja"


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
    vllm.parsed |= {"additional_config": {"onceedit": {"pack": "other"}}}
    with pytest.raises(BadInputError, match="gives pack"):
        server.serve("toy", ServingConfig(pack=pack))
    assert not hasattr(vllm.made[0], "ran")
    assert VARIABLE not in os.environ


def test_packs_can_be_changed_over_http_where_that_is_asked_for(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed |= {"middleware": ["a.B"]}
    server.serve("toy", ServingConfig(pack=pack), allow_pack_updates=True)
    assert vllm.made[0].ran.middleware == ["a.B", MIDDLEWARE]
    assert vllm.parsed["middleware"] == ["a.B"]


def test_an_extension_of_the_users_stays_unless_it_is_in_the_way(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed |= {"worker_extension_cls": "collections.Counter"}
    server.serve("toy", ServingConfig(pack=pack))
    assert vllm.made[0].ran.worker_extension_cls == "collections.Counter"
    with pytest.raises(
        BadInputError, match=r"--worker-extension-cls collections\.Counter: packs are changed"
    ):
        server.serve("toy", ServingConfig(pack=pack), allow_pack_updates=True)
    assert not hasattr(vllm.made[1], "ran")


def test_several_engines_behind_one_server_have_no_pack_in_common(vllm: type[StandIn], pack: Path) -> None:
    vllm.parsed |= {"data_parallel_size": 2}
    with pytest.raises(BadInputError, match="there are 2 engines behind this server"):
        server.serve("toy", ServingConfig(pack=pack), allow_pack_updates=True)
