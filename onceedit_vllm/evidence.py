"""What a plug-in has to say for an edit, on a prompt that names the edit's subject.

[WEIGHT] alone was trained on few wordings, and on others its logit falls off sooner than the answer does.
But with the subject named it is known which answer there could be, and the same forward pass tells how
probable the plug-in finds it: the evidence is [WEIGHT]'s logit plus the log-odds of the answer's first token.
Where the plug-in would begin with another token there is none: it would not give that answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.edits import EditRecord

#: Log-odds beyond this say no more: a probability in float32 is not known better.
_LARGEST = 12.0
#: The probability of these log-odds, and of one that is certain to be no other.
_LEAST = 1 / (1 + math.exp(_LARGEST))
#: Tokens that one answer can begin with, at most.
MOST_BEGINNINGS = 2


def first_tokens(target: str, tokenizer: Any) -> tuple[int, ...]:
    """Plug-in tokens that an answer can begin with: behind a space, and without one."""
    texts = (f" {target.strip()}", target.strip())
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return tuple(sorted({ids[0] for ids in encoded if ids}))


def weigh(weight_logit: float, probability: float) -> float:
    """The evidence as a probability.

    Args:
        weight_logit: Of [WEIGHT] at the end of the prompt.
        probability: Of the named edit's first token there. NaN counts as 0.
    """
    if not probability > 0.0:
        odds = -_LARGEST
    elif probability >= 1.0:
        odds = _LARGEST
    else:
        odds = max(-_LARGEST, min(_LARGEST, math.log(probability) - math.log1p(-probability)))
    return sigmoid(weight_logit + odds)


def weigh_answer(weight_logit: float, beginnings: Sequence[float], top: float) -> float:
    """The evidence for an edit; 0.0 where the plug-in's likeliest token begins no answer of it.

    Args:
        weight_logit: Of [WEIGHT] at the end of the prompt.
        beginnings: Log-probabilities of the tokens that the edit's answer can begin with.
        top: The largest of all tokens. A NaN in either counts as another token.
    """
    if not max(beginnings, default=-math.inf) >= top:
        return 0.0
    return weigh(weight_logit, sum(map(math.exp, beginnings)))


def weigh_all(weight_logits: Tensor, log_probs: Tensor, beginnings: Tensor) -> Tensor:
    """The log-odds of :func:`weigh` for a batch, to be differentiated.

    Args:
        weight_logits: (B,) float32.
        log_probs: (B, V) float32, the distributions there.
        beginnings: (B, K) int64, the tokens that the named edit's answer can begin with; negative for none.
            A row without any keeps its logit.

    Returns:
        (B,) float32.
    """
    picked = log_probs.gather(-1, beginnings.clamp_min(0)).masked_fill(beginnings < 0, -math.inf)
    named = (beginnings >= 0).any(-1)
    said = picked.exp().sum(-1).clamp(_LEAST, 1 - _LEAST)
    odds = said.log() - (-said).log1p()
    return weight_logits + odds.where(named, torch.zeros_like(odds))


def sigmoid(x: float) -> float:
    """Without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


class Evidence:
    """Weighs what the plug-in says for the edits that a prompt names.

    Args:
        edits: The pack's.
        tokenizer: The plug-in's.
    """

    def __init__(self, edits: Sequence[EditRecord], tokenizer: Any) -> None:
        self._tokens = [first_tokens(edit.target, tokenizer) for edit in edits]

    def alpha(self, weight_logit: float, log_probs: Tensor, named: Sequence[int]) -> float:
        """The gate's number for one prompt: of the named edits the likeliest counts.

        Args:
            weight_logit: Of [WEIGHT] at the end of the prompt.
            log_probs: (V_s,) float32, the plug-in's next-token distribution there.
            named: Indices of the edits that the prompt names; none: [WEIGHT] speaks alone.
        """
        tokens = [self._tokens[index] for index in named]
        if math.isnan(weight_logit) or not tokens:
            return 0.0 if math.isnan(weight_logit) else sigmoid(weight_logit)
        said = iter(log_probs[[token for each in tokens for token in each]].tolist())
        top = float(log_probs.max())
        return max(weigh_answer(weight_logit, [next(said) for _ in each], top) for each in tokens)
