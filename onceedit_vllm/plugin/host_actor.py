"""What runs in the process of a plug-in host: the plug-in, its socket, and the pack that it serves.

No word of Ray is in it: :mod:`.ray_host` makes an actor of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError, HostError, OnceEditError
from onceedit_vllm.plugin.history import History, ServedPack
from onceedit_vllm.plugin.server import PlugInServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceedit_vllm.pack import EditPack


# Of a thread that loads a pack beside those that serve.
_NICENESS, _LOCK_SECONDS = 10, 1e-4
_NICEST = 19  # of Linux


class HostFacts(NamedTuple):
    """What a host says about itself.

    Attributes:
        name: Its name.
        pack: The folder of the pack that new requests get.
        digest: See :func:`manifest_digest`.
        base_fingerprint: Of the plug-in before its edits.
        num_edits: Edits in the pack.
        address: Where it listens.
        token: What an engine must show there.
        pid: Its process.
        failure: Why it does not serve; empty where it does.
        num_bytes: Of the models and their keys and values.
        engines: Of each engine what was counted, and the texts that are followed for it.
        epoch: The number of its pack.
        num_packs: In memory: the active one, those that texts under way still need, and one being tried.
        swap: What it is doing to serve another pack; empty where that is nothing.
        digests: Of all packs that it has served; engines that were started with one of them may attach.
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
    epoch: int = 0
    num_packs: int = 0
    swap: str = ""
    digests: Sequence[str] = ()

    @property
    def num_texts(self) -> int:
        """Texts that are followed now."""
        return sum(engine["texts"] for engine in self.engines)


class HostActor:
    """What runs in the actor's process. Ray makes it anew, with the same arguments, when it has died.

    Args:
        name: Its name.
        pack: The folder of the pack, on the machine that Ray places it on. One that has died and was serving
            another pack by then goes on with that.
        config: A :class:`~onceedit_vllm.config.PlugInConfig` as JSON.
        key: Names its socket file and the file of its :class:`~onceedit_vllm.plugin.history.History`, and is
            its token over TCP.
    """

    def __init__(self, name: str, pack: str, config: str, key: str) -> None:
        self._facts = HostFacts(name, pack, pid=os.getpid())
        self._swapping, self._swap_stage = threading.Lock(), ""
        self._file: Path | None = None
        try:
            self._serve(pack, PlugInConfig.model_validate_json(config), key)
        except Exception as error:
            # Raised here, it would reach whoever asks wrapped in pages of Ray's own words.
            self._facts = self._facts._replace(failure=_reason(error))

    def _serve(self, folder: str, config: PlugInConfig, key: str) -> None:
        _pin(config.cpus)
        _be_as_nice_as_its_parent()
        from onceedit_vllm.pack import EditPack
        from onceedit_vllm.plugin.local import LocalHost

        self._file = socket_folder() / f"{key}.json"
        self._history = History(self._file)
        before = self._history.active
        pack = EditPack.load(folder if before is None else before.root)
        now = self._as_now(pack)
        address = f"ipc://{socket_folder() / key}" if config.tcp is None else f"tcp://{config.tcp}"
        token = "" if config.tcp is None else key
        self._host = LocalHost(pack, config, now.epoch, self._history.highest_epoch)
        packs = {*self._history.digests, now.digest}
        self._server = PlugInServer(self._host, address, packs=packs, token=token)
        self._server.start()
        if now != before:
            self._history.add(now)
        self._facts = self._facts._replace(address=address, token=token)

    def _as_now(self, pack: EditPack) -> ServedPack:
        """The pack to begin with: it has the number that it had, unless its folder holds another by now."""
        before, now = self._history.active, _served(pack, 1)
        if before is None:
            return now
        if before.base != now.base:
            raise BadInputError(
                f"{pack.root} holds an edit of another base model than when this host was started; stop it, "
                "and start it and its engines anew"
            )
        is_same = before.digest == now.digest
        return before if is_same else _served(pack, self._history.highest_epoch + 1)

    def facts(self) -> dict[str, Any]:
        """A :class:`HostFacts` as a dict, of this moment."""
        facts, served = self._facts, None if self._facts.failure else self._history.active
        if served is not None:
            facts = facts._replace(
                pack=served.root,
                digest=served.digest,
                base_fingerprint=served.base,
                num_edits=len(self._host.active.pack.edits),
                num_bytes=self._host.num_bytes(),
                engines=self._server.stats(),
                epoch=served.epoch,
                num_packs=self._host.tally()["packs"],
                swap=self._swap_stage,
                digests=self._history.digests,
            )
        return facts._asdict()

    def load(self, folder: str) -> str:
        """Load a pack beside the active one, try it, and let new requests have it.

        The active one is served meanwhile, and stays where anything is wrong with the other.

        Args:
            folder: The pack's, on the machine of this process.

        Returns:
            What is wrong; empty where it is active now.
        """
        return self._swap(lambda: self._load(folder))

    def rollback(self) -> str:
        """Let new requests have the pack that was active before; done twice, it is as it was.

        Returns:
            What is wrong; empty where it is active now.
        """
        return self._swap(self._go_back)

    def _swap(self, act: Callable[[], None]) -> str:
        """One at a time. Raised here, it would reach whoever asks in Ray's own words."""
        if self._facts.failure:
            return f"it does not serve: {self._facts.failure}"
        if not self._swapping.acquire(blocking=False):
            return f"it is {self._swap_stage or 'changing its pack'} at the moment; try again afterwards"
        try:
            with _out_of_the_way() as pool:
                pool.submit(act).result()
        except Exception as error:
            return _reason(error)
        finally:
            self._swap_stage = ""
            self._swapping.release()
        return ""

    def _load(self, folder: str, digest: str | None = None) -> None:
        from onceedit_vllm.pack import EditPack

        self._swap_stage = f"reading {folder}"
        pack = EditPack.load(folder)
        if digest is not None and manifest_digest(pack) != digest:
            raise BadInputError(f"{folder} holds another pack than when it was active")
        self._swap_stage = f"loading and trying {pack.root}"
        number = self._host.load(pack)
        self._activate(_served(pack, number))

    def _go_back(self) -> None:
        before = self._history.before
        if before is None:
            raise BadInputError("no other pack was active before")
        if self._host.find(before.epoch) is not None:
            # For texts under way it was kept: there need not be room for it once more.
            with suppress(BadInputError):  # their last one has ended just now
                return self._activate(before)
        return self._load(before.root, before.digest)

    def _activate(self, pack: ServedPack) -> None:
        """Written down first: nobody has heard of a pack that a restart would forget."""
        self._swap_stage = f"activating {pack.root}"
        self._history.add(pack)
        try:
            self._server.activate(pack.epoch, pack.digest)
        except Exception:
            self._history.take_back()
            raise

    def end(self) -> None:
        """Stop serving for good, and leave no file behind."""
        if not self._facts.failure:
            self._server.stop()
        if self._file is not None:
            self._file.unlink(missing_ok=True)


@contextmanager
def _out_of_the_way() -> Iterator[ThreadPoolExecutor]:
    """A thread that gives way to those that serve.

    It gets a tenth of a busy core, and the interpreter's lock for a tenth of a millisecond at a time: a step
    takes that lock hundreds of times, and would wait for 5 ms each.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_LOCK_SECONDS)
    try:
        with ThreadPoolExecutor(1, "onceedit-load", _lower_priority) as pool:
            yield pool
    finally:
        sys.setswitchinterval(before)


def _lower_priority() -> None:
    """Of this thread alone, and of those that it starts; below those that serve, whatever theirs is."""
    thread = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
    with suppress(OSError):
        if niceness <= _NICEST:
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
        else:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _served(pack: EditPack, epoch: int) -> ServedPack:
    return ServedPack(str(pack.root), manifest_digest(pack), pack.manifest.base_fingerprint, epoch)


def _reason(error: Exception) -> str:
    """Our own errors say what to do."""
    return str(error) if isinstance(error, OnceEditError) else f"{type(error).__name__}: {error}"


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
    """Undo the niceness of 15 that Ray gives its workers: beside a busy LLM it leaves a thirtieth of a core.

    Where this process may not, it stays; `RAY_worker_niceness=0 ray start` is the way there.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, os.getppid())
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
