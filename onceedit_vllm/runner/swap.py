"""Another pack for an engine that serves: loaded beside the active one, activated between two steps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.plugin.packs import Packs


class PackSwap:
    """Changes the pack of one engine.

    Loading takes seconds and runs on a thread of its own; what it ends with is asked for by :meth:`status`.
    Activating takes no time, and must come between two steps of the engine.

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
        """What is active, and the ``state`` of the last :meth:`load`: idle, loading, loaded or failed."""
        active = self._packs.active
        return {
            "state": self._state(),
            "error": self._failure,
            "epoch": active.number,
            "pack": str(self._roots[active.number]),
            "edits": len(active.pack.edits),
            "packs_in_memory": self._packs.tally()["packs"],
        }

    def _state(self) -> str:
        if self._thread is not None and self._thread.is_alive():
            return "loading"
        return "failed" if self._failure else "loaded" if self._loaded else "idle"

    def activate(self) -> int:
        """Let new requests have the pack that was loaded.

        Returns:
            Its number.

        Raises:
            BadInputError: None is loaded and waiting.
        """
        if self._loaded is None:
            raise BadInputError(f"no pack is loaded and waiting to be activated: {self.status()}")
        number, self._loaded = self._loaded, None
        self._active_before.append(self._roots[self._packs.active.number])
        self._packs.activate(number)
        return number

    def rollback(self) -> None:
        """Begin to load the pack that was active before, to be activated as any other.

        Raises:
            BadInputError: There was none.
        """
        if not self._active_before:
            raise BadInputError("no other pack was active before in this engine")
        self.load(str(self._active_before[-1]))
