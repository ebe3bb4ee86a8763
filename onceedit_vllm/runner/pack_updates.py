"""Another pack over HTTP, while vLLM's API server serves.

``--middleware onceedit_vllm.runner.pack_updates.PackUpdates`` adds the routes, and
``--worker-extension-cls onceedit_vllm.runner.extension.OnceEditWorkerExtension`` is what they ask;
``onceedit serve --allow-pack-updates`` passes both. vLLM's own names here: the application's state
(``engine_client``, vllm/entrypoints/launchers/api_server/app_state.py) and the key that guards all that is
below ``/v1`` (vllm/entrypoints/serve/middleware/authenticate.py).
"""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from onceedit_vllm.runner.pack_admin import PREFIX, PackAdmin, RefusedError, Status

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class PackUpdates:
    """Middleware that passes everything on, and adds routes to the application when it starts.

    Routes of the application, and not answers of its own: vLLM's API key, its metrics and its error handlers
    are for them as for all others.

    Args:
        app: What comes behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Once for the start of the application, then for every request."""
        if scope["type"] == "lifespan":
            add_routes(scope["app"])
        await self._app(scope, receive, send)


class LoadRequest(BaseModel):
    """Which pack is to be served.

    Attributes:
        pack: Its folder on the server's machine, an absolute path.
    """

    model_config = ConfigDict(extra="forbid")

    pack: str


def add_routes(app: FastAPI) -> None:
    """Give an application of vLLM's the routes for packs."""
    from vllm.logger import init_logger

    routes = _Routes(app)
    app.add_api_route(f"{PREFIX}/pack", routes.show, methods=["GET"])
    app.add_api_route(f"{PREFIX}/load", routes.load, methods=["POST"])
    app.add_api_route(f"{PREFIX}/rollback", routes.rollback, methods=["POST"])
    init_logger("vllm.onceedit").warning(
        "onceedit: %s lets whoever has this server's API key, or reaches it where there is none, change the "
        "pack for one on its disk",
        PREFIX,
    )


class _Routes:
    """What the routes answer."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: PackAdmin | None = None

    async def show(self) -> JSONResponse:
        """What is active."""
        return await _answer(self._admin().status())

    async def load(self, body: LoadRequest) -> JSONResponse:
        """Load a pack beside the active one, and activate it once it is there."""
        return await _answer(self._admin().load(body.pack))

    async def rollback(self) -> JSONResponse:
        """Load the pack that was active before, and activate it."""
        return await _answer(self._admin().rollback())

    def _admin(self) -> PackAdmin:
        """Made at the first request: the engine is not there when the routes are added."""
        if self._made is None:
            self._made = PackAdmin(self._app.state.engine_client)
        return self._made


async def _answer(asked: Awaitable[Status]) -> JSONResponse:
    """The status, or an error in the shape that clients of OpenAI's interface read."""
    try:
        return JSONResponse(await asked)
    except RefusedError as error:
        status = HTTPStatus(error.status)
        kind = status.phrase.title().replace(" ", "") + "Error"
        content = {"message": str(error), "type": kind, "param": error.param, "code": status.value}
        return JSONResponse({"error": content}, status.value)
