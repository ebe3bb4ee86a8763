"""A process that writes one folder again and again, and dies where it is told to.

It reads lines of JSON, ``[TARGET, [STEP, ...]]``, on standard input. For each STEP a child writes a new
version of TARGET (files that all say the version) and is killed before its STEP-th call that touches a
file; 0 lets it live. It answers with one line, a list of what was seen after each child: whether it
lived, and what is at TARGET then: the version, null, or "half".
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from onceedit_vllm.folders import written_folder

FILES = ("a", "sub/b", "c")
CALLS = ("os.", "open", "shutil.", "fcntl.")


def write_version(target: Path, version: str) -> None:
    """Write a folder whose files all hold `version`."""
    with written_folder(target, replace=True) as folder:
        (folder / "sub").mkdir()
        for name in FILES:
            (folder / name).write_text(version)


def read_version(target: Path) -> str | None:
    """The version that all files hold; "half" where they do not agree or one is missing."""
    if not target.exists():
        return None
    found = {_text_of(target / name) for name in FILES}
    return found.pop() or "half" if len(found) == 1 else "half"


def _text_of(file: Path) -> str | None:
    """None where it is not there; not looked for first, because another process may be replacing it."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def die_at(step: int) -> None:
    """Kill this process, without any clean-up, before its `step`-th call that touches a file."""
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event.startswith(CALLS) and event != "os.kill":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def run_child(target: Path, version: str, step: int) -> bool:
    """Write `version` in a child process; whether it lived."""
    child = os.fork()
    if child == 0:
        try:
            die_at(step)
            write_version(target, version)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        sys.exit(f"the writer of version {version} failed")
    return status == 0


def main() -> None:
    """See the module's text."""
    for line in sys.stdin:
        target, steps = json.loads(line)
        seen = []
        for number, step in enumerate(steps, start=1):
            lived = run_child(Path(target), str(number), step)
            seen.append({"lived": lived, "found": read_version(Path(target))})
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
