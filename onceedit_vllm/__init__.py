"""Live knowledge editing for served LLMs: edit one small plug-in once, every LLM answers with it.

Importing this module imports neither vllm, ray nor transformers: each name below is loaded from
its room when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onceedit_vllm.alignment.align import Alignment, align
    from onceedit_vllm.alignment.anchors import find_anchors
    from onceedit_vllm.alignment.cost import relative_map_flops
    from onceedit_vllm.config import AlignmentConfig, EditingConfig, FusionConfig, PlugInConfig
    from onceedit_vllm.config import ServingConfig as OnceEditConfig
    from onceedit_vllm.editing.edit import edit
    from onceedit_vllm.editing.records import load_edits
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.errors import (
        AlignmentError,
        BadInputError,
        ModelError,
        OnceEditError,
        PackError,
    )
    from onceedit_vllm.models.resolve import resolve_model
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.runner.offline import Generation, generate
    from onceedit_vllm.runner.processor import OnceEditLogitsProcessor
    from onceedit_vllm.updating.update import update_pack

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "AlignmentConfig",
    "AlignmentError",
    "BadInputError",
    "EditPack",
    "EditRecord",
    "EditingConfig",
    "FusionConfig",
    "Generation",
    "ModelError",
    "OnceEditConfig",
    "OnceEditError",
    "OnceEditLogitsProcessor",
    "PackError",
    "PlugInConfig",
    "__version__",
    "align",
    "edit",
    "find_anchors",
    "generate",
    "load_edits",
    "relative_map_flops",
    "resolve_model",
    "update_pack",
]

#: Public name -> (module, name there).
_HOMES = {
    "Alignment": ("alignment.align", "Alignment"),
    "AlignmentConfig": ("config", "AlignmentConfig"),
    "AlignmentError": ("errors", "AlignmentError"),
    "BadInputError": ("errors", "BadInputError"),
    "EditPack": ("pack", "EditPack"),
    "EditRecord": ("edits", "EditRecord"),
    "EditingConfig": ("config", "EditingConfig"),
    "FusionConfig": ("config", "FusionConfig"),
    "Generation": ("runner.offline", "Generation"),
    "ModelError": ("errors", "ModelError"),
    "OnceEditConfig": ("config", "ServingConfig"),
    "OnceEditError": ("errors", "OnceEditError"),
    "OnceEditLogitsProcessor": ("runner.processor", "OnceEditLogitsProcessor"),
    "PackError": ("errors", "PackError"),
    "PlugInConfig": ("config", "PlugInConfig"),
    "align": ("alignment.align", "align"),
    "edit": ("editing.edit", "edit"),
    "find_anchors": ("alignment.anchors", "find_anchors"),
    "generate": ("runner.offline", "generate"),
    "load_edits": ("editing.records", "load_edits"),
    "relative_map_flops": ("alignment.cost", "relative_map_flops"),
    "resolve_model": ("models.resolve", "resolve_model"),
    "update_pack": ("updating.update", "update_pack"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
