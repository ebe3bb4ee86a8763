"""vLLM's real parser behind ``onceedit serve``."""

from __future__ import annotations

import inspect
import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")

from onceedit_vllm.cli import serve as command  # noqa: E402
from onceedit_vllm.errors import BadInputError, ModelError  # noqa: E402
from onceedit_vllm.machine import has_fast_bfloat16  # noqa: E402
from onceedit_vllm.runner.api_server import CPU_KV_BYTES, SHUTDOWN_SECONDS, ServeCommand  # noqa: E402
from onceedit_vllm.serving.wiring import (  # noqa: E402
    MIDDLEWARE,
    with_processor,
    with_settings,
    with_updates,
)
from tests.unit.serving.test_server import PARSED  # noqa: E402

OURS = {"pack": "/packs/one"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")


def parse(*arguments: str, **defaults: Any) -> Namespace:
    return ServeCommand(defaults).parse(["toy", *arguments])


def test_defaults_fit_the_machine_and_users_override_them():
    args = parse(served_model_name=["mine"])
    assert args.model_tag == "toy"
    assert args.served_model_name == ["mine"]
    assert args.kv_cache_memory_bytes == CPU_KV_BYTES
    assert args.shutdown_timeout == SHUTDOWN_SECONDS
    assert args.dtype == ("auto" if has_fast_bfloat16() else "float32")
    given = parse(
        "--dtype=auto", "--shutdown-timeout=0", "--served-model-name", "a", "b", served_model_name=["c"]
    )
    assert (given.dtype, given.shutdown_timeout, given.served_model_name) == ("auto", 0, ["a", "b"])


@pytest.mark.parametrize(
    ("option", "expected"), [("--kv-cache-memory-bytes=1G", 1 << 30), ("--gpu-memory-utilization=0.3", None)]
)
def test_what_users_say_about_memory_stands(option: str, expected: int | None):
    assert parse(option).kv_cache_memory_bytes == expected


def test_a_config_file_counts_as_what_the_user_says(tmp_path: Path):
    file = tmp_path / "serve.yaml"
    file.write_text(
        'dtype: auto\nport: 8123\nlogits-processors: ["a:B"]\n'
        'additional-config: {"x": 1, "onceedit": {"weight": "alpha"}}\n'
    )
    args = parse("--config", str(file), "--enforce-eager")
    assert (args.dtype, args.port, args.enforce_eager) == ("auto", 8123, True)
    assert with_processor(args.logits_processors)[0] == "a:B"
    merged = with_settings(args.additional_config, OURS)
    assert merged == {"x": 1, "onceedit": {"weight": "alpha", **OURS}}


@pytest.mark.parametrize(
    "given",
    [
        ["--additional-config", json.dumps({"onceedit": {"fusion": {"top_k": 4}}})],
        ["--additional-config.onceedit.fusion.top_k", "4"],
        ["--additional_config.onceedit.fusion.top_k=4"],
    ],
)
def test_every_spelling_of_a_setting_joins_ours(given: list[str]):
    merged = with_settings(parse(*given).additional_config, OURS)
    assert merged == {"onceedit": {"fusion": {"top_k": 4}, **OURS}}


def test_what_is_wired_has_the_names_and_the_defaults_that_are_reckoned_with():
    """See tests/unit/serving/test_server.py, whose stand-in parses nothing."""
    assert {name: getattr(parse(), name) for name in PARSED} == {**PARSED, "logits_processors": None}
    given = parse("--middleware", "a.B", "--worker-extension-cls", "c.D", "--data-parallel-size", "2")
    assert (given.middleware, given.worker_extension_cls, given.data_parallel_size) == (["a.B"], "c.D", 2)
    assert with_updates(given.middleware) == ["a.B", MIDDLEWARE]


def test_none_of_our_options_hides_one_of_vllms():
    ours = set(inspect.signature(command.command).parameters)
    theirs = set(vars(parse()))
    assert "dtype" in theirs
    assert not ours & theirs


def test_an_unknown_option_is_refused_with_our_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse("--theshold", "0.5")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "usage: onceedit serve LLM --pack PACK [options of vllm serve]",
        "onceedit serve: error: unrecognized arguments: --theshold 0.5",
    ]


def test_options_that_do_not_go_together_are_bad_input():
    with pytest.raises(BadInputError, match="--enable-auto-tool-choice requires --tool-call-parser"):
        parse("--enable-auto-tool-choice")


def test_settings_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    serve = ServeCommand({})
    monkeypatch.setattr(serve, "_command", None)
    args = Namespace(additional_config={"onceedit": {**OURS, "wieght": "alpha"}}, port=1)
    with pytest.raises(BadInputError, match="wieght: Extra inputs"):
        serve.run(args)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            OSError(98, "Address already in use"),
            BadInputError,
            "--port 8000: something listens there already",
        ),
        (RuntimeError("Engine core initialization failed."), ModelError, "The server ended: Engine core"),
        (OSError(13, "Permission denied"), OSError, "Permission denied"),
    ],
)
def test_the_ends_of_a_server_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], said: str
):
    class Ends:
        def cmd(self, args: Namespace) -> None:
            raise error

    serve = ServeCommand({})
    monkeypatch.setattr(serve, "_command", Ends())
    with pytest.raises(kind, match=re.escape(said)):
        serve.run(Namespace(additional_config={"onceedit": OURS}, port=8000))
