"""An engine's end of the plug-in, wherever the settings want the plug-in to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.config import ServingConfig
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import PlugInClient, Vocabulary
    from onceedit_vllm.plugin.packs import Packs


def refuse_dense_elsewhere(config: ServingConfig) -> None:
    """Refuse a dense kind whose plug-in runs in another process.

    Raises:
        BadInputError: It needs all that the plug-in says at every step, and that is not sent.
    """
    if config.plugin.host != "local" and config.alignment.dense_kind is not None:
        raise BadInputError(
            f'alignment.kind "{config.alignment.kind}" needs all that the plug-in says at every step: serve '
            'it with plugin={"host": "local"}, or take kind "textual".'
        )


def attach(
    pack: EditPack, config: ServingConfig, vocabulary: Vocabulary, observe: Callable[[float], None]
) -> tuple[PlugInClient, Packs | None]:
    """Start the plug-in, or find it: the one place that chooses.

    Args:
        pack: The pack to serve.
        config: Says where.
        vocabulary: The LLM's.
        observe: Told the seconds of every step of a plug-in in this process.

    Returns:
        The client, and the packs where they are in this process.

    Raises:
        OnceEditError: The host cannot be started or attached to.
    """
    if config.plugin.host == "local":
        from onceedit_vllm.plugin.local import LocalHost

        host = LocalHost(pack, config.plugin)
        return host.attach(vocabulary, config.threshold, observe), host
    return _join(pack, config, vocabulary), None


def _join(pack: EditPack, config: ServingConfig, vocabulary: Vocabulary) -> PlugInClient:
    from vllm.logger import init_logger

    from onceedit_vllm.plugin.ray_host import join
    from onceedit_vllm.plugin.remote import RemoteClient

    joined = join(pack, config.plugin)
    init_logger("vllm.onceedit").info(
        "onceedit: the plug-in host %s listens at %s%s",
        config.plugin.name,
        joined.endpoint.address,
        "; no cluster of Ray was running, so this engine has started one, which ends with it"
        if joined.is_own_cluster
        else f"; it ends with its cluster, or by `onceedit host stop {config.plugin.name}`",
    )
    if joined.other_pack is not None:
        init_logger("vllm.onceedit").warning(
            "onceedit: this engine was started with pack %s, but its plug-in host %s serves %s by now "
            "(`onceedit host load`): that is what requests get",
            pack.root,
            config.plugin.name,
            joined.other_pack,
        )
    return RemoteClient(joined.endpoint, vocabulary, config.threshold, config.plugin)
