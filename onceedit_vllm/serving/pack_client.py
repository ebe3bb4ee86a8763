"""Asks a server that runs for another pack: the client of ``onceedit serve --allow-pack-updates``."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.runner.pack_admin import PREFIX

#: Seconds that loading a pack may take.
LOADING_SECONDS = 900.0

Status = dict[str, Any]


class PackClient:
    """One server's packs.

    Args:
        url: Where it listens, such as ``http://localhost:8000``.
        api_key: vLLM's, where the server was started with one.

    Raises:
        BadInputError: It is no such address.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInputError(
                f"--url {url}: give it with http:// or https://, such as http://localhost:8000."
            )
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def status(self) -> Status:
        """What is active.

        Raises:
            BadInputError: The server refuses, or does not let its pack be changed.
            HostError: It cannot be reached, or has failed.
        """
        return self._ask("pack", None)

    def load(self, pack: Path) -> Status:
        """Have a pack loaded and activated, and wait for it.

        Args:
            pack: A folder on the server's machine.

        Returns:
            What is active then.
        """
        return self._ask("load", {"pack": str(pack)})

    def rollback(self) -> Status:
        """The same with the pack that was active before."""
        return self._ask("rollback", {})

    def _ask(self, what: str, body: dict[str, str] | None) -> Status:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{PREFIX}/{what}", data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=LOADING_SECONDS) as answer:
                status: Status = json.load(answer)
                return status
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.read()) from None
        except (OSError, ValueError) as error:
            raise HostError(f"{self._url}: the server cannot be asked ({error}).") from error

    def _refusal(self, code: int, body: bytes) -> BadInputError | HostError:
        """What the server says, as one of our errors."""
        if code == 401:
            return BadInputError(f"{self._url}: the server wants its API key: give --api-key.")
        if code == 404:
            return BadInputError(
                f"{self._url}: this server does not let its pack be changed; it must have been started with "
                "`onceedit serve ... --allow-pack-updates`."
            )
        said = f"{self._url}: {_message_of(body) or f'HTTP {code}'}"
        return BadInputError(said) if code < 500 else HostError(said)


def _message_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500]
