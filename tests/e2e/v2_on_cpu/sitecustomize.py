"""Lets vLLM's V2 runner start on a CPU, for tests only.

vLLM picks V2 only where Triton has a "cpu" backend. With ``TRITON_INTERPRET=1`` Triton runs kernels as
Python and needs no backend, so a stand-in entry is enough. Put this folder on ``PYTHONPATH``.
"""

import importlib.util
from types import SimpleNamespace

if importlib.util.find_spec("triton") is not None:
    from triton.backends import backends
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    class _InactiveDriver:
        @staticmethod
        def is_active() -> bool:
            return False

    backends.setdefault("cpu", SimpleNamespace(driver=_InactiveDriver, compiler=None))

    # The interpreter refuses the integer mask of vLLM's grammar kernel; compilers take it.
    _create_masked_store = InterpreterBuilder.create_masked_store

    def _store_by_any_mask(self, ptrs, value, mask, cache_policy):
        by_bool = TensorHandle(mask.data.astype(bool), mask.dtype)
        return _create_masked_store(self, ptrs, value, by_bool, cache_policy)

    InterpreterBuilder.create_masked_store = _store_by_any_mask
