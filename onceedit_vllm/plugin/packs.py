"""The packs that a host has loaded, of which one is active."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.epoch import Epoch
from onceedit_vllm.plugin.room import refuse_without_room

if TYPE_CHECKING:
    from onceedit_vllm.config import PlugInConfig
    from onceedit_vllm.pack import EditPack

#: Seconds after which texts that were begun with an earlier pack are read with the active one.
_RETIRE_SECONDS = 600.0


class Follower(Protocol):
    """Holds texts that were begun with a pack."""

    def prepare(self, epoch: Epoch) -> None:
        """Make what texts of a pack will need, before it is activated; on the thread that has loaded it."""

    def num_texts(self, epoch: int) -> int:
        """How many of a pack."""

    def keep(self, epochs: Collection[int]) -> None:
        """Forget those of all other packs."""


class Packs:
    """Loads packs beside the active one, and lets go of those that are not needed any more.

    Args:
        pack: The first one.
        config: Device, dtype, longest text and memory.
        number: The first one's.
        highest: The highest number that was ever given at this host; later packs have higher ones.

    Raises:
        ModelError: The model cannot be loaded or cannot be a plug-in.
    """

    def __init__(self, pack: EditPack, config: PlugInConfig, number: int = 1, highest: int = 1) -> None:
        self._config = config
        self._epochs = {number: Epoch(number, pack, config)}
        self._since = {number: time.monotonic()}  # when each was last active
        self._active = number
        self._numbers = max(number, highest)
        self._loading, self._changing = threading.Lock(), threading.Lock()
        self._followers: WeakSet[Follower] = WeakSet()

    @property
    def active(self) -> Epoch:
        """The pack that new requests get."""
        return self._epochs[self._active]

    def watch(self, follower: Follower) -> None:
        """Ask it, before a pack is let go of, whether it needs the pack. Held weakly."""
        with self._changing:
            self._followers.add(follower)

    def load(self, pack: EditPack) -> int:
        """Load a pack beside the active one, in place of one that was loaded and never activated.

        May run on a thread of its own.

        Returns:
            Its number, for :meth:`activate`.

        Raises:
            BadInputError: It is of another base model, or there is no room for two.
            ModelError: The model cannot be loaded, cannot be a plug-in, or has nothing to say.
        """
        with self._loading:
            self._refuse_other_base(pack)
            self._keep(lambda number: number in self._since)
            refuse_without_room(pack.model_dir, self._config, self.active.runtime.device)
            self._numbers += 1
            epoch = Epoch(self._numbers, pack, self._config)
            epoch.refuse_speechless()
            self._admit(epoch)
            return epoch.number

    def _admit(self, epoch: Epoch) -> None:
        """For all engines, or not at all: the thread that serves must meet nothing that it has to make."""
        with self._changing:
            self._epochs = {**self._epochs, epoch.number: epoch}
        try:
            for follower in self._all_followers():
                follower.prepare(epoch)
        except Exception:
            self._keep(lambda number: number != epoch.number)
            raise

    def activate(self, number: int) -> None:
        """Let new requests have a pack that was loaded; call it on the thread that takes answers.

        Raises:
            BadInputError: There is none of this number.
        """
        if number not in self._epochs:
            raise BadInputError(f"no pack number {number} is loaded here; loaded are {sorted(self._epochs)}")
        self._since[self._active] = time.monotonic()
        self._active = number
        self.retire()

    def find(self, number: int | None) -> Epoch | None:
        """A pack by its number, the active one for None; None where it is not loaded any more."""
        return self.active if number is None else self._epochs.get(number)

    def retire(self) -> None:
        """Let go of packs that were active, once no text needs them, or after a deadline.

        On the thread that takes answers, now and then: the deadline passes while nothing happens.
        """
        followers = self._all_followers()
        gone = [number for number in self._since if self._is_over(number, followers)]
        for number in gone:
            del self._since[number]
        if gone:
            self._keep(lambda number: number not in gone)
        for follower in followers:
            # Also what an engine that attached just then has made for a pack that was let go of meanwhile.
            follower.keep(self._epochs)
        self._since[self._active] = time.monotonic()

    def _is_over(self, number: int, followers: Sequence[Follower]) -> bool:
        if number == self._active:
            return False
        is_late = time.monotonic() - self._since[number] > _RETIRE_SECONDS
        return is_late or not any(follower.num_texts(number) for follower in followers)

    def _all_followers(self) -> list[Follower]:
        """Engines attach on another thread."""
        with self._changing:
            return list(self._followers)

    def _keep(self, is_kept: Callable[[int], bool]) -> None:
        """Let go of all others. Packs are added on one thread and let go of on another."""
        with self._changing:
            self._epochs = {number: epoch for number, epoch in self._epochs.items() if is_kept(number)}

    def num_bytes(self) -> int:
        """Bytes of all models, and of the keys and values of their texts."""
        runtimes = [epoch.runtime for epoch in self._epochs.values()]
        weights: int = sum(weight.nbytes for runtime in runtimes for weight in runtime.model.parameters())
        return weights + sum(runtime.num_bytes() for runtime in runtimes)

    def tally(self) -> dict[str, int]:
        """States of all packs together, by name."""
        runtimes = [epoch.runtime for epoch in self._epochs.values()]
        return {
            "epoch": self._active,
            "packs": len(runtimes),
            "kv_bytes": sum(runtime.num_bytes() for runtime in runtimes),
            "kv_free_tokens": sum(runtime.num_free_tokens() for runtime in runtimes),
            "reused_tokens": sum(runtime.num_reused_tokens() for runtime in runtimes),
        }

    def _refuse_other_base(self, pack: EditPack) -> None:
        ours, other = self.active.pack.manifest, pack.manifest
        if (ours.base_fingerprint, ours.weight_token_id) != (other.base_fingerprint, other.weight_token_id):
            raise BadInputError(
                f"pack {pack.root} is an edit of another base model ({other.base_model}) than the active "
                f"pack ({ours.base_model}): start the engine anew with it, or edit the same plug-in"
            )
