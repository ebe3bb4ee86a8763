"""Lets vLLM's V2 runner start on a CPU, for tests only.

vLLM picks V2 only where Triton has a "cpu" backend. With ``TRITON_INTERPRET=1`` Triton runs kernels as
Python and needs no backend, so a stand-in entry is enough. Put this folder on ``PYTHONPATH``.
"""

import importlib.util
from types import SimpleNamespace

if importlib.util.find_spec("triton") is not None:
    from triton.backends import backends

    class _InactiveDriver:
        @staticmethod
        def is_active() -> bool:
            return False

    backends.setdefault("cpu", SimpleNamespace(driver=_InactiveDriver, compiler=None))
