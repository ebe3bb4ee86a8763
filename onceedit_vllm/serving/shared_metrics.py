"""Lets vLLM's ``/metrics`` show what is counted in the engine's process, where the processor lives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onceedit_vllm.errors import BadInputError

#: Where prometheus_client's processes share their numbers. Read when it is imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Give all processes of a server one folder for their numbers, removed at the end.

    A folder that the user has named stays as it is; it must be emptied between runs.

    Raises:
        BadInputError: The user's folder does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise BadInputError(f"{VARIABLE}={named}: there is no such folder; create it, or unset it.")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="onceedit-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[VARIABLE]
