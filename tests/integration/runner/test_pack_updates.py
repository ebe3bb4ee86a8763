"""The routes for packs in an application with vLLM's own key, error handlers and way of adding middleware."""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")

from fastapi import FastAPI  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler  # noqa: E402
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware  # noqa: E402

from onceedit_vllm.errors import BadInputError  # noqa: E402
from onceedit_vllm.runner.extension import EXTENSION, _acted  # noqa: E402
from onceedit_vllm.runner.swap import PackSwap  # noqa: E402
from onceedit_vllm.serving.wiring import MIDDLEWARE  # noqa: E402

KEY = {"Authorization": "Bearer secret"}


class Packs:
    """Packs that are there without being loaded; loading waits until it may."""

    def __init__(self) -> None:
        self.active = SimpleNamespace(number=1, pack=SimpleNamespace(edits=[1, 2]))
        self.may_load = threading.Event()
        self.may_load.set()

    def load(self, pack: Path) -> int:
        assert self.may_load.wait(30)
        if pack == Path("/packs/foreign"):
            raise BadInputError("it is an edit of another base model")
        return self.active.number + 1

    def activate(self, number: int) -> None:
        self.active = SimpleNamespace(number=number, pack=SimpleNamespace(edits=[1]))

    def retire(self) -> None: ...

    def tally(self) -> dict[str, int]:
        return {"packs": 1}


class Engine:
    """Two workers, of which the first has the plug-in; the swap is the real one."""

    def __init__(self, extension: str = EXTENSION) -> None:
        self.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(worker_extension_cls=extension))
        packs: Any = Packs()
        self.packs = packs
        self.elsewhere: str | None = None
        self._swap = PackSwap(self.packs, Path("/packs/one"))

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        if self.elsewhere is not None:
            return [{"refused": self.elsewhere}, None]
        acts = {
            "onceedit_load": lambda swap: swap.load(*args),
            "onceedit_status": lambda swap: None,
            "onceedit_activate": lambda swap: swap.activate(*args),
            "onceedit_rollback": lambda swap: swap.rollback(),
        }
        return [_acted(self._swap, acts[method]), None]


@pytest.fixture(autouse=True)
def _packs_are_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceedit_vllm.pack.EditPack.load", lambda root: root)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def application(engine: Engine, middleware: list[str]) -> FastAPI:
    """As vllm/entrypoints/launchers/app.py makes it, as far as it concerns a route."""
    app = FastAPI()
    app.state.args = args = Namespace(
        allowed_origins=["*"], allow_credentials=False, allowed_methods=["*"], allowed_headers=["*"],
        api_key=["secret"], enable_request_id_headers=False, middleware=middleware, log_error_stack=False,
    )  # fmt: skip
    app.state.engine_client = engine
    init_exception_handler(app)
    init_entrypoints_middleware(args, app, ())
    return app


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(application(engine, [MIDDLEWARE]), headers=KEY) as client:
        yield client


def load(client: TestClient, pack: str) -> Any:
    return client.post("/v1/onceedit/load", json={"pack": pack})


def test_a_pack_is_loaded_shown_and_taken_back(client: TestClient):
    shown = client.get("/v1/onceedit/pack")
    assert (shown.status_code, shown.json()["pack"], shown.json()["edits"]) == (200, "/packs/one", 2)
    loaded = load(client, "/packs/two")
    assert loaded.status_code == 200
    assert loaded.json() == {
        "state": "idle", "error": None, "waiting": None,
        "epoch": 2, "pack": "/packs/two", "edits": 1, "packs_in_memory": 1,
    }  # fmt: skip
    assert client.post("/v1/onceedit/rollback").json()["pack"] == "/packs/one"


@pytest.mark.parametrize("route", [("GET", "pack"), ("POST", "load"), ("POST", "rollback")])
def test_vllms_key_guards_every_route(client: TestClient, engine: Engine, route: tuple[str, str]):
    method, name = route
    answer = client.request(method, f"/v1/onceedit/{name}", json={"pack": "/packs/two"}, headers={
        "Authorization": "Bearer guessed",
    })  # fmt: skip
    assert answer.status_code == 401
    assert engine.packs.active.number == 1


@pytest.mark.parametrize("route", [("GET", "pack"), ("POST", "load"), ("POST", "rollback")])
def test_without_the_middleware_there_are_no_routes(engine: Engine, route: tuple[str, str]):
    method, name = route
    with TestClient(application(engine, []), headers=KEY) as client:
        assert client.request(method, f"/v1/onceedit/{name}", json={"pack": "/packs/two"}).status_code == 404


def refused(answer: Any, code: int) -> dict[str, Any]:
    assert answer.status_code == code
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


def test_a_pack_that_cannot_be_used_is_a_400_and_the_active_one_stays(client: TestClient):
    error = refused(load(client, "/packs/foreign"), 400)
    assert (error["param"], error["type"]) == ("pack", "BadRequestError")
    assert "another base model" in error["message"]
    assert client.get("/v1/onceedit/pack").json()["pack"] == "/packs/one"
    assert load(client, "/packs/two").status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"pack": 3}, {"pack": "/packs/two", "name": "x"}, {"pack": "packs/two"}]
)
def test_a_request_that_is_none_is_a_400(client: TestClient, engine: Engine, body: dict[str, Any]):
    error = refused(client.post("/v1/onceedit/load", json=body), 400)
    assert error["param"] in ("body.pack", "body.name", "pack")
    assert engine.packs.active.number == 1


def test_one_change_at_a_time(client: TestClient, engine: Engine):
    engine.packs.may_load.clear()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(load(client, "/packs/two")))
    thread.start()
    until = threading.Event()
    for _ in range(100):
        if client.get("/v1/onceedit/pack").json()["state"] == "loading":
            break
        until.wait(0.05)
    error = refused(load(client, "/packs/three"), 409)
    assert "another pack is being loaded" in error["message"]
    refused(client.post("/v1/onceedit/rollback"), 409)
    engine.packs.may_load.set()
    thread.join(30)
    assert [answer.json()["pack"] for answer in answers] == ["/packs/two"]


def test_with_nothing_to_go_back_to_it_is_a_409(client: TestClient):
    assert "no other pack was active" in refused(client.post("/v1/onceedit/rollback"), 409)["message"]


def test_with_a_plugin_elsewhere_it_is_a_409_that_says_where(client: TestClient, engine: Engine):
    engine.elsewhere = "use `onceedit host load PACK --name facts`"
    assert refused(load(client, "/packs/two"), 409)["message"] == engine.elsewhere
    assert refused(client.get("/v1/onceedit/pack"), 409)["type"] == "ConflictError"


def test_workers_that_do_not_know_the_calls_are_never_asked():
    with TestClient(application(Engine(extension=""), [MIDDLEWARE]), headers=KEY) as client:
        assert "--worker-extension-cls (none)" in refused(load(client, "/packs/two"), 501)["message"]
