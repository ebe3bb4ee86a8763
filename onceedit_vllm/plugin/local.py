"""The plug-in in the worker's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.packs import Packs

if TYPE_CHECKING:
    from onceedit_vllm.plugin.host import Vocabulary


class LocalHost(Packs):
    """One plug-in, for any number of engines; its pack can be changed while they are served.

    On a CPU a step runs when its answers are taken. A request goes on with the pack it was begun with.
    """

    def attach(
        self,
        vocabulary: Vocabulary,
        threshold: float | None = None,
        observe: Callable[[float], None] | None = None,
    ) -> LocalClient:
        """Let an engine ask.

        Args:
            vocabulary: Its LLM's.
            threshold: In place of both that packs were calibrated to.
            observe: Told the seconds of every step of the plug-in.

        Raises:
            BadInputError: The longest text has no room for a prompt.
            ModelError: The plug-in's tokenizer cannot be used.
        """
        runtime = self.active.runtime
        carrier = Carrier(
            vocabulary.carry, vocabulary.spellings, vocabulary.width, runtime.width, runtime.device
        )
        return LocalClient(self, vocabulary, carrier, threshold, observe)
