"""vLLM's V1 runner: row i of the logits is request i of the persistent batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from onceedit_vllm.runner.options import DEFAULT_OVERRIDE
from onceedit_vllm.runner.params import row_of
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.step import FusionStep

if TYPE_CHECKING:
    from vllm.v1.sample.logits_processor import BatchUpdate

    from onceedit_vllm.config import RequestOverride

# V1 writes -1 where the sampled token is still on the device (asynchronous scheduling).
_UNKNOWN_TOKEN = -1


class V1Adapter:
    """Follows the persistent batch through :class:`BatchUpdate` and feeds output tokens to the rows.

    A row that needs nothing more leaves the books at once.
    """

    def __init__(self, step: FusionStep, allowed: RequestOverride = DEFAULT_OVERRIDE) -> None:
        self._step = step
        self._allowed = allowed
        # Batch index -> (request, vLLM's own growing list of its output tokens).
        self._batch: dict[int, tuple[Row, list[int]]] = {}

    def update_state(self, update: BatchUpdate | None) -> None:
        """Apply removals, additions and moves, in the order that vLLM promises; then begin the step."""
        if update is not None:
            self._update_batch(update)
        self._begin()

    def _update_batch(self, update: BatchUpdate) -> None:
        for index in update.removed:
            self._drop(index)
        for index, params, prompt_ids, output_ids in update.added:
            # An addition may land on a live index without a removal.
            self._drop(index)
            if prompt_ids is None:
                # A prompt of embeddings is no text: it is left to the LLM.
                continue
            row = row_of(params, prompt_ids, self._allowed, self._step.counts)
            if row is not None and self._step.admit(row):
                self._batch[index] = (row, output_ids)
        for source, target, direction in update.moved:
            self._move(source, target, swap=direction.name == "SWAP")

    def _begin(self) -> None:
        """Tell the plug-in's host what is new, before the LLM's own forward pass.

        Where the last token is still on the device nothing is new yet: :meth:`apply` tells it then.
        """
        known = [row for row, output_ids in self._batch.values() if self._follow(row, output_ids)]
        self._step.begin(known)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Fuse the rows whose history is fully known."""
        rows = []
        for index, (row, output_ids) in self._batch.items():
            if self._follow(row, output_ids):
                rows.append((index, row))
            else:
                self._step.counts["unknown_tokens"] += 1
        if rows:
            self._step.finish(logits, rows)
            self._batch = {index: entry for index, entry in self._batch.items() if not entry[0].is_over}
        return logits

    def _follow(self, row: Row, output_ids: list[int]) -> bool:
        """Bring a row up to vLLM's list of its output; False while that is not known."""
        num_known = len(row.output_ids)
        if _UNKNOWN_TOKEN in output_ids[num_known:]:
            return False
        if num_known and (len(output_ids) < num_known or row.output_ids[-1] != output_ids[num_known - 1]):
            # vLLM has dropped tokens that could not be computed (a KV transfer that failed).
            self._step.close(row)
            row.output_ids, num_known = [], 0
        row.output_ids.extend(output_ids[num_known:])
        return True

    def _drop(self, index: int) -> None:
        entry = self._batch.pop(index, None)
        if entry is not None:
            self._step.close(entry[0])

    def _move(self, source: int, target: int, *, swap: bool) -> None:
        moved, displaced = self._batch.pop(source, None), self._batch.pop(target, None)
        if moved is not None:
            self._batch[target] = moved
        if displaced is None:
            return
        if swap:
            self._batch[source] = displaced
        else:
            self._step.close(displaced[0])
