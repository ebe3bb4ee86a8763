"""Changes the pack of an engine from the process of its API server."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError, OnceEditError
from onceedit_vllm.runner.extension import refuse_other_extension

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient

#: Below it are the routes: ``GET pack``, ``POST load``, ``POST rollback``.
PREFIX = "/v1/onceedit"
#: Seconds between two looks at a pack that is loading. Each is a call between two steps of the engine.
_PACE = 0.2

Status = dict[str, Any]


class RefusedError(OnceEditError):
    """A change of the pack that is not made; the active pack stays.

    Attributes:
        status: Of HTTP.
        param: What of the request is wrong, where it is that.
    """

    def __init__(self, message: str, status: int, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class PackAdmin:
    """One engine's packs, asked for through vLLM's ``collective_rpc``.

    Args:
        engine: vLLM's client of the engine.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._changing = asyncio.Lock()

    async def status(self) -> Status:
        """What is active; see :meth:`~onceedit_vllm.runner.swap.PackSwap.status`.

        Raises:
            RefusedError: The engine's plug-in runs elsewhere, or its workers do not know the call.
        """
        return await self._ask("onceedit_status")

    async def load(self, pack: str) -> Status:
        """Load a pack, wait, and activate it. Requests are served meanwhile, with the one that is active.

        Returns:
            The status afterwards.

        Raises:
            RefusedError: It cannot be used, or another change is under way.
        """
        # Where the server was started is nobody's business: a path that depends on it would be a guess.
        if not PurePosixPath(pack).is_absolute():
            raise RefusedError(
                f"pack {pack!r}: give the absolute path of an EditPack folder on the server's machine",
                400,
                "pack",
            )
        return await self._change("pack", "onceedit_load", pack)

    async def rollback(self) -> Status:
        """The same with the pack that was active before."""
        return await self._change(None, "onceedit_rollback")

    async def _change(self, param: str | None, method: str, *args: str) -> Status:
        if self._changing.locked():
            raise RefusedError("another pack is being loaded: try again when it is active", 409)
        async with self._changing:
            await self._ask(method, *args)
            while (status := await self._ask("onceedit_status"))["state"] == "loading":
                await asyncio.sleep(_PACE)
            if status["state"] == "failed":
                raise RefusedError(status["error"], 400, param)
            # By name: another process of the same server may have loaded another one meanwhile.
            return await self._ask("onceedit_activate", *(args or (status["waiting"],)))

    async def _ask(self, method: str, *args: str | None) -> Status:
        """The status that the worker with the plug-in answers with."""
        try:
            refuse_other_extension(self._engine.vllm_config.parallel_config.worker_extension_cls)
        except BadInputError as error:
            raise RefusedError(str(error), 501) from error
        answers = await self._engine.collective_rpc(method, args=args)
        status: Status = next(answer for answer in answers if answer is not None)
        refused = status.pop("refused")
        if refused is not None:
            raise RefusedError(refused, 409)
        return status
