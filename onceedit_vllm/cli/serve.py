"""``onceedit serve``: vLLM's OpenAI-compatible server with a pack's edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded_on_screen
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.config import (
    PlugInConfig,
    PlugInHost,
    RequestOverride,
    ScopeKind,
    ServingConfig,
    WeightKind,
)
from onceedit_vllm.errors import BadInputError

#: Whatever is not ours goes to vLLM as it is; a short option of ours could be cut out of one of vLLM's.
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["--help"]}
EPILOG = (
    "Every other option goes to vLLM as it is: --port, --host, --dtype, --max-model-len, ... "
    "(see --vllm-help). Settings without an option of their own go into "
    "--additional-config '{\"onceedit\": {...}}'."
)


def _show_options(topic: str | None) -> None:
    if topic is not None:
        from onceedit_vllm.serving.server import show_options

        show_options(topic)


def _setting(field: str, meaning: str) -> typer.models.OptionInfo:
    """An option that is left out of the settings unless it is given."""
    option: typer.models.OptionInfo = typer.Option(
        help=f"{meaning}; default: {ServingConfig.model_fields[field].default}."
    )
    return option


_LLM = typer.Argument(metavar="LLM", help="The LLM to serve, first: a name, a folder or a hub id.")
_SCOPE = _setting("scope", "Which prompts the edits concern")
_WEIGHT = _setting("weight", "The plug-in's weight behind an open gate")
_OVERRIDE = _setting("request_override", "What a request may decide for itself")
_THRESHOLD = typer.Option(help="Alpha at which the gate opens; default: the pack's.")
_LOG = typer.Option(help="A file for one JSON line per decision.")
_HOST = typer.Option(
    help=f"Where the plug-in runs: in the engine's worker, or in a host of Ray (see `onceedit host`); "
    f"default: {PlugInConfig.model_fields['host'].default}."
)
_NAME = typer.Option(help="The name of the host of Ray; it is started where there is none.")
_UPDATES = typer.Option(
    "--allow-pack-updates",
    help="Let clients change the pack while it is served: `onceedit pack load`, or POST /v1/onceedit/load. "
    "Give vLLM's --api-key, too.",
)
_PORT = typer.Option(help="Show the metrics of the edits on a port of their own, not with vLLM's.")
_HELP = typer.Option(
    metavar="TOPIC",
    callback=_show_options,
    is_eager=True,
    help="Show options of vLLM: all, a group of them, or those whose name holds this.",
)


@guarded_on_screen
def command(
    context: typer.Context,
    llm: Annotated[str, _LLM],
    pack: Annotated[Path, typer.Option(help="An EditPack folder.")],
    scope: Annotated[ScopeKind | None, _SCOPE] = None,
    weight: Annotated[WeightKind | None, _WEIGHT] = None,
    threshold: Annotated[float | None, _THRESHOLD] = None,
    request_override: Annotated[RequestOverride | None, _OVERRIDE] = None,
    decisions_log: Annotated[Path | None, _LOG] = None,
    metrics_port: Annotated[int | None, _PORT] = None,
    plugin_host: Annotated[PlugInHost | None, _HOST] = None,
    plugin_name: Annotated[str | None, _NAME] = None,
    allow_pack_updates: Annotated[bool, _UPDATES] = False,
    vllm_help: Annotated[str | None, _HELP] = None,
) -> None:
    """Serve an LLM that knows the pack's edits, over vLLM's OpenAI-compatible HTTP interface."""
    from onceedit_vllm.serving.server import serve

    given = {
        "pack": ("--pack", pack),
        "scope": ("--scope", scope),
        "weight": ("--weight", weight),
        "threshold": ("--threshold", threshold),
        "request_override": ("--request-override", request_override),
        "decisions_log": ("--decisions-log", decisions_log),
        "metrics_port": ("--metrics-port", metrics_port),
        "plugin": ("--plugin-host", _plugin(plugin_host, plugin_name)),
    }
    options = {name: option for name, option in given.items() if option[1] is not None}
    serve(llm, build_settings(ServingConfig, options), context.args, allow_pack_updates)


def _plugin(host: PlugInHost | None, name: str | None) -> PlugInConfig | None:
    """What is said about the plug-in's host; None where nothing is.

    vLLM's own `--host` is the address to listen at, so ours say whose host and whose name they mean.

    Raises:
        BadInputError: A name without a host that has one.
    """
    if name is not None and host != "ray":
        raise BadInputError(f"--plugin-name {name}: only a host of Ray has a name; add --plugin-host ray.")
    options = {"host": ("--plugin-host", host), "name": ("--plugin-name", name)}
    given = {field: option for field, option in options.items() if option[1] is not None}
    return build_settings(PlugInConfig, given) if given else None
