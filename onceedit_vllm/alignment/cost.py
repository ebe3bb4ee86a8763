"""What the paper's dense relative maps cost to build (appendix C)."""

from __future__ import annotations

from onceedit_vllm.errors import BadInputError


def relative_map_flops(vocab_size: int, num_anchors: int, embedding_dim: int) -> int:
    """FLOPs of one relative map (Eq. 25; Eq. 26 is the same for the plug-in).

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
