"""What becomes of a row: the codes that the fusion of either device writes, one per row."""

from __future__ import annotations

#: Left to the LLM, bit for bit: bad numbers, or nothing allowed has any probability.
LEFT = 0
#: Got the search result.
SEARCHED = 1
#: Got the log of the fused distribution.
SAMPLED = 2
#: No row at all: fills up a batch of fixed size.
INACTIVE = 3
#: Untouched, bit for bit, until its whole list is there: the cut one does not say which token wins.
UNCERTIFIED = 4
