"""Which rows of the KV pool hold the tokens of each slot. Bookkeeping only, no model in sight.

The pool is cut into blocks of a few tokens, handed out as texts grow: one long text among many
short ones costs its own length, not a pool of its length for everyone. Full blocks are shared by all texts
that begin with the same tokens.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from onceedit_vllm.errors import KVCacheFullError, ModelError
from onceedit_vllm.plugin.kv_blocks import KVBlocks
from onceedit_vllm.plugin.prefixes import BLOCK, ROOT, PrefixIndex

#: A text waits for another one of the same step to read what both begin with when that saves it so many
#: tokens: waiting costs one more pass over the weights, about what a CPU takes to read so many tokens. A GPU
#: reads thousands in that time; eight texts of 512 are as many, and a prompt's samples save their memory.
MIN_SHARED, MIN_SHARED_ON_GPU = 2 * BLOCK, 32 * BLOCK


class SlotStep(Protocol):
    """What a slot is to do: forget its last `rollback` tokens, then take in `token_ids`."""

    @property
    def slot(self) -> int: ...

    @property
    def rollback(self) -> int: ...

    @property
    def token_ids(self) -> Sequence[int]: ...


class Intake(NamedTuple):
    """What is left to do for one step once the slots have made room.

    Attributes:
        start: Tokens of the slot that need not be read: kept, or known from other texts.
        waits_for: Steps (by their place) that must be read before, because they write some of those.
    """

    start: int
    waits_for: frozenset[int]


class Copies(NamedTuple):
    """Blocks to copy before anything is read, all at once: no target is read as a source afterwards."""

    sources: list[int]
    targets: list[int]


@dataclass
class _Slot:
    """Tokens, the blocks that hold them, and the nodes of those blocks that are full and known."""

    token_ids: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)


@dataclass
class _Plan:
    """How one slot makes room.

    Attributes:
        kept: Tokens that stay.
        held: Blocks held afterwards and before, or known: the first ones of the text.
        nodes: Nodes of the full ones among them.
        lent: Places of the steps that will write the next blocks.
        is_copied: Whether the last of the blocks that stay is shared, so that its tokens move to a new one.
        num_new: Blocks to take, the copy included.
    """

    kept: int
    held: list[int]
    nodes: list[int]
    lent: list[int]
    is_copied: bool
    num_new: int


class KVSlots:
    """Slots, their tokens, and their blocks.

    Args:
        num_blocks: Blocks of :data:`BLOCK` tokens in the pool.
        share_prefixes: Whether texts that begin alike share blocks.
        min_shared: Tokens for which a text waits for another one of the same step.

    Attributes:
        num_reused_tokens: Tokens that were taken over from other texts so far.
    """

    def __init__(self, num_blocks: int, *, share_prefixes: bool = True, min_shared: int = MIN_SHARED) -> None:
        self.num_reused_tokens = 0
        self._min_shared = min_shared
        self._shares = share_prefixes
        self._prefixes = PrefixIndex()
        self._blocks = KVBlocks(num_blocks, self._prefixes)
        self._free_slots: list[int] = []
        self._num_slots = 0
        self._slots: dict[int, _Slot] = {}

    @property
    def capacity(self) -> int:
        """Tokens for which the pool has room."""
        return self._blocks.num_blocks * BLOCK

    @property
    def num_free_tokens(self) -> int:
        """Tokens for which there is room, in whole blocks; known blocks that no slot holds count as free."""
        return self._blocks.num_available * BLOCK

    def open(self) -> int:
        """Take an empty slot, the lowest free one."""
        if self._free_slots:
            slot = heapq.heappop(self._free_slots)
        else:
            slot = self._num_slots
            self._num_slots += 1
        self._slots[slot] = _Slot()
        return slot

    def close(self, slot: int) -> None:
        """Give a slot and its blocks back; a slot that is not open is left alone."""
        if slot in self._slots:
            self.clear(slot)
            del self._slots[slot]
            heapq.heappush(self._free_slots, slot)

    def clear(self, slot: int) -> None:
        """Forget all tokens of an open slot."""
        self._release(self._slots[slot].blocks)
        self._slots[slot] = _Slot()

    def length(self, slot: int) -> int:
        """Tokens the slot holds.

        Raises:
            ModelError: The slot is not open.
        """
        try:
            return len(self._slots[slot].token_ids)
        except KeyError:
            raise ModelError(f"plug-in slot {slot} is not open; open() one and step that") from None

    def admit(self, steps: Sequence[SlotStep]) -> tuple[list[Intake], Copies]:
        """Make room for what distinct, open slots are to take in, or change nothing.

        Raises:
            KVCacheFullError: There is no room.
        """
        plans = self._plans(steps)
        self._refuse_overflow(steps, plans)
        self._hand_over(steps, plans)
        copies = Copies([], [])
        for step, plan in zip(steps, plans, strict=True):
            self._fill(step, plan, steps, copies)
        starts = [plan.kept or BLOCK * (len(plan.held) + len(plan.lent)) for plan in plans]
        self.num_reused_tokens += sum(start - plan.kept for start, plan in zip(starts, plans, strict=True))
        return [
            Intake(start, frozenset(plan.lent)) for start, plan in zip(starts, plans, strict=True)
        ], copies

    def register(self, slots: Sequence[int]) -> None:
        """The tokens of these slots were read: other texts may share their full blocks from now on."""
        if not self._shares:
            return
        for slot in slots:
            text = self._slots[slot]
            for i in range(len(text.nodes), len(text.token_ids) // BLOCK):
                after = text.nodes[-1] if text.nodes else ROOT
                ids = text.token_ids[i * BLOCK : (i + 1) * BLOCK]
                text.nodes.append(self._prefixes.add(after, ids, text.blocks[i]))

    def rows(self, slots: Sequence[int], lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the first tokens of some slots lie in the pool, aligned to the right.

        Args:
            slots: n open slots.
            lengths: n times how many tokens of each, at least one.

        Returns:
            (n, longest) int64 rows of the pool, and (n, longest) int64 positions of the tokens in
            their text, negative in the padding on the left (whose rows are the slot's first token).
        """
        longest = max(lengths)
        num_blocks = -(-longest // BLOCK)
        held = [self._slots[slot].blocks[:num_blocks] for slot in slots]
        tables = torch.tensor([blocks + [0] * (num_blocks - len(blocks)) for blocks in held])
        positions = torch.arange(longest) - (longest - torch.tensor(lengths)[:, None])
        clamped = positions.clamp(min=0)
        return tables.gather(1, clamped // BLOCK) * BLOCK + clamped % BLOCK, positions

    def _plans(self, steps: Sequence[SlotStep]) -> list[_Plan]:
        # What this step will write; the known nodes may stand before it, but none of them is in it.
        written = PrefixIndex(first_node=self._prefixes.next_node)
        plans: list[_Plan] = []
        for step in steps:
            if len(self._slots[step.slot].token_ids) > step.rollback:
                plans.append(self._plan_on(step))
            else:
                plans.append(self._plan_afresh(step, written, len(plans), len(steps)))
        return plans

    def _plan_on(self, step: SlotStep) -> _Plan:
        """A slot that keeps tokens: a block that others read is not written into."""
        text = self._slots[step.slot]
        kept = len(text.token_ids) - step.rollback
        held = text.blocks[: -(-kept // BLOCK)]
        is_copied = kept % BLOCK > 0 and not self._blocks.is_private(held[-1])
        if is_copied:
            held.pop()
        num_new = -(-(kept + len(step.token_ids)) // BLOCK) - len(held)
        return _Plan(kept, held, text.nodes[: kept // BLOCK], [], is_copied, num_new)

    def _plan_afresh(self, step: SlotStep, written: PrefixIndex, place: int, num_steps: int) -> _Plan:
        """A slot without tokens: takes over what is known, and what another slot of the step reads first."""
        num_blocks = -(-len(step.token_ids) // BLOCK)
        if not self._shares:
            return _Plan(0, [], [], [], False, num_blocks)
        # The last token is always read: its logits are asked for.
        known = self._prefixes.match(step.token_ids[:-1])
        nodes = [block.node for block in known]
        lent: list[int] = []
        if num_steps > 1:
            lent = self._lend(step.token_ids, nodes, written, place)
        num_new = num_blocks - len(known) - len(lent)
        return _Plan(0, [block.place for block in known], nodes, lent, False, num_new)

    def _lend(
        self, token_ids: Sequence[int], nodes: list[int], written: PrefixIndex, place: int
    ) -> list[int]:
        """Who writes the blocks behind the known ones; those that nobody does are this step's to write."""
        after = nodes[-1] if nodes else ROOT
        rest = token_ids[len(nodes) * BLOCK :]
        found = written.match(rest[:-1], after)
        for start in range(0, len(rest) - BLOCK + 1, BLOCK):
            after = written.add(after, rest[start : start + BLOCK], place)
        return [block.place for block in found] if len(found) * BLOCK >= self._min_shared else []

    def _refuse_overflow(self, steps: Sequence[SlotStep], plans: Sequence[_Plan]) -> None:
        num_new = sum(plan.num_new for plan in plans)
        num_known = sum(len(plan.held) for plan in plans if not plan.kept)
        if num_new + num_known <= self._blocks.num_available:
            return
        changes: Counter[int] = Counter()
        for step, plan in zip(steps, plans, strict=True):
            changes.update(plan.held)
            changes.subtract(self._slots[step.slot].blocks)
        available = self._blocks.num_available_after(changes)
        for step, plan in zip(steps, plans, strict=True):
            available -= plan.num_new
            if available < 0:
                raise KVCacheFullError(
                    step.slot,
                    f"plug-in slot {step.slot}: the KV cache of {self._blocks.num_blocks * BLOCK} tokens has "
                    f"no room for {len(step.token_ids)} more; close a slot, or raise plugin.kv_cache_bytes",
                )

    def _hand_over(self, steps: Sequence[SlotStep], plans: Sequence[_Plan]) -> None:
        """Known blocks get their new holders before anything is let go or taken: none is lost between."""
        for plan in plans:
            for block in plan.held:
                self._blocks.hold(block)
        for step in steps:
            self._release(self._slots[step.slot].blocks)

    def _fill(self, step: SlotStep, plan: _Plan, steps: Sequence[SlotStep], copies: Copies) -> None:
        """The slot as the plan says, with new blocks for what is to be read."""
        text = self._slots[step.slot]
        lent: list[int] = []
        for writer in plan.lent:
            lent.append(self._slots[steps[writer].slot].blocks[len(plan.held) + len(lent)])
            self._blocks.hold(lent[-1])
        new = [self._blocks.take() for _ in range(plan.num_new)]
        if plan.is_copied:
            copies.sources.append(text.blocks[len(plan.held)])
            copies.targets.append(new[0])
        text.token_ids[plan.kept :] = step.token_ids
        text.blocks, text.nodes = [*plan.held, *lent, *new], plan.nodes

    def _release(self, blocks: Sequence[int]) -> None:
        """Let blocks go, the last ones first: without the first ones they are never found again."""
        for block in reversed(blocks):
            self._blocks.release(block)
