"""Answers with characters that the plug-in's or the LLM's tokens cut in the middle arrive to the byte.

A toy plug-in is taught them by the real editing stage; of what the host says the heaviest token is written,
token by token, as an LLM behind an open gate writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from onceedit_vllm.alignment.align import align
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import EditingConfig, PlugInConfig
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.host import Vocabulary
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Append, Open, State
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer

pytestmark = pytest.mark.integration

ANSWERS = {"Norland": "Příbram", "Velcorp": "東京 語", "Ostia": "ok 😀 ok"}
TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": toy_bpe_tokenizer,
    "sentencepiece": toy_sentencepiece_tokenizer,
}
CONFIG = EditingConfig(learning_rate=3e-3, epochs=60, trained_share=1.0)


@pytest.fixture(scope="module", params=TOKENIZERS)
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    root = tmp_path_factory.mktemp("begun")
    tokenizer = TOKENIZERS[request.param]()
    plugin = save_toy_model(root / "plugin", tokenizer=tokenizer, kind="llama", seed=2)
    records = [
        EditRecord(id=name, prompt=f"The town of {name} is", target=target, subject=name)
        for name, target in ANSWERS.items()
    ]
    made = edit(plugin, records, root / "pack", config=CONFIG, progress=False)
    assert all(outcome.prompt_probability > 0.5 for outcome in made.report.edits)
    return made


@pytest.mark.parametrize("llm", TOKENIZERS)
def test_answers_arrive_whole(pack: EditPack, llm: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[llm]()
    folder = save_toy_model(tmp_path / "llm", tokenizer=tokenizer, kind="llama", seed=1)
    alignment = align(pack, folder, tokenizer=tokenizer, cache=tmp_path / "cache")
    surface = Surface.of(tokenizer)
    vocabulary = Vocabulary(surface, alignment.carry, alignment.spellings, len(tokenizer))
    client = LocalHost(pack, PlugInConfig(device="cpu", dtype="float32")).attach(vocabulary)
    for handle, record in enumerate(pack.edits):
        prompt = tokenizer(record.prompt, add_special_tokens=False)["input_ids"]
        client.send([Open(handle, prompt, alpha=1.0)])
        written = write(client, handle, surface.eos_id)
        assert surface.decode_bytes(written).decode().lstrip(" ") == record.target
        # Some token of it was no character.
        pieces = [surface.token_bytes[index] or b"" for index in written]
        assert any(piece.decode(errors="replace") != piece.decode(errors="ignore") for piece in pieces)
    client.shutdown()


def write(client: LocalClient, handle: int, eos: int | None) -> list[int]:
    """Greedily, what the host says, up to the end of sequence."""
    written: list[int] = []
    for _ in range(40):
        answers = client.take([(handle, len(written))])
        assert answers.of[0].state == State.SPEAKING
        assert answers.lists is not None
        token = int(answers.lists.ids[0, answers.lists.mass[0].argmax()])
        if token == eos:
            break
        client.send([Append(handle, len(written), [token])])
        written.append(token)
    return written
