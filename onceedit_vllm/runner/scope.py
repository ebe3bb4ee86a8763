"""The first decision on a prompt, from its text alone: can the edits concern it?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple

from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import Named, SubjectMatcher
from onceedit_vllm.runner.leads import find_lead
from onceedit_vllm.runner.own_names import by_own_names

if TYPE_CHECKING:
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.config import ScopeKind
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.plugin.host import PlugInClient
    from onceedit_vllm.runner.turns import ChatTurns

#: "out": the prompt names no subject, or cannot be asking for the edit; the plug-in is not asked. "subject":
#: it names one. "weight": [WEIGHT] alone decides. "forced": the request brings its alpha, whatever it
#: names.
Verdict = Literal["out", "subject", "weight", "forced"]


_BLANK = re.compile(rb"\s")
#: The longest word that is looked at, in bytes: not all scripts have blanks.
_REACH = 40


class Found(NamedTuple):
    """What the subjects say about a prompt.

    Attributes:
        verdict: Whether it names one.
        named: The edits that it names and may be asking for.
        asked: The part of it that counts, or what the request says is asked, in LLM tokens; None: all of it.
    """

    verdict: Verdict
    named: tuple[int, ...] = ()
    asked: list[int] | None = None


class PromptScope:
    """Looks for the edits' subjects in prompts.

    Args:
        edits: The pack's.
        surface: What the LLM's tokens stand for.
        kind: ``"weight"`` looks for nothing and leaves all prompts to [WEIGHT].
        turns: Finds the part of a chat that asks; None: prompts are no chats.
        window: LLM tokens of a prompt, or of what a chat asks, that count, from its end; None: all. It
            bounds what a prompt costs the plug-in, however long it is.

    Attributes:
        mention_opens: True where a named subject is enough and [WEIGHT] is not asked.
        num_unnamed: Edits that no text can name. Where there are any, a prompt that names no subject is
            left to [WEIGHT] alone.
    """

    def __init__(
        self,
        edits: Sequence[EditRecord],
        surface: Surface,
        kind: ScopeKind,
        turns: ChatTurns | None = None,
        window: int | None = None,
    ) -> None:
        self._turns, self._surface, self._window = turns, surface, window
        self._edits = edits
        # Where a name is enough, it must be the edit's own: another form of it may be somebody else's.
        self._matcher = None if kind == "weight" else SubjectMatcher(edits, forms=kind != "subject")
        self._doubts = Doubts(edits, self._matcher) if self._matcher and kind != "subject" else None
        self.mention_opens = kind == "subject"
        self.num_unnamed = len(self._matcher.unnamed) if self._matcher else 0
        # Words do not go on across a special token, whether or not there is a space beside it.
        self._pieces = [b" " if piece is None else piece for piece in surface.token_bytes]

    def of(self, prompt_ids: Sequence[int], said: str | None = None) -> Found:
        """What the subjects say about a prompt.

        Of a chat only the user's last turn counts; where that names none, with the turn before it.

        Args:
            prompt_ids: In LLM tokens.
            said: What counts instead of it, whole.

        Raises:
            KeyError: The LLM has no token for a byte of `said`.
        """
        windows = self._windows(prompt_ids) if said is None else iter([self._surface.spell(said.encode())])
        first = next(windows)
        if self._matcher is None:
            return Found("weight", (), first)
        for window in chain((first,), windows):
            text = self.text_of(prompt_ids if window is None else window)
            named = self._matcher.look(text)
            asked = self._doubts.asked(text, named) if named.edits and self._doubts else named.edits
            if asked:
                return Found("subject", asked, self._read(self._matcher, prompt_ids, window, named))
            if named.edits:
                break
        return Found("weight" if self.num_unnamed else "out", (), first)

    def _windows(self, prompt_ids: Sequence[int]) -> Iterator[list[int] | None]:
        """What is looked at, in turn; None: the whole prompt."""
        is_chat = False
        for window in self._turns.windows(prompt_ids) if self._turns else ():
            is_chat = True
            yield window if self._fits(window) else self._end_of(window)
        if not is_chat:
            yield None if self._fits(prompt_ids) else self._end_of(prompt_ids)

    def _fits(self, ids: Sequence[int]) -> bool:
        return self._window is None or len(ids) <= self._window

    def _end_of(self, ids: Sequence[int]) -> list[int]:
        """The last tokens, from the next blank on: half a word would be taken for a whole one."""
        kept = list(ids[-(self._window or 0) :])
        blank = _BLANK.search(self._surface.bytes_of(kept), 0, _REACH)
        return kept if blank is None else self._surface.without(kept, 0, blank.start())

    def _read(
        self, matcher: SubjectMatcher, prompt_ids: Sequence[int], window: list[int] | None, named: Named
    ) -> list[int] | None:
        """What is asked, without what is said before it, by the edits' own names; None: the whole prompt."""
        asked = self._without_lead(matcher, prompt_ids, window, named)
        ids = prompt_ids if asked is None else asked
        text = self._surface.bytes_of(ids).decode(errors="surrogateescape")
        said = by_own_names(text, named, self._edits)
        try:
            return asked if said == text else self._surface.spell(said.encode(errors="surrogateescape"))
        except KeyError:  # no vocabulary of bytes
            return asked

    def _without_lead(
        self, matcher: SubjectMatcher, prompt_ids: Sequence[int], window: list[int] | None, named: Named
    ) -> list[int] | None:
        """What is asked, without what is said before it; None: the whole prompt."""
        ids = prompt_ids if window is None else window

        def is_asked(text: bytes) -> bool:
            return matcher.find(text.decode(errors="replace"), named.forms) == named.edits

        lead = find_lead(self._surface.bytes_of(ids), is_asked)
        return window if lead is None else self._surface.without(ids, *lead)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of LLM tokens. Half a character, and an id without a token, part words."""
        try:
            text = b"".join(map(self._pieces.__getitem__, ids))
        except IndexError:  # models have more rows than their tokenizers have tokens
            text = b"".join(self._pieces[i] if i < len(self._pieces) else b" " for i in ids)
        return text.decode(errors="replace")


class Look(NamedTuple):
    """What looking at a new request's prompt has found.

    Attributes:
        epoch: The pack that it begins with.
        scope: What the pack's subjects say about it.
        named: The edits whose subject it names, by their place in the pack.
        mention_opens: A named subject is enough, and it names one.
        asked: What the plug-in reads instead of it, in LLM tokens; None: all of it.
    """

    epoch: int
    scope: Verdict
    named: tuple[int, ...] = ()
    mention_opens: bool = False
    asked: list[int] | None = None


class Scopes:
    """Looks at prompts with the subjects of the pack that is active then.

    Args:
        plugin: Says which that is.
        scope_of: Makes a scope of a pack's edits; None: [WEIGHT] decides on all prompts.
    """

    def __init__(
        self, plugin: PlugInClient, scope_of: Callable[[Sequence[EditRecord]], PromptScope] | None
    ) -> None:
        self._plugin = plugin
        self._scope_of = scope_of
        self._epoch: int | None = None
        self._scope: PromptScope | None = None

    def look(self, prompt_ids: Sequence[int], is_forced: bool, said: str | None = None) -> Look:
        """Look at one prompt.

        Args:
            prompt_ids: In LLM tokens.
            is_forced: The request brings its own alpha.
            said: What the request says is asked; None: the prompt.
        """
        epoch, edits = self._plugin.active
        if epoch != self._epoch and self._scope_of is not None:
            # 50 ms for a thousand edits, once for each pack.
            self._scope = self._scope_of(edits)
        self._epoch = epoch
        if self._scope is None:
            return Look(epoch, "forced" if is_forced else "weight")
        verdict, named, asked = self._scope.of(prompt_ids, said)
        if is_forced:
            return Look(epoch, "forced", asked=asked)
        return Look(epoch, verdict, named, self._scope.mention_opens and verdict == "subject", asked)
