"""What can be refused in about a second, before vLLM is imported."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError, PackError
from onceedit_vllm.models import resolve_model
from onceedit_vllm.models.resolve import known_models
from onceedit_vllm.pack import EditPack

#: Options that say where vLLM takes a hub's model from.
_HUB_OPTIONS = {"--revision", "--download-dir", "--load-format"}


def check_settings(config: ServingConfig) -> ServingConfig:
    """Open what the settings name.

    Returns:
        The same settings with absolute paths, as the engine's process may stand elsewhere. Links stay
        links, so that a pack can be exchanged behind one.

    Raises:
        BadInputError: The pack is missing or damaged, the log's folder does not exist, or the port for
            metrics is taken.
    """
    try:
        EditPack.load(config.pack)
    except PackError as error:
        raise BadInputError(f"--pack {error}") from error
    paths = {"pack": config.pack.expanduser().absolute()}
    if config.decisions_log is not None:
        paths["decisions_log"] = _checked_log(config.decisions_log)
    if config.metrics_port is not None:
        _check_port(config.metrics_port)
    return config.model_copy(update=paths)


def check_named_once(llm: str, options: Sequence[str]) -> None:
    """Refuse an LLM in the wrong place.

    Raises:
        BadInputError: An option stands where the LLM should, or vLLM's option names one too.
    """
    if llm.startswith("-"):
        raise BadInputError(f"{llm}: the LLM comes first: onceedit serve LLM --pack PACK [options].")
    if "--model" in map(_name_of, options):
        raise BadInputError("--model: the LLM is named once, as the first argument.")


def check_one_engine(data_parallel_size: int) -> None:
    """Refuse to change the pack of several engines behind one server.

    Raises:
        BadInputError: There are several: vLLM passes on what the first of them answers only, and one that has
            refused the pack would go unnoticed.
    """
    if data_parallel_size > 1:
        raise BadInputError(
            f"--allow-pack-updates: there are {data_parallel_size} engines behind this server "
            "(--data-parallel-size), each with a pack of its own; start a server for each, or share a host "
            "of Ray (--plugin-host ray), whose pack `onceedit host load` changes."
        )


def find_llm(llm: str, options: Sequence[str]) -> str:
    """What vLLM is to load: the folder of a known name or a folder as it is; a hub id stays one.

    Args:
        llm: What the user typed.
        options: The options for vLLM, which may say how a hub is to be used.

    Raises:
        BadInputError: It is no model.
        ModelError: It could not be fetched.
    """
    if llm in known_models() or Path(llm).expanduser().is_dir():
        return str(resolve_model(llm))
    if not _HUB_OPTIONS & set(map(_name_of, options)):
        # Says early and in few words what is wrong; vLLM finds the files where they are then.
        resolve_model(llm)
    return llm


def _name_of(option: str) -> str:
    """As vLLM's parser reads it: ``--load_format=auto`` is ``--load-format``."""
    return option.partition("=")[0].replace("_", "-")


def _checked_log(log: Path) -> Path:
    log = log.expanduser().absolute()
    if log.is_dir():
        raise BadInputError(f"--decisions-log {log}: is a folder; name a file.")
    if not log.parent.is_dir():
        raise BadInputError(f"--decisions-log {log}: there is no folder {log.parent}; create it first.")
    return log


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise BadInputError(
                f"--metrics-port {port}: cannot be opened ({error.strerror}); choose another."
            ) from error
