"""A plug-in host as a named actor of Ray, shared by all engines that know its name.

Ray is the control plane: it starts the host, places it, starts it again when it dies, and tells engines where
it listens. What travels at every step goes over a socket of the host's own (:mod:`.server`, :mod:`.remote`):
`benchmarks/packets.py` measures both ways, and a call of Ray takes several times as long.

The only file that imports Ray, and only when a function is called.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError, HostError, OnceEditError
from onceedit_vllm.plugin.remote import Endpoint
from onceedit_vllm.plugin.server import PlugInServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceedit_vllm.pack import EditPack

#: Of Ray, in which all hosts are.
NAMESPACE = "onceedit"
# Seconds for a question to a host that runs.
_PATIENCE = 10.0
_QUIETLY = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}


class HostFacts(NamedTuple):
    """What a host says about itself.

    Attributes:
        name: Its name.
        pack: The folder of its pack.
        digest: See :func:`manifest_digest`.
        base_fingerprint: Of the plug-in before its edits.
        num_edits: Edits in the pack.
        address: Where it listens.
        token: What an engine must show there.
        pid: Its process.
        failure: Why it does not serve; empty where it does.
        num_bytes: Of the model and its keys and values.
        engines: Of each engine what was counted, and the texts that are followed for it.
    """

    name: str
    pack: str = ""
    digest: str = ""
    base_fingerprint: str = ""
    num_edits: int = 0
    address: str = ""
    token: str = ""
    pid: int = 0
    failure: str = ""
    num_bytes: int = 0
    engines: Sequence[dict[str, Any]] = ()

    @property
    def num_texts(self) -> int:
        """Texts that are followed now."""
        return sum(engine["texts"] for engine in self.engines)


class Joined(NamedTuple):
    """How an engine came to its host.

    Attributes:
        endpoint: Where it is.
        is_own_cluster: True where no cluster of Ray was running, so that this process has started one.
    """

    endpoint: Endpoint
    is_own_cluster: bool


class HostActor:
    """What runs in the actor's process. Ray makes it anew, with the same arguments, when it has died.

    Args:
        name: Its name.
        pack: The folder of the pack, on the machine that Ray places it on.
        config: A :class:`~onceedit_vllm.config.PlugInConfig` as JSON.
        key: Names its socket file, and is its token over TCP.
    """

    def __init__(self, name: str, pack: str, config: str, key: str) -> None:
        self._facts = HostFacts(name, pack, pid=os.getpid())
        try:
            self._serve(pack, PlugInConfig.model_validate_json(config), key)
        except Exception as error:
            # Raised here, it would reach whoever asks wrapped in pages of Ray's own words.
            message = str(error) if isinstance(error, OnceEditError) else f"{type(error).__name__}: {error}"
            self._facts = self._facts._replace(failure=message)

    def _serve(self, folder: str, config: PlugInConfig, key: str) -> None:
        _pin(config.cpus)
        _be_as_nice_as_its_parent()
        from onceedit_vllm.pack import EditPack
        from onceedit_vllm.plugin.local import LocalHost

        pack = EditPack.load(folder)
        digest = manifest_digest(pack)
        address = f"ipc://{socket_folder() / key}" if config.tcp is None else f"tcp://{config.tcp}"
        token = "" if config.tcp is None else key
        self._host = LocalHost(pack, config)
        self._server = PlugInServer(self._host, address, pack=digest, token=token)
        self._server.start()
        self._facts = self._facts._replace(
            pack=str(pack.root),
            digest=digest,
            base_fingerprint=pack.manifest.base_fingerprint,
            num_edits=len(pack.edits),
            address=address,
            token=token,
        )

    def facts(self) -> dict[str, Any]:
        """A :class:`HostFacts` as a dict, of this moment."""
        facts = self._facts
        if not facts.failure:
            engines = self._server.stats()
            facts = facts._replace(num_bytes=self._host.num_bytes(), engines=engines)
        return facts._asdict()

    def end(self) -> None:
        """Stop serving, and leave no socket file behind."""
        if not self._facts.failure:
            self._server.stop()


def manifest_digest(pack: EditPack) -> str:
    """What two packs have in common only if they are the same: sha256 of the manifest with its hashes."""
    return hashlib.sha256(pack.manifest.model_dump_json().encode()).hexdigest()


def socket_folder() -> Path:
    """The folder of this user's socket files, which nobody else may enter.

    Raises:
        HostError: It is somebody else's, or open to others.
    """
    folder = Path(tempfile.gettempdir()) / f"onceedit-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise HostError(f"{folder} is not a folder of mode 0700 of this user's; remove it")
    return folder


def _pin(cpus: Sequence[int] | None) -> None:
    """Let this process, its threads of now and of later, run on these cores only, one thread each."""
    import torch

    if cpus is not None:
        for thread in Path("/proc/self/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), cpus)
            except ProcessLookupError:
                continue
            except OSError as error:
                raise BadInputError(
                    f"cpus {','.join(map(str, cpus))}: this process may not run there ({error}); the machine "
                    f"has {os.cpu_count()} cores, counted from 0"
                ) from error
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def _be_as_nice_as_its_parent() -> None:
    """Ray gives workers less right to the CPU (niceness 15), and engines wait for this one at every step.

    Taking it back needs a right that few users have; without it all stays as it is. Holds for this thread,
    and for those that it starts.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, os.getppid()))


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

    Raises:
        HostError: Ray is missing, the host cannot start, or it serves another pack.
    """
    ray = _ray()
    is_own_cluster = _connect(ray, may_start=True)
    facts = _started(ray, config.name, pack, config)
    digest = manifest_digest(pack)
    if (facts.base_fingerprint, facts.digest) != (pack.manifest.base_fingerprint, digest):
        theirs = f"{facts.pack} ({facts.num_edits} edits, base {facts.base_fingerprint[:12]})"
        ours = f"{pack.root} ({len(pack.edits)} edits, base {pack.manifest.base_fingerprint[:12]})"
        raise HostError(
            f"the plug-in host {config.name!r} serves another pack: {theirs}, and this engine {ours}; give "
            f"plugin.name another name, or stop that host with `onceedit host stop {config.name}`"
        )
    return Joined(Endpoint(facts.address, facts.token, digest), is_own_cluster)


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
            # See `_be_as_nice_as_its_parent`: here no right is needed.
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
    made = ray.remote(concurrency_groups={"admin": 2})(HostActor).options(
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
