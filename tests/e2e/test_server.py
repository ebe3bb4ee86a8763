"""vLLM's own entry point with the processor, over HTTP: nothing of our command is needed."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EDITS, OUTSIDE, PROCESSOR
from tests.e2e.http_server import Server

pytestmark = pytest.mark.e2e

PROMPT, TARGET = next(iter(EDITS.items()))
Post = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def post(llm_dir: Path, pack_dir: Path, work: Path) -> Iterator[Post]:
    """A running server's completions endpoint."""
    ours = {"onceedit": {"pack": str(pack_dir), "cache_dir": str(work / "cache")}}
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(llm_dir),
        "--served-model-name", "toy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
        "--logits-processors", PROCESSOR, "--additional-config", json.dumps(ours),
    ]  # fmt: skip
    with Server(command, work / "server.log", ONCEEDIT_TEST_FORK="0") as server:  # as users have it
        url = f"{server.url}/v1/completions"
        yield lambda body: send(url, {"model": "toy", "temperature": 0, **body})


def send(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_served_model_knows_the_edits(post: Post):
    for prompt, target in EDITS.items():
        status, body = post({"prompt": prompt, "max_tokens": 12})
        assert (status, body["choices"][0]["text"].strip()) == (200, target)


def test_edits_off_for_one_request(post: Post):
    _, on = post({"prompt": PROMPT, "max_tokens": 12})
    status, off = post({"prompt": PROMPT, "max_tokens": 12, "vllm_xargs": {"onceedit": 0}})
    assert status == 200
    assert off["choices"][0]["text"] != on["choices"][0]["text"]


def test_no_client_forces_the_weight_unless_the_engine_lets_it(post: Post):
    forced = {"onceedit": 1, "onceedit_alpha": 1.0}
    status, body = post({"prompt": OUTSIDE[0], "max_tokens": 8, "vllm_xargs": forced})
    assert status == 400
    assert '"request_override": "all"' in body["error"]["message"]


def test_beam_search_is_refused(post: Post):
    status, body = post({"prompt": PROMPT, "max_tokens": 4, "use_beam_search": True, "n": 2})
    assert status == 400
    assert "beam search" in body["error"]["message"]


@pytest.mark.parametrize(
    "xargs",
    [{"onceedit_alpha": 7.5}, {"onceedit": "sometimes"}, {"onceedit_mode": "x"}, {"onceedit": [1, 2]}],
)
def test_bad_values_are_a_400_that_names_them(post: Post, xargs: dict[str, Any]):
    status, body = post({"prompt": PROMPT, "max_tokens": 4, "vllm_xargs": xargs})
    assert status == 400
    assert "onceedit" in body["error"]["message"]
    assert post({"prompt": PROMPT, "max_tokens": 12})[1]["choices"][0]["text"].strip() == TARGET
