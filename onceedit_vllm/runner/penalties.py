"""Penalties that vLLM has laid on a row before the edits are fused in.

Its V2 runner penalises first and asks custom processors then, V1 does it the other way round. Fusion is for
what the LLM says, and penalties are for the answer, edits included: so on V2 they are lifted and laid again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from vllm import SamplingParams


class Penalties(NamedTuple):
    """As vLLM names and means them: repetition counts in prompt and output, the others in the output.

    Attributes:
        repetition: Logits above 0 of tokens seen are divided by it, the others multiplied.
        frequency: Taken off a token's logit for each time it was generated.
        presence: Taken off the logit of each token that was generated.
    """

    repetition: float
    frequency: float
    presence: float

    @classmethod
    def of(cls, params: SamplingParams) -> Penalties | None:
        """Those of a request, None where it has none."""
        penalties = cls(params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        return None if penalties == (1.0, 0.0, 0.0) else penalties

    def lift(self, logits: torch.Tensor, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> None:
        """Undo them in place, up to rounding.

        Args:
            logits: (V_l,) float32.
            prompt_ids: The prompt.
            output_ids: What was generated.
        """
        generated, counts = _counted(output_ids, logits)
        logits[generated] += self.frequency * counts + self.presence
        seen, _ = _counted([*prompt_ids, *output_ids], logits)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values * self.repetition, values / self.repetition)

    def lay(self, logits: torch.Tensor, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> None:
        """Apply them in place, as vLLM does; arguments as of :meth:`lift`."""
        seen, _ = _counted([*prompt_ids, *output_ids], logits)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / self.repetition, values * self.repetition)
        generated, counts = _counted(output_ids, logits)
        logits[generated] -= self.frequency * counts + self.presence


def _counted(ids: Sequence[int], logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct tokens that have a logit, and how often each occurs: int64 and float32, on its device."""
    known = torch.tensor([i for i in ids if i < len(logits)], dtype=torch.int64)
    distinct, counts = known.unique(return_counts=True)
    return distinct.to(logits.device), counts.to(logits.device, torch.float32)
