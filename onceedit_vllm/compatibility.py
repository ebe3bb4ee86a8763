"""Which vLLM this package works with, and how that is known."""

from __future__ import annotations

from itertools import groupby
from typing import Literal, NamedTuple

State = Literal["validated", "unverified", "refused"]
Device = Literal["cpu", "gpu"]
Runner = Literal["V1", "V2"]


class Cell(NamedTuple):
    """One combination of vLLM, device and model runner.

    Attributes:
        vllm: The minor release, ``"0.32"``.
        device: What the LLM runs on; ``gpu`` is CUDA.
        runner: vLLM's model runner.
        state: `validated`: the engine tests passed on a machine that a committed result names;
            `unverified`: written for, never run; `refused`: known not to work.
        why: How this is known, a clause without a full stop.
        result: The committed result behind `validated`, a file of ``benchmarks/results``.
    """

    vllm: str
    device: Device
    runner: Runner
    state: State
    why: str
    result: str | None = None

    @property
    def name(self) -> str:
        """What people call it: ``vLLM 0.32, CPU, V1``."""
        return f"vLLM {self.vllm}, {self.device.upper()}, {self.runner}"


_RESULT_32 = "compatibility-0.32-cpu.json"
_NATIVE = "the engine tests passed"
_INTERPRETED = "the engine tests passed, with vLLM's kernels in Triton's interpreter"
_NO_GPU = "never run, no GPU was at hand"
_UNRUN = "never run; the processors' interfaces are those of 0.32, byte for byte"
_NO_BUILD = (
    "never run, there is no build for CPUs; the processors' interfaces are those of 0.32, byte for byte"
)

#: Every combination that is spoken of. ``benchmarks/compatibility.py`` makes the results.
CELLS: tuple[Cell, ...] = (
    Cell("0.31", "cpu", "V1", "unverified", _UNRUN),
    Cell("0.31", "cpu", "V2", "unverified", _UNRUN),
    Cell("0.31", "gpu", "V1", "unverified", _NO_GPU),
    Cell("0.31", "gpu", "V2", "unverified", _NO_GPU),
    Cell("0.32", "cpu", "V1", "validated", _NATIVE, _RESULT_32),
    Cell("0.32", "cpu", "V2", "validated", _INTERPRETED, _RESULT_32),
    Cell("0.32", "gpu", "V1", "unverified", _NO_GPU),
    Cell("0.32", "gpu", "V2", "unverified", _NO_GPU),
    Cell("0.33", "cpu", "V1", "unverified", _NO_BUILD),
    Cell("0.33", "cpu", "V2", "unverified", _NO_BUILD),
    Cell("0.33", "gpu", "V1", "unverified", _NO_GPU),
    Cell("0.33", "gpu", "V2", "unverified", _NO_GPU),
)


def minor_of(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: ``"0.33.1+cu130"`` -> ``(0, 33)``."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def cell_of(version: str, device: str, runner: str) -> Cell | None:
    """The cell of an installed vLLM, None where the table does not speak of it.

    Args:
        version: vLLM's version.
        device: vLLM's device type, ``cpu`` or ``cuda``.
        runner: ``V1`` or ``V2``.
    """
    wanted = (minor_of(version), "gpu" if device == "cuda" else device, runner)
    found = (cell for cell in CELLS if (minor_of(cell.vllm), cell.device, cell.runner) == wanted)
    return next(found, None)


def supported_range() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The minors that are not refused everywhere: from the first up to, not including, the second."""
    minors = sorted({minor_of(cell.vllm) for cell in CELLS if cell.state != "refused"})
    major, last = minors[-1]
    return minors[0], (major, last + 1)


def as_markdown() -> str:
    """The table as the README shows it, one line per release and device."""
    lines = ["| vLLM | device | V1 | V2 | how it is known |", "|---|---|---|---|---|"]
    for (vllm, device), group in groupby(CELLS, key=lambda cell: (cell.vllm, cell.device)):
        cells = list(group)
        states = " | ".join(_state_as_markdown(cell) for cell in cells)
        lines.append(f"| {vllm} | {device.upper()} | {states} | {_reasons(cells)} |")
    return "\n".join(lines) + "\n"


def _state_as_markdown(cell: Cell) -> str:
    return f"[{cell.state}](benchmarks/results/{cell.result})" if cell.result else cell.state


def _reasons(cells: list[Cell]) -> str:
    """What holds for all runners is said once."""
    if len({cell.why for cell in cells}) == 1:
        return cells[0].why
    return "; ".join(f"{cell.runner}: {cell.why}" for cell in cells)
