"""Shared by all tests: few threads, no network, and the real models where they are cached."""

from __future__ import annotations

import os

# Before torch is imported: toy models are slower with many threads, and CI machines are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests in two processes have two engines at a time; vLLM binds the worker of each to the same core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Nothing in the tests may reach for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from pathlib import Path

import pytest


def _cached(name: str) -> Path:
    from onceedit_vllm.models import cached_model

    folder = cached_model(name)
    if folder is None:
        pytest.skip(f"{name} is not cached; fetch it with `onceedit models get {name}`")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M, or a skip."""
    return _cached("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """The folder of the real Gemma-3-270M, or a skip."""
    return _cached("gemma-3-270m")


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of the public datasets (``ONCEEDIT_DATA``), or a skip."""
    folder = Path(os.environ.get("ONCEEDIT_DATA", "absent"))
    if not folder.is_dir():
        pytest.skip("ONCEEDIT_DATA does not name a folder with the datasets")
    return folder
