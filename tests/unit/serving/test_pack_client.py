"""What a server answers becomes a status, or an error that says what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.serving.pack_client import PackClient

STATUS = {"state": "idle", "pack": "/packs/one", "epoch": 2}


class Answering(HTTPServer):
    """Gives the answer that a test has put into `answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, bytes] = (200, json.dumps(STATUS).encode())
        self.asked: list[tuple[str, str, str | None, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = json.loads(body) if body else None
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), said))
        code, answer = self.server.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_each_call_has_its_route_and_the_key_goes_with_it(server: Answering) -> None:
    assert PackClient(server.url).status() == STATUS
    client = PackClient(f"{server.url}/v1/", "secret")
    assert client.load(Path("/packs/two")) == STATUS
    assert client.rollback() == STATUS
    assert server.asked == [
        ("GET", "/v1/onceedit/pack", None, None),
        ("POST", "/v1/onceedit/load", "Bearer secret", {"pack": "/packs/two"}),
        ("POST", "/v1/onceedit/rollback", "Bearer secret", {}),
    ]


@pytest.mark.parametrize(
    ("code", "body", "kind", "said"),
    [
        (400, b'{"error": {"message": "another base model"}}', BadInputError, "another base model"),
        (409, b'{"error": {"message": "another pack is being loaded"}}', BadInputError, "being loaded"),
        (401, b'{"error": "Unauthorized"}', BadInputError, "give --api-key"),
        (404, b'{"detail": "Not Found"}', BadInputError, "--allow-pack-updates"),
        (500, b'{"error": {"message": "the engine died"}}', HostError, "the engine died"),
        (502, b"<html>bad gateway</html>", HostError, "bad gateway"),
        (503, b"", HostError, "HTTP 503"),
        (200, b"<html>", HostError, "cannot be asked"),
    ],
)
def test_what_a_server_refuses_is_said(
    server: Answering, code: int, body: bytes, kind: type[Exception], said: str
) -> None:
    server.answer = (code, body)
    with pytest.raises(kind, match=said):
        PackClient(server.url).status()


def test_where_nobody_listens_the_address_is_named() -> None:
    with Answering() as gone:
        url = gone.url
    with pytest.raises(HostError, match=f"{url}: the server cannot be asked"):
        PackClient(url).status()


def test_an_address_without_its_scheme_is_refused() -> None:
    with pytest.raises(BadInputError, match="--url localhost:8000: give it with http://"):
        PackClient("localhost:8000")
