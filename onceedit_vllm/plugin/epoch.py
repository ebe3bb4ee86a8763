"""A pack that is loaded: what the plug-in knows while it is active."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
from onceedit_vllm.edits import TEMPLATES
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.plugin.gate import Gate
from onceedit_vllm.plugin.loading import load_runtime
from onceedit_vllm.plugin.plain_encoder import PlainEncoder
from onceedit_vllm.plugin.reader import Reader
from onceedit_vllm.plugin.textsync import TextSync
from onceedit_vllm.plugin.trial import refuse_speechless

if TYPE_CHECKING:
    from onceedit_vllm.config import PlugInConfig
    from onceedit_vllm.fusion.owed import SpellingBook
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import Vocabulary


class Epoch:
    """One pack's plug-in, with the keys and values of all texts begun with it.

    Args:
        number: Which of a host's packs it is, counted from 1.
        pack: Its model, edits, template and thresholds.
        config: Device, dtype, longest text and memory.

    Raises:
        ModelError: The model cannot be loaded or cannot be a plug-in.
    """

    def __init__(self, number: int, pack: EditPack, config: PlugInConfig) -> None:
        self.number = number
        self.pack = pack
        self.runtime = load_runtime(pack.model_dir, pack.manifest.weight_token_id, config)
        self._tokenizer = load_tokenizer(pack.model_dir)
        # Made while the pack is loaded, not within a step: a first request would wait for it.
        self._encoder = PlainEncoder(self._tokenizer)
        self._evidence = Evidence(pack.edits, self._tokenizer)

    def refuse_speechless(self) -> None:
        """Let the plug-in read its first edit's prompt.

        Raises:
            ModelError: It has nothing to say.
        """
        text = TEMPLATES[self.pack.manifest.template].wrap(self.pack.edits[0].prompt)
        refuse_speechless(self.runtime, self._tokenizer.encode(text))

    def reader(
        self,
        vocabulary: Vocabulary,
        book: SpellingBook,
        threshold: float | None,
        observe: Callable[[float], None] | None,
        counts: Counter[str],
    ) -> Reader:
        """Reads one engine's requests with this pack; see :class:`Reader`.

        Args:
            vocabulary: The engine's LLM's.
            book: What is owed after its tokens.
            threshold: In place of both that the pack was calibrated to.
            observe: Told the seconds of every step of the plug-in.
            counts: Where the reader counts.

        Raises:
            BadInputError: The longest text has no room for a prompt.
            ModelError: The plug-in's tokenizer cannot be used.
        """
        manifest = self.pack.manifest
        template = TEMPLATES[manifest.template]
        textsync = TextSync(
            self._tokenizer,
            vocabulary.surface,
            prefix=template.prefix,
            suffix=template.suffix,
            max_context=self.runtime.max_context,
            encoder=self._encoder,
        )
        thresholds = (manifest.threshold, manifest.weight_threshold) if threshold is None else (threshold,)
        gate = Gate(*thresholds)
        return Reader(self.runtime, textsync, book, gate, self._evidence, observe, counts)
