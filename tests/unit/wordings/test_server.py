"""A writer behind a real socket: what is sent, in which order it comes back, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.wordings.kinds import Chat
from onceedit_vllm.wordings.server import ServerWriter, is_url


class Echoing(ThreadingHTTPServer):
    """Says what `answer` makes of a chat: what it was told last. Or fails with the status in `failing`."""

    request_queue_size = 64  # connections that wait; the writer opens many at once

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, Any]] = []
        self.failing: int | None = None
        self.garbled = False
        self.answer: Callable[[Chat], str] = lambda chat: chat[-1]["content"]
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Echoing

    def do_GET(self) -> None:
        self._give({"data": [{"id": "first"}, {"id": "second"}]}, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.server.answer(body["messages"])
        self._give({"choices": [{"message": {"content": said}}]}, body)

    def _give(self, answer: Any, body: Any) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        said = b"no" if self.server.failing else json.dumps({} if self.server.garbled else answer).encode()
        self.send_response(self.server.failing or 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Echoing]:
    with Echoing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def chat(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def test_answers_come_in_the_order_of_the_chats(server: Echoing) -> None:
    writer = ServerWriter(f"{server.url}/v1/")
    assert writer.name == "first"
    texts = [str(number) for number in range(40)]
    assert writer.ask([chat(text) for text in texts], 7) == texts
    assert writer.ask([], 7) == []
    assert server.asked[0] == ("/v1/models", None, None)
    path, key, body = server.asked[-1]
    assert (path, key) == ("/v1/chat/completions", None)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("first", 7, 0)


def test_a_named_model_and_a_key_go_with_the_question(server: Echoing) -> None:
    writer = ServerWriter(server.url, "mine", "secret")
    writer.ask([chat("x")], 1)
    ((_, key, body),) = server.asked
    assert (key, body["model"]) == ("Bearer secret", "mine")


def test_what_goes_wrong_is_said_with_the_server(server: Echoing) -> None:
    writer = ServerWriter(server.url)
    server.garbled = True
    with pytest.raises(ModelError, match="no answer of an OpenAI-compatible server"):
        writer.ask([chat("x")], 1)
    with pytest.raises(ModelError, match="lists no model"):
        ServerWriter(server.url)
    server.failing = 401
    with pytest.raises(BadInputError, match=f"{server.url}: HTTP 401: no"):
        writer.ask([chat("x")], 1)
    server.failing = 500
    with pytest.raises(ModelError, match=f"{server.url}: HTTP 500: no"):
        writer.ask([chat("x")], 1)


def test_nobody_there_or_no_address() -> None:
    with pytest.raises(ModelError, match="cannot be asked"):
        ServerWriter("http://127.0.0.1:9")
    with pytest.raises(BadInputError, match="http://"):
        ServerWriter("localhost:8000")
    assert is_url("https://x/v1")
    assert not is_url("qwen2.5-coder-0.5b")
