"""What the processes of an engine under test do first. For tests only: put this folder on ``PYTHONPATH``.

With ``ONCEEDIT_TEST_FORK=1`` a process that asks for spawned ones forks them. On a CPU vLLM spawns an
engine's core and its workers, each of which imports vLLM anew: most of the time that its start takes.

With ``TRITON_INTERPRET=1`` vLLM's V2 runner starts on a CPU. vLLM picks V2 only where Triton has a "cpu"
backend; interpreted, kernels run as Python and need no backend, so a stand-in entry is enough.
"""

import importlib.util
import multiprocessing.context
import os
from types import SimpleNamespace

if os.environ.get("ONCEEDIT_TEST_FORK") == "1":
    contexts = vars(multiprocessing.context)["_concrete_contexts"]
    contexts["spawn"] = contexts["fork"]

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None:
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
