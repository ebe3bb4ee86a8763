from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken

from onceedit_vllm.alignment import side
from onceedit_vllm.alignment.align import Alignment, align
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import WEIGHT_TOKEN, AlignmentConfig, MapKind
from onceedit_vllm.errors import AlignmentError, BadInputError, OnceEditError
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer
from tests.unit.alignment.toys import StandInPack, matrices

KINDS: list[MapKind] = ["textual", "calibrated", "eq16", "deepen"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[StandInPack, Path]:
    root = tmp_path_factory.mktemp("models")
    plugin = save_toy_model(root / "plugin", tokenizer=toy_bpe_tokenizer(), kind="llama")
    llm = save_toy_model(root / "llm", tokenizer=toy_sentencepiece_tokenizer(), kind="gpt2", seed=1)
    return StandInPack(plugin, weight_token_id=len(toy_bpe_tokenizer())), llm


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest) -> AlignmentConfig:
    return AlignmentConfig(kind=request.param)


def entry(cache: Path) -> Path:
    folders = list((cache / "alignments").iterdir())
    assert len(folders) == 1, "no temporary folder is left behind"
    return folders[0]


def same(first: Alignment, second: Alignment) -> None:
    assert torch.equal(first.anchors.plugin_ids, second.anchors.plugin_ids)
    assert torch.equal(first.anchors.llm_ids, second.anchors.llm_ids)
    assert torch.equal(first.carry, second.carry)
    for left, right in zip(matrices(first), matrices(second), strict=True):
        assert torch.equal(left, right)
    ignored = {"seconds", "from_cache", "warnings", "tflops", "llm_tokens"}
    assert first.report.model_dump(exclude=ignored) == second.report.model_dump(exclude=ignored)


def test_an_alignment_fits_its_models(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    pack, llm = models
    alignment = align(pack, llm, config=config, cache=tmp_path)
    plugin_size = pack.weight_token_id + 1
    report = alignment.report
    assert len(alignment.carry) == report.plugin_vocab_size == plugin_size
    assert alignment.carry[pack.weight_token_id] == -1
    plugin_map, llm_map = matrices(alignment)
    assert plugin_map.shape == (plugin_size, report.num_coordinates)
    assert llm_map.shape == (report.llm_vocab_size, report.num_coordinates)
    assert report.kind == config.kind
    assert report.num_anchors == len(alignment.anchors)
    assert report.bytes_dense == 4 * report.num_anchors * (plugin_size + report.llm_vocab_size)
    every = torch.arange(report.num_anchors)
    own = (llm_map[:, every].argmax(dim=0) == alignment.anchors.llm_ids).double().mean()
    assert report.round_trip_fidelity == pytest.approx(float(own))
    masses = plugin_map[alignment.anchors.plugin_ids, every], llm_map[alignment.anchors.llm_ids, every]
    assert report.self_mass_plugin == pytest.approx(float(masses[0].median()), rel=1e-4)
    assert report.self_mass_llm == pytest.approx(float(masses[1].median()), rel=1e-4)
    if config.kind == "textual":
        assert report.round_trip_fidelity == report.self_mass_llm == 1.0


def test_the_second_time_comes_from_the_cache(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    first = align(*models, config=config, cache=tmp_path)
    second = align(*models, config=config, cache=tmp_path)
    assert (first.report.from_cache, second.report.from_cache) == (False, True)
    same(first, second)


def test_the_cost_is_what_was_computed(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    first = align(*models, config=config, cache=tmp_path).report
    assert first.tflops == (0 if config.kind == "textual" else first.paper_tflops) < 1
    second = align(*models, config=config, cache=tmp_path).report
    assert second.tflops == second.llm_tokens == 0
    assert first.paper_tflops == second.paper_tflops > 0
    parameters = sum(t.numel() for t in load_file(models[1] / "model.safetensors").values())
    assert first.paper_tokens == pytest.approx(first.paper_tflops * 1e12 / (2 * parameters))


def test_from_the_cache_no_tokenizer_is_loaded(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = align(*models, config=config, cache=tmp_path)
    monkeypatch.setattr(side, "load_tokenizer", None)
    second = align(*models, config=config, cache=tmp_path)
    same(first, second)
    assert torch.equal(first.spellings.ids, second.spellings.ids)


def test_textual_hashes_no_embeddings(
    models: tuple[StandInPack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "tensor_fingerprint", None)
    align(*models, cache=tmp_path)
    assert align(*models, cache=tmp_path).report.from_cache


@pytest.mark.parametrize("damage", ["cut", "flipped", "no identity", "bad json", "stray file"])
def test_a_damaged_entry_is_rebuilt(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path, damage: str
) -> None:
    first = align(*models, config=config, cache=tmp_path)
    tensors, identity = entry(tmp_path) / "alignment.safetensors", entry(tmp_path) / "alignment.json"
    content = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-3] ^= 1
        tensors.write_bytes(content)
    elif damage == "no identity":
        identity.unlink()
    elif damage == "bad json":
        identity.write_text("{")
    else:
        tensors.unlink()
        tensors.mkdir()
    second = align(*models, config=config, cache=tmp_path)
    assert not second.report.from_cache
    assert "damaged" in second.report.warnings[0]
    same(first, second)
    assert align(*models, config=config, cache=tmp_path).report.from_cache


def test_other_settings_and_other_models_are_other_entries(
    models: tuple[StandInPack, Path], tmp_path: Path
) -> None:
    pack, llm = models
    align(pack, llm, cache=tmp_path)
    tokenizer = toy_sentencepiece_tokenizer(vocab_size=400)
    others = save_toy_model(tmp_path / "others", tokenizer=tokenizer, kind="gpt2", seed=1)
    cases = [
        (llm, AlignmentConfig(matching="string")),
        (llm, AlignmentConfig(kind="eq16")),
        (others, AlignmentConfig()),
        (pack.model_dir, AlignmentConfig()),
    ]
    for model, config in cases:
        assert not align(pack, model, config=config, cache=tmp_path).report.from_cache
        assert align(pack, model, config=config, cache=tmp_path).report.from_cache


def test_other_weights_are_another_entry_only_where_they_count(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    pack, llm = models
    align(pack, llm, config=config, cache=tmp_path)
    tokenizer = toy_sentencepiece_tokenizer()
    other = save_toy_model(tmp_path / "other", tokenizer=tokenizer, kind="gpt2", seed=2)
    shared = align(pack, other, config=config, cache=tmp_path).report.from_cache
    assert shared == (config.kind == "textual")


def test_a_new_edit_finds_the_old_alignment(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    pack, llm = models
    base = pack.base_embeddings()
    align(pack, llm, config=config, cache=tmp_path)

    class Edited(StandInPack):
        def base_embeddings(self) -> torch.Tensor:
            return base.clone()

    edited = Edited(pack.model_dir, pack.weight_token_id)
    assert align(edited, llm, config=config, cache=tmp_path).report.from_cache


def test_a_cache_that_cannot_be_written_is_said_and_survived(
    models: tuple[StandInPack, Path], tmp_path: Path
) -> None:
    (tmp_path / "alignments").write_text("a file where the folder should be")
    report = align(*models, cache=tmp_path).report
    assert "could not be cached" in report.warnings[0]
    assert not report.from_cache


def test_low_fidelity_warns(tmp_path: Path, models: tuple[StandInPack, Path]) -> None:
    pack, _ = models
    # Embeddings that all point one way cannot tell the anchors apart.
    tokenizer = toy_bpe_tokenizer()
    flat = save_toy_model(tmp_path / "flat", tokenizer=tokenizer)
    weights = load_file(flat / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    weights[name] = torch.ones_like(weights[name])
    save_file(weights, flat / "model.safetensors", metadata={"format": "pt"})
    report = align(pack, flat, config=AlignmentConfig(kind="eq16"), cache=tmp_path).report
    assert report.round_trip_fidelity < 0.1
    assert "come back from the search as themselves" in report.warnings[0]


def test_identical_models_map_every_token_to_itself(models: tuple[StandInPack, Path], tmp_path: Path) -> None:
    pack, _ = models
    alignment = align(pack, pack.model_dir, cache=tmp_path)
    surface = Surface.of(toy_bpe_tokenizer())
    carried = alignment.carry[: surface.vocab_size]
    text = torch.tensor(
        [surface.token_bytes[i] is not None or i == surface.eos_id for i in range(len(carried))]
    )
    assert torch.equal(carried[text], torch.arange(len(carried))[text])


def test_progress_shows_a_bar(
    models: tuple[StandInPack, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    align(*models, config=AlignmentConfig(kind="eq16"), cache=tmp_path, progress=True)
    assert "measuring the relative maps" in capsys.readouterr().out


def test_only_special_tokens_may_lie_beyond_the_table(
    tmp_path: Path, models: tuple[StandInPack, Path]
) -> None:
    pack, _ = models
    tokenizer = toy_bpe_tokenizer()
    folder = save_toy_model(tmp_path / "llm", tokenizer=tokenizer)
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    tokenizer.save_pretrained(folder)
    alignment = align(pack, folder, config=AlignmentConfig(matching="string"), cache=tmp_path)
    assert int(alignment.anchors.llm_ids.max()) < alignment.report.llm_vocab_size
    tokenizer.add_tokens([AddedToken("more text", special=False)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(AlignmentError, match="1 tokens beyond"):
        align(pack, folder, cache=tmp_path)


def test_bad_models_are_refused(models: tuple[StandInPack, Path], tmp_path: Path) -> None:
    pack, llm = models
    no_tokenizer = save_toy_model(tmp_path / "bare", tokenizer=toy_bpe_tokenizer())
    (no_tokenizer / "tokenizer.json").write_text("{")
    with pytest.raises(AlignmentError, match="holds no tokenizer"):
        align(pack, no_tokenizer, cache=tmp_path)
    (no_tokenizer / "tokenizer.json").unlink()
    with pytest.raises(OnceEditError, match="tokenizer"):
        align(pack, no_tokenizer, cache=tmp_path)
    with pytest.raises(BadInputError, match="is a file"):
        align(pack, llm / "config.json", cache=tmp_path)
    with pytest.raises(OnceEditError):
        align(tmp_path / "no pack", llm, cache=tmp_path)
    with pytest.raises(OnceEditError):
        align(pack, tmp_path / "no model", cache=tmp_path)
    broken = save_toy_model(tmp_path / "broken", tokenizer=toy_bpe_tokenizer())
    (broken / "model.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(AlignmentError, match="cannot be read"):
        align(pack, broken, cache=tmp_path)


def test_the_llm_keeps_weight_out_even_if_it_was_edited_itself(
    models: tuple[StandInPack, Path], tmp_path: Path
) -> None:
    pack, _ = models
    tokenizer = toy_bpe_tokenizer(extra_special=(WEIGHT_TOKEN,))
    edited = save_toy_model(tmp_path / "edited", tokenizer=tokenizer)
    alignment = align(pack, edited, config=AlignmentConfig(matching="string"), cache=tmp_path)
    assert tokenizer.convert_tokens_to_ids(WEIGHT_TOKEN) not in alignment.anchors.llm_ids


def test_dense_maps_hold_no_matrix(models: tuple[StandInPack, Path], tmp_path: Path) -> None:
    alignment = align(*models, config=AlignmentConfig(kind="calibrated"), cache=tmp_path)
    assert alignment.dense is not None
    assert alignment.report.bytes_held < alignment.report.bytes_dense
    assert alignment.report.self_mass_llm == pytest.approx(0.9, abs=0.02)
