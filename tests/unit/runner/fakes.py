"""A plug-in and a fuser that say exactly what a test wants to hear, and everything between is real."""

from __future__ import annotations

from typing import Any

import torch

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import ScopeKind
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.fusion.counts import FuseCounts
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.plugin.gate import Gate
from onceedit_vllm.runner.scope import PromptScope
from onceedit_vllm.runner.step import FusionStep
from tests.unit.plugin.fakes import EDITS, EOS, FakeRuntime, some_client

#: Prompts that hold this one name a subject too, but do not ask for an edit.
NAMED = 6
#: What the LLM's tokens stand for; the last is half a character.
PIECES = [None, *(f" word{i}".encode() for i in range(1, NAMED)), b" Oslo", b" Lima", b" w8", b" w9", b" w10"]
PIECES += ["ß".encode()[:1]]
SURFACE = Surface("byte-level", PIECES, frozenset({EOS}), frozenset(), EOS, False)
#: An edit that no prompt can name.
UNNAMED = EditRecord(id="unnamed", prompt="p", target="t")


def some_scope(kind: ScopeKind = "subject+weight", *more: EditRecord) -> PromptScope:
    """The real thing: it knows the subjects Oslo (token NAMED) and Lima (token EDITED)."""
    return PromptScope([*EDITS, *more], SURFACE, kind)


class FakeFuser:
    """Writes the log of the lists over the rows; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], list[float], list[bool]]] = []

    def fuse_rows_inplace(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        lists: Lists,
        alpha: torch.Tensor,
        want_search: torch.Tensor,
        plugin_log_probs: torch.Tensor | None = None,
    ) -> list[int]:
        self.calls.append((rows.tolist(), alpha.tolist(), want_search.tolist()))
        logits[rows[:, None], lists.ids] = lists.mass.log().clamp(min=-50.0)
        return []

    def counts(self) -> FuseCounts:
        return FuseCounts(searched=sum(len(rows) for rows, _, _ in self.calls))


def some_step(
    runtime: FakeRuntime, scope: PromptScope | None = None, gate: Gate | None = None, **settings: Any
) -> FusionStep:
    """A step of which the plug-in, the synchroniser and the fuser are not the real thing."""
    fuser: Any = FakeFuser()
    scope_of = (lambda edits: scope) if scope is not None else None
    return FusionStep(some_client(runtime, gate), fuser, scope_of, **settings)
