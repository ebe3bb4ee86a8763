"""What relative maps cost to build (appendix C), and how much text an LLM writes for as much."""

from __future__ import annotations

from onceedit_vllm.errors import BadInputError

#: A forward pass multiplies by every parameter and adds, once a token.
_FLOPS_PER_PARAMETER = 2


def relative_map_flops(vocab_size: int, num_anchors: int, embedding_dim: int) -> int:
    """FLOPs of one dense relative map (Eq. 25; Eq. 26 is the same for the plug-in).

    A pair of models costs the sum of both maps: that is ``TFLOPS_all`` of Table 5. A square root
    counts 2 and an exponential 25, as in the paper.

    Raises:
        BadInputError: A size below 1.
    """
    if min(vocab_size, num_anchors, embedding_dim) < 1:
        raise BadInputError(
            f"sizes must be at least 1, got vocab_size={vocab_size}, num_anchors={num_anchors}, "
            f"embedding_dim={embedding_dim}"
        )
    every_entry = (2 * embedding_dim + 27) * vocab_size * num_anchors
    row_norms = 2 * embedding_dim * vocab_size
    anchor_norms = (2 * embedding_dim + 1) * num_anchors
    return every_entry + 1 + row_norms + anchor_norms


def tokens_worth(flops: float, parameters: int | None) -> float | None:
    """How many tokens a model generates for that many FLOPs, at 2 per parameter and token.

    The paper's measure of what attaching an LLM costs (``Num`` of Table 5: "approximately 600 to 1000
    tokens").

    Args:
        flops: At least 0.
        parameters: Of the model; None where they could not be counted.

    Returns:
        None where `parameters` is None.

    Raises:
        BadInputError: Fewer than 1 parameter.
    """
    if parameters is None:
        return None
    if parameters < 1:
        raise BadInputError(f"a model has at least 1 parameter, got parameters={parameters}")
    return flops / (_FLOPS_PER_PARAMETER * parameters)
