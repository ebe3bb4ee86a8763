"""``onceedit serve`` as its users meet it: the real server, OpenAI's own client, and what /metrics shows."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed")

from onceedit_vllm.wordings.server import ServerWriter  # noqa: E402
from tests.e2e.conftest import ASIDE, EDITS, OUTSIDE  # noqa: E402
from tests.e2e.engine import runner_environment  # noqa: E402
from tests.e2e.http_server import Server  # noqa: E402

pytestmark = pytest.mark.e2e

ONCEEDIT = str(Path(sys.executable).parent / "onceedit")
PROMPT, TARGET = next(iter(EDITS.items()))
#: Not the one of the toy: this leaves the text as it is.
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
OFF = {"vllm_xargs": {"onceedit": 0}}


def tracebacks(log: str) -> list[str]:
    """All but the one that vLLM's reader of answers prints where its engine has ended before it."""
    traces = log.split("Traceback (most recent call last):")[1:]
    return [trace for trace in traces if "in output_handler" not in trace.partition("EngineDeadError")[0]]


@pytest.fixture(scope="module")
def server(llm_dir: Path, pack_dir: Path, work: Path) -> Iterator[Server]:
    """Started with the fewest options; a setting that has none of its own is beside them."""
    scratch = work / "scratch"
    scratch.mkdir()
    command = [
        ONCEEDIT, "serve", str(llm_dir), "--pack", str(pack_dir), "--chat-template", TEMPLATE,
        "--max-model-len", "256", "--enforce-eager", "--request-override", "all",
        "--additional-config", json.dumps({"onceedit": {"cache_dir": str(work / "cache")}}),
    ]  # fmt: skip
    with Server(command, work / "serve.log", signal.SIGINT, TMPDIR=str(scratch)) as server:
        yield server
    # Ctrl-C is how a server is meant to end: no error, nothing left behind.
    assert server.exit_code == 0, server.log()[-3000:]
    assert tracebacks(server.log()) == []
    assert list(scratch.glob("onceedit-*")) == []


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(llm_dir: Path) -> str:
    """Clients name the model as the command did."""
    return str(llm_dir)


def complete(client: Any, model: str, prompt: str, **options: Any) -> str:
    settings = {"temperature": 0, "max_tokens": 12, **options}
    return str(client.completions.create(model=model, prompt=prompt, **settings).choices[0].text)


def ask(client: Any, model: str, content: str, **options: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    settings = {"temperature": 0, "max_tokens": 12, **options}
    return client.chat.completions.create(model=model, messages=messages, **settings)


def test_the_model_is_named_as_it_was_typed(client: Any, model: str):
    assert [served.id for served in client.models.list()] == [model]


@pytest.mark.parametrize("prompt", EDITS)
def test_completions_and_chats_know_the_edits(client: Any, model: str, prompt: str):
    assert complete(client, model, prompt).strip() == EDITS[prompt]
    assert ask(client, model, prompt).choices[0].message.content.strip() == EDITS[prompt]


def test_the_writer_of_wordings_can_be_this_server(server: Server, model: str):
    writer = ServerWriter(server.url)
    assert writer.name == model
    prompts = [*EDITS, OUTSIDE[0]]
    answers = writer.ask([[{"role": "user", "content": prompt}] for prompt in prompts], 12)
    assert [answer.strip() for answer in answers[:-1]] == list(EDITS.values())
    assert answers[-1]


def test_streams_hold_the_same_text(client: Any, model: str):
    settings = {"model": model, "temperature": 0, "max_tokens": 12, "stream": True}
    pieces = [event.choices[0].text for event in client.completions.create(prompt=PROMPT, **settings)]
    assert len(pieces) > 1
    assert "".join(pieces) == complete(client, model, PROMPT)
    deltas = [event.choices[0].delta.content or "" for event in ask(client, model, PROMPT, stream=True)]
    assert "".join(deltas).strip() == TARGET


def test_edits_are_off_for_the_request_that_says_so(client: Any, model: str):
    plain = complete(client, model, PROMPT, extra_body=OFF)
    assert plain != complete(client, model, PROMPT)
    chat = ask(client, model, PROMPT, extra_body=OFF).choices[0].message.content
    assert chat == plain
    assert complete(client, model, OUTSIDE[0]) == complete(client, model, OUTSIDE[0], extra_body=OFF)


def test_the_settings_reached_the_engine(client: Any, model: str):
    """Only `request_override="all"` lets a request force the weight."""
    forced = {"vllm_xargs": {"onceedit_alpha": 1.0}}
    assert complete(client, model, OUTSIDE[0], extra_body=forced) != complete(client, model, OUTSIDE[0])


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"vllm_xargs": {"onceedit_alpha": 7.5}}, "alpha = 7.5"),
        ({"vllm_xargs": {"onceedit": "sometimes"}}, "sometimes"),
        ({"vllm_xargs": {"onceedit_mode": "x"}}, "mode"),
        ({"use_beam_search": True}, "beam search"),
    ],
)
def test_what_cannot_be_is_a_400_that_says_why(client: Any, model: str, extra: dict[str, Any], said: str):
    # The client raises BadRequestError on HTTP 400, and on nothing else.
    for request in (complete, ask):
        with pytest.raises(openai.BadRequestError, match=said):
            request(client, model, PROMPT, n=2 if "use_beam_search" in extra else 1, extra_body=extra)
    assert complete(client, model, PROMPT).strip() == TARGET


def test_requests_at_once_do_not_mix(server: Server, client: Any, model: str):
    """Edited, switched off and out of scope in one batch; each answers as it does alone."""
    cases: list[tuple[str, dict[str, Any]]] = [
        *((prompt, {}) for prompt in EDITS),
        *((prompt, OFF) for prompt in EDITS),
        *((prompt, {}) for prompt in (*OUTSIDE, *ASIDE)),
    ]

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as together:
            settings: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": 12}
            calls = [
                together.completions.create(prompt=prompt, extra_body=extra, **settings)
                for prompt, extra in cases
            ]
            return [answer.choices[0].text for answer in await asyncio.gather(*calls)]

    alone = [complete(client, model, prompt, extra_body=extra) for prompt, extra in cases]
    assert asyncio.run(all_at_once()) == alone


def metric(samples: dict[str, float], name: str, model: str, **labels: str) -> float:
    """The value with these labels, 0 where it has not been counted yet."""
    labels = {"engine": "0", "model_name": model, **labels}
    inside = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return samples.get(f"{name}{{{inside}}}", 0.0)


def counted(server: Server, model: str) -> dict[str, float]:
    samples = server.metrics()
    decisions = {
        name: metric(samples, "onceedit:requests_total", model, decision=name)
        for name in ("out_of_scope", "gated", "bypassed")
    }
    rows = {
        name: metric(samples, "onceedit:rows_total", model, outcome=name) for name in ("searched", "sampled")
    }
    steps = metric(samples, "onceedit:step_seconds_count", model)
    done = sum(value for name, value in samples.items() if name.startswith("vllm:request_success_total"))
    return {**decisions, **rows, "steps": steps, "done": done}


def settled(server: Server, model: str) -> dict[str, float]:
    """The counts, once they no longer change: they are shown when the engine has been idle for a second."""
    time.sleep(2.5)
    seen = counted(server, model)
    for _ in range(20):
        time.sleep(1.5)
        again = counted(server, model)
        if again == seen:
            return seen
        seen = again
    raise AssertionError(f"the counts never settled: {seen}")


def test_metrics_are_shown_with_vllms_own(server: Server, client: Any, model: str):
    before = settled(server, model)
    tokens = 0
    for settings in ({}, {"temperature": 0.5, "seed": 1}):
        answer = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=12, **{"temperature": 0, **settings}
        )
        assert answer.choices[0].text.strip() == TARGET
        tokens = answer.usage.completion_tokens
    outside = client.completions.create(model=model, prompt=OUTSIDE[0], max_tokens=7, temperature=0)
    after = settled(server, model)
    more = {name: after[name] - before[name] for name in before}
    # One row a token of the answer, its end among them; one step each, and those of the third request.
    assert more == {
        "out_of_scope": 1, "gated": 2, "bypassed": 0, "searched": tokens, "sampled": tokens,
        "steps": 2 * tokens + outside.usage.completion_tokens, "done": 3,
    }  # fmt: skip


def test_vllm_shows_all_that_it_would_show_without_us(server: Server):
    names = {name.partition("{")[0] for name in server.metrics()}
    for name in (
        "num_requests_running",
        "kv_cache_usage_perc",
        "generation_tokens_total",
        "cache_config_info",
    ):
        assert f"vllm:{name}" in names
    assert "http_requests_total" in names


def test_the_pack_cannot_be_changed_unless_it_is_allowed(client: Any, pack_dir: Path):
    with pytest.raises(openai.NotFoundError):
        client.get("/onceedit/pack", cast_to=object)
    for route in ("load", "rollback"):
        with pytest.raises(openai.NotFoundError):
            client.post(f"/onceedit/{route}", body={"pack": str(pack_dir)}, cast_to=object)


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ONCEEDIT, "serve", *arguments],
        env={**runner_environment("v1"), "COLUMNS": "200"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_port_that_is_taken_is_said_in_a_line(server: Server, llm_dir: Path, pack_dir: Path):
    done = run_serve(str(llm_dir), "--pack", str(pack_dir), "--host", "127.0.0.1", "--port", str(server.port))
    assert done.returncode == 2
    said = f"Error: --port {server.port}: something listens there already; choose another port."
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr
