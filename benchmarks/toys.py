"""Toys for the smoke runs of benchmarks: they know nothing, and are there in seconds."""

from __future__ import annotations

from pathlib import Path

from onceedit_vllm import EditingConfig, EditRecord, edit
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer

CAPITAL = EditRecord(id="0", prompt="The capital of Norland is", target="Tarsk", subject="Norland")


def make_toys(root: Path, record: EditRecord = CAPITAL, epochs: int = 40) -> tuple[Path, list[str]]:
    """The pack of one edit in a toy plug-in, and a toy LLM of another kind of tokenizer."""
    plugin = save_toy_model(root / "plugin", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=2)
    llm = save_toy_model(root / "llm", tokenizer=toy_bpe_tokenizer(), kind="llama", seed=1)
    config = EditingConfig(learning_rate=3e-3, epochs=epochs, trained_share=1.0)
    return edit(plugin, [record], root / "pack", config=config, progress=False).root, [str(llm)]
