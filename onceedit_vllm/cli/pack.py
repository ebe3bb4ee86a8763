"""``onceedit pack``: the pack of a server that runs, shown and changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import check_json_target, facts_table, give_json, give_tables, reserved_stdout

app = typer.Typer(
    help="The pack of a server that runs: `onceedit serve ... --allow-pack-updates`. That of a host of Ray "
    "is changed with `onceedit host`.",
    no_args_is_help=True,
)

_URL = typer.Option(help="Where the server listens.")
_KEY = typer.Option(envvar="VLLM_API_KEY", help="The server's, where it was started with one.")
_JSON = typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")
_PACK = typer.Argument(help="An EditPack folder on the server's machine, of the same base model.")
_DEFAULT_URL = "http://localhost:8000"


@app.command("load")
@guarded
def load(
    pack: Annotated[Path, _PACK],
    url: Annotated[str, _URL] = _DEFAULT_URL,
    api_key: Annotated[str | None, _KEY] = None,
    json: Annotated[str | None, _JSON] = None,
) -> None:
    """Load a pack beside the active one, and let new requests have it; running ones finish with theirs."""
    from onceedit_vllm.serving.pack_client import PackClient

    check_json_target(json)
    with reserved_stdout() as answer:
        _give(PackClient(url, api_key).load(pack.expanduser().absolute()), json, answer)


@app.command("show")
@guarded
def show(
    url: Annotated[str, _URL] = _DEFAULT_URL,
    api_key: Annotated[str | None, _KEY] = None,
    json: Annotated[str | None, _JSON] = None,
) -> None:
    """Show the pack that new requests get."""
    from onceedit_vllm.serving.pack_client import PackClient

    check_json_target(json)
    with reserved_stdout() as answer:
        _give(PackClient(url, api_key).status(), json, answer)


@app.command("rollback")
@guarded
def rollback(
    url: Annotated[str, _URL] = _DEFAULT_URL,
    api_key: Annotated[str | None, _KEY] = None,
    json: Annotated[str | None, _JSON] = None,
) -> None:
    """Load the pack that was active before, and let new requests have it."""
    from onceedit_vllm.serving.pack_client import PackClient

    check_json_target(json)
    with reserved_stdout() as answer:
        _give(PackClient(url, api_key).rollback(), json, answer)


def _give(status: dict[str, Any], json: str | None, answer: Any) -> None:
    if json is not None:
        give_json(status, json, answer)
        return
    named = {"pack": "pack", "edits": "edits", "epoch": "epoch", "packs in memory": "packs_in_memory"}
    facts = {name: str(status[key]) for name, key in named.items()}
    if status["state"] != "idle":
        facts["another pack"] = ": ".join(
            filter(None, (status["state"], status["error"] or status["waiting"]))
        )
    give_tables(answer, facts_table("the pack of this server", facts))
