"""What this machine is good at."""

from __future__ import annotations


def has_fast_bfloat16() -> bool:
    """Whether there are instructions for bfloat16: on a GPU, or a CPU with AMX, AVX-512 or Arm's.

    Without them a CPU takes several times longer than with float32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
