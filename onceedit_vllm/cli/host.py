"""``onceedit host``: plug-in hosts that several engines share, as actors of Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    columns_table,
    facts_table,
    give_json,
    give_tables,
    plain,
    reserved_stdout,
    say,
    size_text,
)
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.plugin.host_actor import HostFacts

_DEFAULT = PlugInConfig()

app = typer.Typer(
    help="Plug-in hosts that several engines share; in the cluster of Ray that is running.",
    no_args_is_help=True,
)


@app.command("start")
@guarded
def start(
    pack: Annotated[
        Path, typer.Argument(help="An EditPack folder, the same on all machines of the cluster.")
    ],
    name: Annotated[str, typer.Option(help="The name by which engines find it.")] = _DEFAULT.name,
    num_gpus: Annotated[float, typer.Option(help="Its share of a GPU.")] = _DEFAULT.num_gpus,
    cpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="CPU cores it is pinned to, such as 0-3,6.")
    ] = None,
    tcp: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Listen there, for engines on other machines; else by a socket file."
        ),
    ] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Start a host that goes on until it is stopped, and wait until it serves."""
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin import ray_host

    check_json_target(json)
    options = {
        "name": ("--name", name),
        "num_gpus": ("--num-gpus", num_gpus),
        "cpus": ("--cpus", None if cpus is None else parse_cpus(cpus)),
        "tcp": ("--tcp", tcp),
    }
    config = build_settings(PlugInConfig, options)
    with reserved_stdout() as answer:
        _show(ray_host.start(name, EditPack.load(pack), config), json, answer)


@app.command("load")
@guarded
def load(
    pack: Annotated[
        Path, typer.Argument(help="An EditPack folder of the same base model, the same on all machines.")
    ],
    name: Annotated[str, typer.Option(help="The host's name.")] = _DEFAULT.name,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Let a running host serve another pack: loaded beside its own, tried, and then activated.

    Requests under way finish with the pack that they began with, new ones get the new one. Where anything is
    wrong with it, the host goes on with its own.
    """
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin import ray_host

    check_json_target(json)
    with reserved_stdout() as answer:
        _show(ray_host.load(name, EditPack.load(pack), _tell), json, answer)


@app.command("rollback")
@guarded
def rollback(
    name: Annotated[str, typer.Option(help="The host's name.")] = _DEFAULT.name,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Let a host serve the pack again that it has served before; a second rollback undoes the first."""
    from onceedit_vllm.plugin import ray_host

    check_json_target(json)
    with reserved_stdout() as answer:
        _show(ray_host.rollback(name, _tell), json, answer)


@app.command("list")
@guarded
def list_hosts(
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """List the hosts of the cluster that is running."""
    from onceedit_vllm.plugin import ray_host
    from onceedit_vllm.plugin.host_actor import HostFacts

    check_json_target(json)
    with reserved_stdout() as answer:
        hosts = ray_host.list_hosts()
        if json is not None:
            give_json([_as_json(host) for host in hosts], json, answer)
            return
        table = columns_table("name", *_as_text(HostFacts("")))
        for host in hosts:
            table.add_row(plain(host.name), *map(plain, _as_text(host).values()))
        give_tables(answer, table)


@app.command("stop")
@guarded
def stop(name: Annotated[str, typer.Argument(help="Its name; see `onceedit host list`.")]) -> None:
    """End a host. Engines that use it go on without the edits."""
    from onceedit_vllm.plugin import ray_host

    with reserved_stdout():
        ray_host.stop(name)
    say(f"Stopped the plug-in host {name}.")


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU cores from a list such as ``0-3,6``.

    Raises:
        BadInputError: It is none.
    """
    cpus: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInputError(f"--cpus {text}: {part!r} is no core; write them as 0-3,6")
        cpus += range(int(first), int(last or first) + 1)
    if len(set(cpus)) < len(cpus) or not cpus:
        raise BadInputError(f"--cpus {text}: a core is named twice, or a range ends before it begins")
    return tuple(cpus)


def _tell(stage: str) -> None:
    say(f"{stage[:1].upper()}{stage[1:]} ...")


def _show(host: HostFacts, json: str | None, answer: TextIO) -> None:
    if json is not None:
        give_json(_as_json(host), json, answer)
        return
    give_tables(answer, facts_table(f"plug-in host {host.name}", _as_text(host)))


def _as_text(host: HostFacts) -> dict[str, str]:
    return {
        "epoch": str(host.epoch),
        "pack": host.pack,
        "edits": str(host.num_edits),
        "engines": str(len(host.engines)),
        "texts": str(host.num_texts),
        "packs in memory": str(host.num_packs),
        "memory": size_text(host.num_bytes),
        "state": host.failure or f"serves at {host.address}" + (f", {host.swap}" if host.swap else ""),
    }


def _as_json(host: HostFacts) -> dict[str, object]:
    """Without the token, and what only engines ask for."""
    facts = host._asdict()
    del facts["token"], facts["digests"]
    return {**facts, "texts": host.num_texts}
