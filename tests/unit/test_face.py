"""The public names: all there, all lazy."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import onceedit_vllm

PUBLIC = [name for name in onceedit_vllm.__all__ if name != "__version__"]


def test_every_public_name_has_a_home_and_nothing_else_does() -> None:
    assert sorted(onceedit_vllm._HOMES) == sorted(PUBLIC)
    assert list(onceedit_vllm.__all__) == sorted(onceedit_vllm.__all__)
    assert set(PUBLIC) <= set(dir(onceedit_vllm))


@pytest.mark.parametrize("name", PUBLIC)
def test_homes_define_their_names(name: str) -> None:
    module, attribute = onceedit_vllm._HOMES[name]
    if module.startswith("runner."):
        # Read, not imported: this test runs where vLLM is absent too.
        file = Path(onceedit_vllm.__file__).parent / (module.replace(".", "/") + ".py")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        assert attribute in names
    else:
        assert getattr(onceedit_vllm, name) is getattr(import_module(f"onceedit_vllm.{module}"), attribute)


def test_importing_the_face_is_light() -> None:
    heavy = ["vllm", "ray", "transformers", "torch"]
    code = f"import sys, onceedit_vllm; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'edti'"):
        _ = onceedit_vllm.edti


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert onceedit_vllm.__version__ == version("onceedit-vllm")
