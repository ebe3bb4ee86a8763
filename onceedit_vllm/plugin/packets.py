"""What crosses the plug-in's boundary: LLM tokens in, a distribution over LLM tokens out.

An engine names its requests by handles of its own and tells the host what happened to them; the host answers
per handle and number of output tokens. Nothing of the plug-in's own vocabulary crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.fusion.lists import Lists


class Open(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request: new, resumed, or one that the host has lost. Replaces one of the same handle.

    Attributes:
        handle: The engine's name for it.
        prompt_ids: The prompt, in LLM tokens.
        output_ids: What was generated so far.
        named: The edits whose subject the prompt names, by their place in the pack.
        alpha: Decided already, so that [WEIGHT] is not asked; None: the plug-in's own.
        epoch: The pack that it was begun with, and that `named` is about; None: the one that is active.
        whole: Its lists must not be cut where they travel.
    """

    handle: int
    prompt_ids: Sequence[int]
    output_ids: Sequence[int] = ()
    named: tuple[int, ...] = ()
    alpha: float | None = None
    epoch: int | None = None
    whole: bool = False


class Append(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """New output tokens of a request, the first of them at place `start` of its output."""

    handle: int
    start: int
    ids: Sequence[int]


class Close(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request that needs nothing more; one that the host does not know is left alone."""

    handle: int


Event = Open | Append | Close


class State(IntEnum):
    """What the host says of a request."""

    #: The edits do not take part in it. The host has forgotten it.
    CLOSED = 0
    #: They do, and there is a list.
    SPEAKING = 1
    #: They do, but the plug-in has nothing to say about this token: it is in the middle of a character of
    #: whose bytes its tokenizer knows nothing.
    SILENT = 2
    #: They did, and the text is over. The host has forgotten it.
    ENDED = 3
    #: The plug-in cannot follow it. The host has forgotten it.
    LOST = 4
    #: The host does not know it, or has not been told all of its output: open it again.
    UNKNOWN = 5


class Answer(NamedTuple):
    """Of one request. Alpha is None while nothing was decided."""

    state: State
    alpha: float | None = None


class Answers(NamedTuple):
    """What a host says after a step.

    Attributes:
        of: One answer for each request that was asked about, in the same order.
        lists: A row for each answer that is SPEAKING, in the same order; None where there is none.
        log_probs: (rows, V_s) float32, the same in the plug-in's vocabulary, for the dense maps; None from a
            host in another process.
    """

    of: Sequence[Answer]
    lists: Lists | None = None
    log_probs: torch.Tensor | None = None
