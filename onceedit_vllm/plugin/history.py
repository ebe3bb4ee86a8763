"""Which packs a host has served, so that one that is started again goes on where it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from onceedit_vllm.errors import HostError
from onceedit_vllm.folders import write_file


class ServedPack(msgspec.Struct, frozen=True):
    """One pack of a host.

    Attributes:
        root: Its folder.
        digest: Of its manifest.
        base: The fingerprint of the plug-in before its edits.
        epoch: Its number at the host. It never belongs to another pack, also after a restart: requests are
            begun with it.
    """

    root: str
    digest: str
    base: str
    epoch: int


class History:
    """The packs of one host in the order in which they were activated, in a file that is always whole.

    Args:
        path: The JSON file; it need not be there yet.

    Raises:
        HostError: It is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packs: list[ServedPack] = []
        if path.exists():
            try:
                self._packs = msgspec.json.decode(path.read_bytes(), type=list[ServedPack])
            except (OSError, msgspec.MsgspecError) as error:
                raise HostError(
                    f"{path} does not say which pack this plug-in host has served ({error}); stop the host, "
                    "and start it with that pack"
                ) from error

    @property
    def active(self) -> ServedPack | None:
        """The last one; None where there was none yet."""
        return self._packs[-1] if self._packs else None

    @property
    def before(self) -> ServedPack | None:
        """The one before it."""
        return self._packs[-2] if len(self._packs) > 1 else None

    @property
    def highest_epoch(self) -> int:
        """Of all of them; 0 where there was none."""
        return max((pack.epoch for pack in self._packs), default=0)

    @property
    def digests(self) -> list[str]:
        """Of all of them."""
        return list(dict.fromkeys(pack.digest for pack in self._packs))

    def add(self, pack: ServedPack) -> None:
        """Write down that it is active from now on.

        Raises:
            OSError: It cannot be written, and nothing has changed.
        """
        self._write([*self._packs, pack])

    def take_back(self) -> None:
        """It is not, after all."""
        self._write(self._packs[:-1])

    def _write(self, packs: list[ServedPack]) -> None:
        write_file(self._path, msgspec.json.encode(packs).decode())
        self._packs = packs
