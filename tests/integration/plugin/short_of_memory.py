"""What a host does where the system gives it no more memory: run in processes that set themselves a limit."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import Any

import psutil

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import OnceEditError
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin.host_actor import HostActor
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Append, Open
from onceedit_vllm.plugin.wire import VocabularyBytes, decode_request

MIB = 2**20
#: Takes no memory worth speaking of, and more than is left.
SMALL = PlugInConfig(device="cpu", kv_cache_bytes=4 * MIB, max_context=64)
LARGE = SMALL.model_copy(update={"kv_cache_bytes": 768 * MIB})
#: Left of the address space: enough for all but the keys and values.
_LEFT = 256 * MIB


def _limit() -> None:
    """From now on this process gets little more memory; a real limit, the kernel's."""
    most = psutil.Process().memory_info().vms + _LEFT
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _unlimit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _mib() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().vms // MIB)


def _refusal_of(root: Path, config: PlugInConfig) -> str:
    try:
        LocalHost(EditPack.load(root), config)
    except OnceEditError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def start(root: Path) -> dict[str, Any]:
    """A local host that does not fit, then one that does, within the same limit."""
    LocalHost(EditPack.load(root), SMALL)  # what libraries take once
    before = _mib()
    _limit()
    return {
        "large": _refusal_of(root, LARGE),
        "grown_mib": _mib() - before,
        "small": _refusal_of(root, SMALL),
    }


def load(root: Path, vocabulary: bytes, step: bytes) -> dict[str, Any]:
    """A second pack beside an active one that answers meanwhile; once more when there is memory again."""
    import msgspec

    host = LocalHost(EditPack.load(root), LARGE)
    client = host.attach(msgspec.msgpack.decode(vocabulary, type=VocabularyBytes).read())
    request: Any = decode_request(step)
    (opened,) = request.events
    assert isinstance(opened, Open)
    client.send([opened])
    states = [client.take([(opened.handle, 0)]).of[0].state.name]
    before, bytes_before = _mib(), host.num_bytes()
    _limit()
    try:
        host.load(EditPack.load(root))
        error = ""
    except OnceEditError as caught:
        error = f"{type(caught).__name__}: {caught}"
    grown, held, tally = _mib() - before, host.num_bytes() - bytes_before, host.tally()
    client.send([Append(opened.handle, 0, [5])])
    states.append(client.take([(opened.handle, 1)]).of[0].state.name)
    _unlimit()
    host.activate(host.load(EditPack.load(root)))
    client.send([Append(opened.handle, 1, [6])])
    states.append(client.take([(opened.handle, 2)]).of[0].state.name)
    return {
        "error": error,
        "grown_mib": grown,
        "held": held,
        "packs": tally["packs"],
        "epoch": tally["epoch"],
        "states": states,
        "epoch_afterwards": host.tally()["epoch"],
    }


def actor(root: Path) -> dict[str, Any]:
    """What an actor says of itself, and what it leaves behind."""
    LocalHost(EditPack.load(root), SMALL)
    before = _mib()
    _limit()
    made = HostActor("short", str(root), LARGE.model_dump_json(), "f" * 16)
    facts = made.facts()
    made.end()
    return {"failure": facts["failure"], "address": facts["address"], "grown_mib": _mib() - before}
