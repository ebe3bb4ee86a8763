"""Another pack for an engine that serves: loaded beside the active one, activated between two steps."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.plugin.packs import Packs


logger = logging.getLogger("onceedit_vllm.runner")


class PackSwap:
    """Changes the pack of one engine.

    Loading takes seconds and runs on a thread of its own; what it ends with is asked for by :meth:`status`.
    Activating takes no time. All methods are called on the engine's thread, between two of its steps.

    Args:
        packs: Those of this process's host.
        root: Where the active pack was loaded from.
    """

    def __init__(self, packs: Packs, root: Path) -> None:
        self._packs = packs
        self._roots = {packs.active.number: root}
        self._active_before: list[Path] = []
        self._thread: threading.Thread | None = None
        self._loaded: int | None = None
        self._failure: str | None = None

    def load(self, pack: str) -> None:
        """Begin to load a pack.

        Raises:
            BadInputError: Another one is being loaded.
        """
        if self._thread is not None and self._thread.is_alive():
            raise BadInputError("a pack is being loaded already: wait until its status is 'loaded'")
        self._loaded = self._failure = None
        self._thread = threading.Thread(target=self._load, args=(Path(pack),), name="onceedit-load")
        self._thread.start()

    def _load(self, root: Path) -> None:
        from onceedit_vllm.pack import EditPack

        try:
            number = self._packs.load(EditPack.load(root))
            self._roots[number] = root
            self._loaded = number
        except Exception as error:  # said to whoever asks; the active pack stays
            self._failure = f"{type(error).__name__}: {error}"

    def status(self) -> dict[str, Any]:
        """What is active, and the ``state`` of the last :meth:`load`: idle, loading, loaded or failed.

        ``waiting`` is the pack that is loaded and not yet active.
        """
        self.tick()
        active = self._packs.active
        return {
            "state": self._state(),
            "error": self._failure,
            "waiting": None if self._loaded is None else str(self._roots[self._loaded]),
            "epoch": active.number,
            "pack": str(self._roots[active.number]),
            "edits": len(active.pack.edits),
            "packs_in_memory": self._packs.tally()["packs"],
        }

    def _state(self) -> str:
        if self._thread is not None and self._thread.is_alive():
            return "loading"
        return "failed" if self._failure else "loaded" if self._loaded else "idle"

    def activate(self, pack: str | None = None) -> int:
        """Let new requests have the pack that was loaded.

        Args:
            pack: Only if it is this one, named as it was for :meth:`load`; None: whichever.

        Returns:
            Its number.

        Raises:
            BadInputError: None is loaded and waiting, or another one is.
        """
        if self._loaded is None:
            raise BadInputError(f"no pack is loaded and waiting to be activated: it is {self._state()}")
        if pack is not None and self._roots[self._loaded] != Path(pack):
            raise BadInputError(
                f"{pack} is not the pack that was loaded last: that is {self._roots[self._loaded]}"
            )
        number, self._loaded = self._loaded, None
        self._active_before.append(self._roots[self._packs.active.number])
        self._packs.activate(number)
        return number

    def tick(self) -> None:
        """Once a step of the engine: let go of earlier packs whose time is over. Never raises.

        Elsewhere that is looked at only where a text of theirs ends, and one that never does would keep its
        pack for good.
        """
        try:
            self._packs.retire()
        except Exception as error:
            logger.warning("onceedit: an earlier pack cannot be let go of", exc_info=error)

    def rollback(self) -> None:
        """Begin to load the pack that was active before, to be activated as any other.

        Raises:
            BadInputError: There was none.
        """
        if not self._active_before:
            raise BadInputError("no other pack was active before in this engine")
        self.load(str(self._active_before[-1]))
