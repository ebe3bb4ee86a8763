"""The plug-in in the worker's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
from onceedit_vllm.edits import TEMPLATES
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.plugin.gate import Gate
from onceedit_vllm.plugin.loading import load_runtime
from onceedit_vllm.plugin.reader import Reader
from onceedit_vllm.plugin.textsync import TextSync

if TYPE_CHECKING:
    from onceedit_vllm.config import PlugInConfig
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import Vocabulary


class LocalHost:
    """One plug-in, for any number of engines.

    On a CPU a step runs when its answers are taken.

    Args:
        pack: Its model, edits, template and thresholds.
        config: Device, dtype, longest text and memory.

    Raises:
        ModelError: The model cannot be loaded or cannot be a plug-in.
    """

    def __init__(self, pack: EditPack, config: PlugInConfig) -> None:
        self._manifest = pack.manifest
        self._runtime = load_runtime(pack.model_dir, pack.manifest.weight_token_id, config)
        self._tokenizer = load_tokenizer(pack.model_dir)
        self._evidence = Evidence(pack.edits, self._tokenizer)

    def num_bytes(self) -> int:
        """Bytes of the model, and of the keys and values of the texts."""
        weights: int = sum(weight.nbytes for weight in self._runtime.model.parameters())
        return weights + self._runtime.num_bytes()

    def attach(self, vocabulary: Vocabulary, threshold: float | None = None) -> Reader:
        """Let an engine ask.

        Args:
            vocabulary: Its LLM's.
            threshold: In place of both that the pack was calibrated to.

        Raises:
            BadInputError: The longest text has no room for a prompt.
            ModelError: The plug-in's tokenizer cannot be used.
        """
        template = TEMPLATES[self._manifest.template]
        textsync = TextSync(
            self._tokenizer,
            vocabulary.surface,
            prefix=template.prefix,
            suffix=template.suffix,
            max_context=self._runtime.max_context,
        )
        carrier = Carrier(
            vocabulary.carry,
            vocabulary.spellings,
            vocabulary.width,
            self._runtime.width,
            self._runtime.device,
        )
        return Reader(self._runtime, textsync, carrier, self._gate_of(threshold), self._evidence)

    def _gate_of(self, threshold: float | None) -> Gate:
        if threshold is not None:
            return Gate(threshold)
        return Gate(self._manifest.threshold, self._manifest.weight_threshold)
