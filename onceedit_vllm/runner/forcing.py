"""Teacher forcing: a second processor behind ours notes what would have won, and lets the gold token win.

Needed because `prompt_logprobs` never see a processor, and a gold prefix as part of the prompt would change
the text that the gate decides on. For evaluation only; a request without gold tokens is left as it is.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.asking import FORCING

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

logger = logging.getLogger("onceedit_vllm.runner")


@dataclass
class _Forced:
    key: str
    gold: list[int]
    #: V1's own growing list of output tokens; unused under V2, where a position is a length.
    output_ids: list[int] = field(default_factory=list)
    winners: dict[int, int] = field(default_factory=dict)


class TeacherForcing(V1LogitsProcessor, V2LogitsProcessor):
    """Appends one JSON line (`key`, `winners`) per request to the log, before its last token is sampled."""

    def __init__(self, vllm_config: VllmConfig, *runner_args: Any) -> None:
        self._log = Path(_config_of(vllm_config.additional_config)["log"])
        self._states = runner_args[0] if len(runner_args) == 1 else None
        # V1: by row. V2: by slot.
        self._requests: dict[int, _Forced] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse gold tokens that are none.

        Raises:
            BadInputError: There are none, or as many as the request may not write.
        """
        forced = _forced_of(sampling_params)
        if forced is not None and len(forced.gold) != sampling_params.max_tokens:
            raise BadInputError(
                f"extra_args {FORCING}: ids must be as many tokens as max_tokens, at least one"
            )

    def is_argmax_invariant(self) -> bool:
        """V1: False, the gold token wins."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """V1: requests came, went or moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._requests.pop(row, None)
        for row, params, _, output_ids in batch_update.added:
            self._requests.pop(row, None)
            forced = _forced_of(params)
            if forced is not None:
                forced.output_ids = output_ids
                self._requests[row] = forced
        for source, target, direction in batch_update.moved:
            moved, displaced = self._requests.pop(source, None), self._requests.pop(target, None)
            if moved is not None:
                self._requests[target] = moved
            if displaced is not None and direction.name == "SWAP":
                self._requests[source] = displaced

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """V2: a request enters a slot."""
        forced = _forced_of(sampling_params)
        self._requests.pop(req_idx, None)
        if forced is not None:
            self._requests[req_idx] = forced
        return forced is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        """Write down the winners and force the gold tokens, in place. Never raises."""
        try:
            rows = self._rows_of_v1() if ctx is None else self._rows_of_v2(ctx)
            if rows:
                self._force(logits, rows)
        except Exception:
            logger.warning("teacher forcing failed; the requests of this step are not forced", exc_info=True)
        return logits

    def _rows_of_v1(self) -> list[tuple[int, _Forced, int]]:
        """(row, request, position of the token that is sampled now)."""
        # A row in the middle of its prompt is sampled too, and thrown away: its position is written anew.
        return [(row, forced, len(forced.output_ids)) for row, forced in self._requests.items()]

    def _rows_of_v2(self, ctx: LogitsContext) -> list[tuple[int, _Forced, int]]:
        rows = []
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            forced = self._requests.get(slot)
            end = int(ctx.seq_lens_upper_bound_np[row])
            if forced is not None and self._states is not None and end >= self._states.prefill_len.np[slot]:
                rows.append((row, forced, end - int(self._states.prompt_len.np[slot])))
        return rows

    def _force(self, logits: torch.Tensor, rows: list[tuple[int, _Forced, int]]) -> None:
        indices = torch.tensor([row for row, _, _ in rows], device=logits.device)
        winners = logits[indices].argmax(dim=-1).tolist()
        for (row, forced, position), winner in zip(rows, winners, strict=True):
            if position >= len(forced.gold):
                continue
            forced.winners[position] = winner
            logits[row].fill_(-torch.inf)
            logits[row, forced.gold[position]] = 0.0
            if position == len(forced.gold) - 1:
                self._write(forced)

    def _write(self, forced: _Forced) -> None:
        winners = [forced.winners.get(position, -1) for position in range(len(forced.gold))]
        line = json.dumps({"key": forced.key, "winners": winners}) + "\n"
        with self._log.open("ab", buffering=0) as file:
            file.write(line.encode())


def _config_of(additional_config: object) -> dict[str, Any]:
    ours = additional_config.get(FORCING) if isinstance(additional_config, dict) else None
    if not isinstance(ours, dict) or "log" not in ours:
        raise BadInputError(f'TeacherForcing: pass additional_config={{"{FORCING}": {{"log": FILE}}}}')
    return ours


def _forced_of(params: SamplingParams) -> _Forced | None:
    ours = (params.extra_args or {}).get(FORCING)
    return None if ours is None else _Forced(str(ours["key"]), list(ours["ids"]))
