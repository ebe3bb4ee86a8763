"""Another pack over HTTP, while OpenAI's own client has requests under way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="openai is not installed")

from tests.e2e.conftest import EDITS, OTHER_TARGET  # noqa: E402
from tests.e2e.http_server import Server  # noqa: E402

pytestmark = pytest.mark.e2e

ONCEEDIT = str(Path(sys.executable).parent / "onceedit")
PROMPT, TARGET = next(iter(EDITS.items()))
KEY = "secret"
#: No end of the text for so long: the plug-in writes all of it.
LONG: dict[str, Any] = {"max_tokens": 150, "extra_body": {"min_tokens": 150}}


@pytest.fixture(scope="module")
def server(llm_dir: Path, pack_dir: Path, work: Path) -> Iterator[Server]:
    command = [
        ONCEEDIT, "serve", str(llm_dir), "--pack", str(pack_dir), "--served-model-name", "toy",
        "--max-model-len", "256", "--enforce-eager", "--dtype", "float32",
        "--allow-pack-updates", "--api-key", KEY,
        "--additional-config", json.dumps({"onceedit": {"cache_dir": str(work / "cache")}}),
    ]  # fmt: skip
    with Server(command, work / "updates.log") as server:
        yield server
    assert server.exit_code == 0, server.log()[-3000:]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def _first_pack(client: Any, pack_dir: Path) -> None:
    """Every test begins with it."""
    if status(client)["pack"] != str(pack_dir.resolve()):
        load(client, pack_dir.resolve())


def status(client: Any) -> dict[str, Any]:
    return dict(client.get("/onceedit/pack", cast_to=object))


def load(client: Any, pack: Path | str) -> dict[str, Any]:
    return dict(client.post("/onceedit/load", body={"pack": str(pack)}, cast_to=object))


def stream(client: Any, first_piece: threading.Event | None = None, **options: Any) -> str:
    settings = {"temperature": 0, "max_tokens": 12, **options}
    pieces = []
    for event in client.completions.create(model="toy", prompt=PROMPT, stream=True, **settings):
        pieces.append(event.choices[0].text)
        if first_piece is not None:
            first_piece.set()
    return "".join(pieces)


def test_streams_under_way_finish_with_their_pack_and_new_ones_get_the_other(
    client: Any, pack_dir: Path, other_pack_dir: Path
):
    old = stream(client, **LONG)
    assert old.strip().startswith(TARGET)
    is_over = threading.Event()

    def one_after_another() -> list[str]:
        answers = []
        while not is_over.is_set():
            answers.append(stream(client, **LONG))
        return answers

    with ThreadPoolExecutor(5) as pool:
        begun = [threading.Event() for _ in range(2)]
        under_way = [pool.submit(stream, client, first_piece, **LONG) for first_piece in begun]
        throughout = [pool.submit(one_after_another) for _ in range(2)]
        assert all(first_piece.wait(60) for first_piece in begun)
        loaded = load(client, other_pack_dir)
        new = stream(client, **LONG)
        is_over.set()
        answers = [done.result(60) for done in throughout]
        assert [done.result(60) for done in under_way] == [old, old]
    assert (loaded["pack"], loaded["edits"], loaded["state"]) == (str(other_pack_dir), 1, "idle")
    assert new.strip().startswith(OTHER_TARGET)
    for each in answers:
        # No answer is of both packs, and none of the first follows one of the second.
        assert each == sorted(each, key=lambda answer: answer != old)
        assert set(each) <= {old, new}
    assert stream(client).strip() == OTHER_TARGET
    assert rollback(client)["pack"] == str(pack_dir.resolve())
    assert stream(client).strip() == TARGET
    assert status(client)["packs_in_memory"] == 1


@pytest.fixture(scope="module")
def foreign_pack(work: Path) -> Path:
    """An edit of another plug-in."""
    from onceedit_vllm import EditingConfig, EditRecord, edit
    from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer

    plugin = save_toy_model(work / "foreign", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=9)
    record = EditRecord(id="n0", prompt=PROMPT, target=OTHER_TARGET, subject="Norland")
    config = EditingConfig(learning_rate=3e-3, epochs=1, trained_share=1.0)
    return edit(plugin, [record], work / "foreign-pack", config=config, progress=False).root


def test_a_pack_that_cannot_be_used_is_a_400_and_the_old_one_stays(
    client: Any, work: Path, llm_dir: Path, foreign_pack: Path, pack_dir: Path
):
    for pack, said in (
        (work / "absent", "there is no such folder"),
        (llm_dir, "PackError"),
        (foreign_pack, "another base model"),
        ("other", "absolute path"),
    ):
        with pytest.raises(openai.BadRequestError, match=said) as refused:
            load(client, pack)
        assert refused.value.param == "pack"
        assert status(client)["pack"] == str(pack_dir.resolve())
        assert stream(client).strip() == TARGET


def test_of_changes_at_once_one_is_made_and_the_others_are_a_409(client: Any, other_pack_dir: Path):
    def said() -> str:
        try:
            return str(load(client, other_pack_dir)["pack"])
        except openai.ConflictError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        answers = {done.result() for done in [pool.submit(said) for _ in range(4)]}
    answers.remove(str(other_pack_dir))
    assert answers
    assert all("another pack is being loaded" in answer for answer in answers)
    assert stream(client).strip() == OTHER_TARGET


def rollback(client: Any) -> dict[str, Any]:
    return dict(client.post("/onceedit/rollback", cast_to=object))


@pytest.mark.parametrize("ask", [status, rollback, lambda client: load(client, "/packs/other")])
def test_the_servers_key_guards_it(server: Server, client: Any, ask: Callable[[Any], Any]):
    guessed = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guessed", max_retries=0)
    with guessed as stranger, pytest.raises(openai.AuthenticationError):
        ask(stranger)
    assert stream(client).strip() == TARGET


def run_pack(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ONCEEDIT, "pack", *arguments, "--url", server.url, "--api-key", KEY],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_changes_it_too(server: Server, client: Any, other_pack_dir: Path, work: Path):
    done = run_pack(server, "load", str(other_pack_dir), "--json", "-")
    assert (done.returncode, json.loads(done.stdout)["pack"]) == (0, str(other_pack_dir)), done.stderr
    assert stream(client).strip() == OTHER_TARGET
    assert str(other_pack_dir.name) in run_pack(server, "show").stdout
    refused = run_pack(server, "load", str(work / "absent"))
    assert refused.returncode == 2
    assert "there is no such folder" in refused.stderr
    assert run_pack(server, "rollback").returncode == 0
    assert stream(client).strip() == TARGET
