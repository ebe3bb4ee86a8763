"""A writer behind an OpenAI-compatible server: vLLM's, or anybody's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.wordings.kinds import Chat

#: Chats that are under way at once; a server batches them.
AT_ONCE = 16
#: Seconds that one answer may take, waiting for its turn included.
ANSWER_SECONDS = 600.0


def is_url(name: str) -> bool:
    """Whether a writer is named by the address of a server."""
    return name.startswith(("http://", "https://"))


class ServerWriter:
    """One model of a server.

    Args:
        url: Where it listens, with or without ``/v1``.
        model: Its name there; None for the first that the server lists.
        api_key: Sent as the server's bearer token, if given.

    Attributes:
        name: The model's name.

    Raises:
        BadInputError: It is no address, or the server refuses.
        ModelError: The server cannot be reached, or has failed.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        if not is_url(url):
            raise BadInputError(f"{url}: give the server with http:// or https://")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.name = model or self._first_model()

    def ask(self, chats: Sequence[Chat], most_tokens: int) -> list[str]:
        """Greedy answers, in the order of the chats."""
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(pool.map(lambda chat: self._answer(chat, most_tokens), chats))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, chat: Chat, most_tokens: int) -> str:
        body = {"model": self.name, "messages": chat, "max_tokens": most_tokens, "temperature": 0}
        answer = self._call("chat/completions", body)
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{self._url}: no answer of an OpenAI-compatible server: {answer}") from error

    def _first_model(self) -> str:
        listed = self._call("models", None)
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{self._url}: lists no model; name one") from error

    def _call(self, what: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/v1/{what}", data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")[:500]
            message = f"{self._url}: HTTP {error.code}: {said}"
            raise BadInputError(message) if error.code < 500 else ModelError(message) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._url}: the server cannot be asked ({error})") from error
