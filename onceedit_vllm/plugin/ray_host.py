"""A plug-in host as a named actor of Ray, shared by all engines that know its name.

Ray is the control plane: it starts the host, places it, starts it again when it dies, and tells engines where
it listens. What travels at every step goes over a socket of the host's own (:mod:`.server`, :mod:`.remote`):
`benchmarks/packets.py` measures both ways, and a call of Ray takes several times as long.

The only file that imports Ray, and only when a function is called.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.plugin.host_actor import HostActor, HostFacts, manifest_digest, socket_folder
from onceedit_vllm.plugin.remote import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceedit_vllm.config import PlugInConfig
    from onceedit_vllm.pack import EditPack

__all__ = ["HostFacts", "Joined", "find", "join", "list_hosts", "load", "rollback", "start", "stop"]

#: Of Ray, in which all hosts are.
NAMESPACE = "onceedit"
# Seconds for a question to a host that runs.
_PATIENCE = 10.0
# Seconds between two looks at what a host is doing.
_GLANCE = 0.5
_QUIETLY = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}


class Joined(NamedTuple):
    """How an engine came to its host.

    Attributes:
        endpoint: Where it is.
        is_own_cluster: True where no cluster of Ray was running, so that this process has started one.
        other_pack: The folder of the pack that the host serves in place of the engine's own; None: that one.
    """

    endpoint: Endpoint
    is_own_cluster: bool
    other_pack: str | None = None


def start(name: str, pack: EditPack, config: PlugInConfig) -> HostFacts:
    """Start a host that outlives this process, in the cluster that is running.

    Raises:
        BadInputError: The name is taken.
        HostError: Ray is missing or not running, or the host cannot start.
    """
    ray = _ray()
    _connect(ray)
    if name in _names(ray):
        raise BadInputError(
            f"a plug-in host of the name {name!r} is running already; choose another --name, or stop that "
            f"one with `onceedit host stop {name}`"
        )
    return _started(ray, name, pack, config)


def join(pack: EditPack, config: PlugInConfig) -> Joined:
    """Find the host of that name, or start it. Of many who do so at the same time, one starts it.

    The pack decides whether they belong together: it must be one that the host serves or has served. What
    requests get is the host's to say, so that an engine that is started anew, with the settings it always
    had, answers as the others do.

    Raises:
        HostError: Ray is missing, the host cannot start, or it has never served the pack.
    """
    ray = _ray()
    is_own_cluster = _connect(ray, may_start=True)
    facts = _started(ray, config.name, pack, config)
    digest = manifest_digest(pack)
    if facts.base_fingerprint != pack.manifest.base_fingerprint or digest not in facts.digests:
        theirs = f"{facts.pack} ({facts.num_edits} edits, base {facts.base_fingerprint[:12]})"
        ours = f"{pack.root} ({len(pack.edits)} edits, base {pack.manifest.base_fingerprint[:12]})"
        raise HostError(
            f"the plug-in host {config.name!r} serves another pack: {theirs}, and this engine {ours}; give "
            f"plugin.name another name, let the host serve this pack with `onceedit host load {pack.root} "
            f"--name {config.name}`, or stop it with `onceedit host stop {config.name}`"
        )
    other = None if facts.digest == digest else facts.pack
    return Joined(Endpoint(facts.address, facts.token, digest), is_own_cluster, other)


def load(name: str, pack: EditPack, progress: Callable[[str], None] | None = None) -> HostFacts:
    """Let a host serve another pack: loaded beside its own, tried, and activated. It serves meanwhile.

    Args:
        name: The host's.
        pack: The pack, in the same folder on the host's machine.
        progress: Told what the host is doing.

    Raises:
        BadInputError: There is no host of that name.
        HostError: Ray is missing or not running, or the pack cannot be served; the host's own stays.
    """
    return _swap(name, lambda actor: actor.load, str(pack.root), progress=progress)


def rollback(name: str, progress: Callable[[str], None] | None = None) -> HostFacts:
    """Let a host serve the pack that it has served before its present one.

    Raises:
        BadInputError: There is no host of that name.
        HostError: Ray is missing or not running, or there is no pack to go back to; the host's own stays.
    """
    return _swap(name, lambda actor: actor.rollback, progress=progress)


def _swap(
    name: str, method: Callable[[Any], Any], *arguments: str, progress: Callable[[str], None] | None
) -> HostFacts:
    ray = _ray()
    _connect(ray)
    _refuse_unknown(ray, name)
    actor = ray.get_actor(name, namespace=NAMESPACE)
    try:
        wrong = method(actor).options(concurrency_group="swap").remote(*arguments)
        stage = ""
        while not ray.wait([wrong], timeout=_GLANCE)[0]:
            before, stage = stage, _facts_of_old(ray, name).swap
            if progress is not None and stage not in ("", before):
                progress(stage)
        reason = ray.get(wrong, timeout=_PATIENCE)
    except ray.exceptions.RayError as error:
        reason = f"it does not answer ({type(error).__name__}); see `onceedit host list`"
    facts = _facts_of_old(ray, name)
    if reason:
        raise HostError(f"the plug-in host {name!r} goes on with {facts.pack or 'its pack'}: {reason}")
    return facts


def list_hosts() -> list[HostFacts]:
    """All hosts of the running cluster, by name.

    Raises:
        HostError: Ray is missing or not running.
    """
    ray = _ray()
    _connect(ray)
    return [_facts_of_old(ray, name) for name in sorted(_names(ray))]


def find(name: str) -> HostFacts:
    """One host of the running cluster.

    Raises:
        BadInputError: There is none of that name.
        HostError: Ray is missing or not running.
    """
    ray = _ray()
    _connect(ray)
    _refuse_unknown(ray, name)
    return _facts_of_old(ray, name)


def stop(name: str) -> None:
    """End a host for good. Engines that use it go on without.

    Raises:
        BadInputError: There is none of that name.
        HostError: Ray is missing or not running.
    """
    ray = _ray()
    _connect(ray)
    _refuse_unknown(ray, name)
    actor = ray.get_actor(name, namespace=NAMESPACE)
    with suppress(ray.exceptions.RayError):  # one that hangs is ended all the same
        ray.get(actor.end.options(concurrency_group="admin").remote(), timeout=_PATIENCE)
    ray.kill(actor, no_restart=True)
    until = time.monotonic() + _PATIENCE
    while name in _names(ray) and time.monotonic() < until:
        time.sleep(0.05)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise HostError(
            "the Ray host needs Ray, which is not installed: pip install 'onceedit-vllm[ray]'"
        ) from error
    return ray


def _connect(ray: Any, *, may_start: bool = False) -> bool:
    """Be in a cluster; True where it had to be started, and ends with this process."""
    if ray.is_initialized():
        return False
    _refuse_deaf_cluster()
    # Of engines that find none at the same time one starts it, and the others find that one.
    with FileLock(socket_folder() / "cluster.lock"):
        try:
            ray.init(address="auto", **_QUIETLY)
        except ConnectionError as error:
            if not may_start:
                raise HostError(
                    "no cluster of Ray is running here; start one with `ray start --head`"
                ) from error
            # A plug-in answers at every step of the LLM; Ray would let everything else go first.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(address="local", include_dashboard=False, **_QUIETLY)
            return True
    return False


def _refuse_deaf_cluster() -> None:
    """Of an address where nobody listens Ray would ask for minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise HostError(
            f"no cluster of Ray answers at RAY_ADDRESS={address} ({error}); correct it, or unset it to find "
            "the cluster of this machine"
        ) from error


def _names(ray: Any) -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]


def _refuse_unknown(ray: Any, name: str) -> None:
    names = _names(ray)
    if name not in names:
        known = ", ".join(sorted(names)) or "none is running"
        raise BadInputError(f"there is no plug-in host of the name {name!r}; known: {known}")


def _actor(ray: Any, name: str, pack: EditPack, config: PlugInConfig) -> Any:
    """The actor of that name: the one that is there, or a new one."""
    made = ray.remote(concurrency_groups={"admin": 2, "swap": 2})(HostActor).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",  # whoever started it, others may have joined
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=0,  # it is pinned where that matters, and must find a place beside the shards
        num_gpus=config.num_gpus,
    )
    return made.remote(name, str(pack.root), config.model_dump_json(), secrets.token_hex(8))


def _started(ray: Any, name: str, pack: EditPack, config: PlugInConfig) -> HostFacts:
    """Wait until it serves. A new one that cannot is ended, so that its name is free again."""
    is_new = name not in _names(ray)
    actor = _actor(ray, name, pack, config)
    try:
        facts = _ask_patiently(ray, actor, config.attach_deadline)
        if not facts.failure:
            return facts
        reason = f"it cannot serve: {facts.failure}"
    except ray.exceptions.RayError as error:
        reason = (
            f"it does not start ({type(error).__name__}: {str(error).strip()}); does Ray have the "
            f"{config.num_gpus:g} GPUs for it? See `ray status`"
        )
    if is_new:
        ray.kill(actor, no_restart=True)
    raise HostError(f"the plug-in host {name!r}: {reason}")


def _ask_patiently(ray: Any, actor: Any, seconds: float) -> HostFacts:
    """Also where it is being started again at the moment."""
    until = time.monotonic() + seconds
    while True:
        try:
            return _ask(ray, actor, max(1.0, until - time.monotonic()))
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.2)


def _facts_of_old(ray: Any, name: str) -> HostFacts:
    try:
        return _ask(ray, ray.get_actor(name, namespace=NAMESPACE), _PATIENCE)
    except (ray.exceptions.RayError, ValueError) as error:
        return HostFacts(name, failure=f"it does not answer ({type(error).__name__})")


def _ask(ray: Any, actor: Any, seconds: float) -> HostFacts:
    facts = actor.facts.options(concurrency_group="admin").remote()
    return HostFacts(**ray.get(facts, timeout=seconds))
