"""vLLM's V2 runner: a row belongs to a request slot, and tokens live on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.runner.callers import is_warming_up
from onceedit_vllm.runner.options import DEFAULT_OVERRIDE
from onceedit_vllm.runner.params import row_of
from onceedit_vllm.runner.penalties import Penalties
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.step import FusionStep, IndexedRow

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

    from onceedit_vllm.config import RequestOverride


#: A row that is not scheduled for so many steps has most likely ended, which vLLM does not say; the host
#: forgets it. One that only waited is told anew, and what the plug-in had read of it is mostly still there.
_UNSEEN_STEPS = 8


class V2Adapter:
    """Keeps one request per slot and reads new tokens from vLLM's device-side history.

    A row that needs nothing more leaves the books at once: it costs no copy and no wait from then on.
    """

    def __init__(
        self,
        step: FusionStep,
        req_states: LogitsProcRequestState,
        allowed: RequestOverride = DEFAULT_OVERRIDE,
    ) -> None:
        self._step = step
        self._allowed = allowed
        self._states = req_states
        self._slots: dict[int, Row] = {}
        self._seen: dict[int, int] = {}
        self._num_steps = 0

    def add_request(self, slot: int, params: SamplingParams) -> bool:
        """Start a request in a slot; whatever was there before is over.

        vLLM sends made-up requests while it warms up: they never meet the plug-in.

        Returns:
            False where the request is left to the LLM for good. vLLM asks this once only, and where all
            say no, it saves a float32 copy of the logits in every step.
        """
        previous = self._slots.pop(slot, None)
        if previous is not None:
            self._step.close(previous)
        if is_warming_up():
            return False
        # A prompt that cannot be read here is read from the device, at the first `apply`.
        prompt_ids = staged_prompt(self._states, slot)
        row = row_of(params, prompt_ids, self._allowed, self._step.counts)
        if row is None or (row.prompt_ids and not self._step.admit(row)):
            return False
        row.penalties, row.max_tokens = Penalties.of(params), params.max_tokens
        self._slots[slot], self._seen[slot] = row, self._num_steps
        return True

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Fuse the rows of finished prefills; rows in the middle of a prompt are skipped."""
        rows: list[IndexedRow] = []
        ends: list[int] = []
        for index, slot in enumerate(ctx.idx_mapping_np.tolist()):
            row = self._slots.get(slot)
            if row is None:
                continue
            self._seen[slot] = self._num_steps
            end = int(ctx.seq_lens_upper_bound_np[index])
            if end >= int(self._states.prefill_len.np[slot]):
                rows.append((index, row))
                ends.append(end)
        if rows:
            slots = [int(ctx.idx_mapping_np[index]) for index, _ in rows]
            self._feed(slots, [row for _, row in rows], ends)
            self._step.finish(logits, rows)
            for slot in slots:
                if self._slots[slot].is_over:
                    del self._slots[slot]
        return logits

    def begin_step(self) -> None:
        """Once a step of the engine, also where nobody needs processing: let go of what has ended."""
        self._num_steps += 1
        for slot, row in self._slots.items():
            if row.handle is not None and self._num_steps - self._seen[slot] >= _UNSEEN_STEPS:
                self._step.close(row)

    def _feed(self, slots: list[int], rows: list[Row], ends: list[int]) -> None:
        """Copy the tokens each row has not seen to the host, all rows in one transfer."""
        starts = [len(row.prompt_ids) + len(row.output_ids) for row in rows]
        history = self._states.all_token_ids.gpu
        spans = [history[slot, start:end] for slot, start, end in zip(slots, starts, ends, strict=True)]
        flat = torch.cat(spans).tolist()
        for slot, row, span in zip(slots, rows, spans, strict=True):
            new_ids, flat = flat[: len(span)], flat[len(span) :]
            if not row.prompt_ids:
                # `prompt_len`, not `prefill_len`: a resumed request is refilled with its outputs too.
                prompt_len = int(self._states.prompt_len.np[slot])
                row.prompt_ids, new_ids = new_ids[:prompt_len], new_ids[prompt_len:]
                row.is_over = not self._step.admit(row)
            row.output_ids.extend(new_ids)


def staged_prompt(states: LogitsProcRequestState, slot: int) -> list[int]:
    """The prompt of the request that vLLM is adding to a slot; empty where it cannot be read.

    At that moment the tokens wait in the host's memory for their way to the device, at the end of
    `all_token_ids`' list of writes (vllm/v1/worker/gpu/states.py, `RequestState.add_request`). Its names
    are private, but nothing public holds them there.
    """
    tokens = states.all_token_ids
    try:
        slots, starts = tokens._staged_write_indices, tokens._staged_write_starts
        ends, contents = tokens._staged_write_cu_lens, tokens._staged_write_contents
        if (slots[-1], starts[-1]) != (slot, 0):
            return []
        begin = ends[-2] if len(ends) > 1 else 0
        # A resumed request is staged with its outputs behind the prompt.
        prompt: list[Any] = contents[begin : begin + int(states.prompt_len.np[slot])]
        return prompt
    except (AttributeError, IndexError, TypeError, ValueError):
        return []
