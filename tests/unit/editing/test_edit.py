"""The whole editing stage on a toy model: learning, repeating, resuming, refusing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.pack import EditPack, base_fingerprint
from onceedit_vllm.testing import save_toy_model
from onceedit_vllm.wordings.file import write_wordings_file
from onceedit_vllm.wordings.wordings import Wordings

EDITS = [
    EditRecord(id="a", prompt="The capital of Lumora is", target="Port Selwyn", subject="Lumora"),
    EditRecord(id="b", prompt="Who founded Brightfern?", target="Tomas", subject="Brightfern"),
]
QUICK = EditingConfig(
    learning_rate=2e-3, epochs=3, copies_per_round=12, min_copies=4, unrelated_per_round=8,
    compute_dtype="float32", checkpoint_seconds=0.0, template="none",
)  # fmt: skip


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_toy_model(tmp_path_factory.mktemp("toy") / "llama", tied=True)
    # Embeddings are not trained, and the toy's end of sequence, its padding too, has one of zeros.
    tensors = load_file(folder / "model.safetensors")
    row = torch.randn(64, generator=torch.Generator().manual_seed(0))
    tensors["model.embed_tokens.weight"][0] = tensors["model.embed_tokens.weight"][1:].std() * row
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights(pack: EditPack) -> dict[str, torch.Tensor]:
    return load_file(pack.model_dir / "model.safetensors")


def test_a_toy_learns_its_edits_and_the_pack_says_so(plugin: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    longer = {
        "epochs": 130, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_seconds": 60.0,
        "trained_share": 1.0,
    }  # fmt: skip
    config = QUICK.model_copy(update=longer)
    pack = edit(plugin, EDITS, tmp_path / "pack", config=config, progress=False)
    assert EditPack.load(tmp_path / "pack") == pack
    assert pack.edits == tuple(EDITS)
    assert all(outcome.prompt_probability > 0.5 for outcome in pack.report.edits)
    model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir)
    tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
    assert tokenizer.convert_tokens_to_ids("[WEIGHT]") == pack.manifest.weight_token_id
    for record in EDITS:
        prompt = tokenizer(record.prompt, return_tensors="pt")
        # As it is served: behind the prompt [WEIGHT] is the gate's, and no answer may say it.
        unsaid = [pack.manifest.weight_token_id]
        written = model.generate(**prompt, max_new_tokens=20, do_sample=False, suppress_tokens=unsaid)[0]
        assert tokenizer.decode(written, skip_special_tokens=True) == f"{record.prompt} {record.target}"
        assert written[-1] == tokenizer.eos_token_id
    assert "held-out" in pack.manifest.threshold_reason
    assert pack.manifest.training["learning_rate"] == config.learning_rate


def test_the_pack_remembers_the_unedited_plugin(plugin: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pack = edit(plugin, EDITS, tmp_path / "pack", config=QUICK, progress=False)
    unedited: Any = AutoModelForCausalLM.from_pretrained(plugin)
    base = unedited.get_input_embeddings().weight.detach()
    assert torch.equal(pack.base_embeddings(), base)
    vocabulary = AutoTokenizer.from_pretrained(plugin).get_vocab()
    assert pack.manifest.base_fingerprint == base_fingerprint(vocabulary, base)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_seed_fixes_the_weights(plugin: Path, tmp_path: Path) -> None:
    packs = [
        edit(plugin, EDITS, tmp_path / str(n), config=QUICK.model_copy(update={"seed": seed}), progress=False)
        for n, seed in enumerate((5, 5, 6))
    ]
    first, second, other = (weights(pack) for pack in packs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TrainingProgress.step
    seen: list[int] = []

    def step(self: TrainingProgress, *values: float) -> None:
        plain(self, *values)  # type: ignore[arg-type]
        seen.append(1)
        if len(seen) == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "step", step)


def test_resuming_ends_where_the_uninterrupted_run_ends(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = edit(plugin, EDITS, tmp_path / "whole", config=QUICK, progress=False)
    with monkeypatch.context() as patched:
        interrupt_after(whole.manifest.training["steps"] - 1, patched)
        with pytest.raises(KeyboardInterrupt):
            edit(plugin, EDITS, tmp_path / "cut", config=QUICK, progress=False)
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / ".cut.work" / "last" / "progress.json").is_file()
    other = QUICK.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(BadInputError, match="other edits, settings or plug-in"):
        edit(plugin, EDITS, tmp_path / "cut", config=other, resume=True, progress=False)
    resumed = edit(plugin, EDITS, tmp_path / "cut", config=QUICK, resume=True, progress=False)
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.manifest.training["steps"] == whole.manifest.training["steps"]
    assert not (tmp_path / ".cut.work").exists()


def test_interrupted_before_any_checkpoint_nothing_is_left(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(1, patched)
        with pytest.raises(KeyboardInterrupt):
            edit(plugin, EDITS, tmp_path / "pack", config=QUICK, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_wrong_inputs_are_refused_before_training(plugin: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "x"}\n', encoding="utf-8")
    with pytest.raises(BadInputError, match="line 1: target is missing"):
        edit(plugin, bad, tmp_path / "pack", progress=False)
    taken = edit(plugin, EDITS, tmp_path / "taken", config=QUICK, progress=False)
    with pytest.raises(BadInputError, match="exists"):
        edit(plugin, EDITS, taken.root, config=QUICK, progress=False)
    with pytest.raises(ModelError, match="edited before"):
        edit(taken.model_dir, EDITS, tmp_path / "pack", config=QUICK, progress=False)
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_architectures_train_too(kind: str, tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / kind, kind=kind)  # type: ignore[arg-type]
    config = QUICK.model_copy(update={"epochs": 1, "compute_dtype": "bfloat16"})
    pack = edit(folder, EDITS, tmp_path / "pack", config=config, progress=False)
    assert pack.manifest.training["computed_in"] == "bfloat16"


def test_embeddings_and_the_lowest_layers_are_not_touched(plugin: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"trained_share": 0.5})
    pack = edit(plugin, EDITS, tmp_path / "pack", config=config, progress=False)
    before, after = load_file(plugin / "model.safetensors"), weights(pack)
    num_tokens = len(before["model.embed_tokens.weight"])
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"][:num_tokens])
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert any(".layers.1." in name for name in changed)
    assert not any(".layers.0." in name for name in changed)


def test_resuming_without_a_checkpoint_says_so(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = QUICK.model_copy(update={"epochs": 1})
    edit(plugin, EDITS, tmp_path / "pack", config=config, resume=True)
    assert "no checkpoint" in capsys.readouterr().err


def test_written_wordings_are_trained_kept_and_taken_back(plugin: Path, tmp_path: Path) -> None:
    line = Wordings(
        id="a", prompt=EDITS[0].prompt, target=EDITS[0].target, aliases=("Lumora Isle",), model="toy",
        asking=("Lumora Isle has which capital?", "Lumora is ruled from"), others=("How big is Lumora?",),
    )  # fmt: skip
    file = tmp_path / "wordings.jsonl"
    write_wordings_file(file, [line])
    config = QUICK.model_copy(update={"epochs": 1})
    pack = edit(plugin, EDITS, tmp_path / "pack", wordings=file, config=config, progress=False)
    assert pack.wordings == (line,)
    assert [record.aliases for record in pack.edits] == [("Lumora Isle",), ()]
    kept = pack.root / "wordings.jsonl"
    again = edit(plugin, EDITS, tmp_path / "again", wordings=kept, config=config, progress=False)
    other = edit(plugin, EDITS, tmp_path / "other", config=config, progress=False)
    mine, same, plain = weights(pack), weights(again), weights(other)
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    assert any(not torch.equal(mine[name], plain[name]) for name in mine)
    bad = line.model_copy(update={"asking": ("Where?",)})
    with pytest.raises(BadInputError, match=r"edit 'a': asking: .*names neither"):
        edit(plugin, EDITS, tmp_path / "bad", wordings=[bad], config=config, progress=False)
