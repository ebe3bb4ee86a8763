from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken

from onceedit_vllm.alignment import side
from onceedit_vllm.alignment.align import Alignment, align
from onceedit_vllm.alignment.cache import load_entry, save_entry
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
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


def test_textual_never_loads_the_llm(
    models: tuple[StandInPack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where no safetensors tell the size of its vocabulary."""
    from transformers import AutoModelForCausalLM

    pack, llm = models
    expected = align(pack, llm, cache=tmp_path / "first")
    pickled = shutil.copytree(llm, tmp_path / "pickled")
    torch.save(load_file(llm / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    twice = shutil.copytree(llm, tmp_path / "twice")
    weights = load_file(llm / "model.safetensors")
    name = next(name for name in weights if name.endswith("wte.weight"))
    weights |= {f"mtp.{name}": weights[name].clone(), f"h.9.{name}": weights[name].clone()}
    save_file(weights, twice / "model.safetensors")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    for folder in (pickled, twice):
        found = align(pack, folder, cache=tmp_path / folder.name)
        assert torch.equal(found.carry, expected.carry)
        assert found.report.llm_vocab_size == expected.report.llm_vocab_size


def test_the_tokenizer_given_goes_before_the_folders(
    models: tuple[StandInPack, Path], config: AlignmentConfig, tmp_path: Path
) -> None:
    pack, llm = models
    other = save_toy_model(tmp_path / "other", tokenizer=toy_sentencepiece_tokenizer(vocab_size=400))
    bare = shutil.copytree(llm, tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    given = align(pack, bare, config=config, tokenizer=load_tokenizer(other), cache=tmp_path / "cache")
    assert not torch.equal(given.carry, align(pack, llm, config=config, cache=tmp_path / "cache").carry)
    for file in other.glob("tokenizer*"):
        shutil.copy(file, bare)
    # The same tokenizer, found in the folder: `onceedit align` makes the entry that an engine finds.
    found = align(pack, bare, config=config, cache=tmp_path / "cache")
    assert found.report.from_cache
    same(found, given)


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


def raised(name: str, to: int, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    tensor = tensors[name].clone()
    tensor.view(-1)[-1] = to
    return tensor


#: What other code, or a mistake, could have left under a sha256 that is right: kind, tensor, its new value.
UNFIT: list[tuple[MapKind, str, Callable[[dict[str, torch.Tensor]], torch.Tensor]]] = [
    ("textual", "carry", lambda tensors: tensors["carry"].int()),
    ("textual", "carry", lambda tensors: tensors["carry"][:-1].clone()),
    ("textual", "carry", lambda tensors: raised("carry", 10**6, tensors)),
    ("textual", "plugin_ids", lambda tensors: raised("plugin_ids", -1, tensors)),
    ("textual", "llm_ids", lambda tensors: tensors["llm_ids"][:1].expand_as(tensors["llm_ids"]).clone()),
    ("textual", "spelling.tokens", lambda tensors: raised("spelling.tokens", 10**6, tensors)),
    ("textual", "spelling.ids", lambda tensors: raised("spelling.ids", 10**6, tensors)),
    ("textual", "spelling.ends", lambda tensors: raised("spelling.ends", 1, tensors)),
    ("eq16", "plugin.scale", lambda tensors: tensors["plugin.scale"].half()),
    ("eq16", "llm.peaks", lambda tensors: raised("llm.peaks", 10**6, tensors)),
    ("eq16", "llm.own_token", lambda tensors: raised("llm.own_token", -1, tensors)),
    ("eq16", "llm.others", lambda tensors: tensors["llm.others"][1:].clone()),
]


@pytest.mark.parametrize(("kind", "name", "change"), UNFIT, ids=[f"{k} {n}" for k, n, _ in UNFIT])
def test_an_entry_that_does_not_fit_its_models_is_rebuilt(
    models: tuple[StandInPack, Path],
    tmp_path: Path,
    kind: MapKind,
    name: str,
    change: Callable[[dict[str, torch.Tensor]], torch.Tensor],
) -> None:
    config = AlignmentConfig(kind=kind)
    first = align(*models, config=config, cache=tmp_path)
    folder = entry(tmp_path)
    tensors = load_entry(folder)
    assert tensors is not None
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    identity = json.loads((folder / "alignment.json").read_text())
    shutil.rmtree(folder)
    save_entry(folder, tensors | {name: change(tensors)}, identity)
    second = align(*models, config=config, cache=tmp_path)
    assert not second.report.from_cache
    assert "damaged" in second.report.warnings[0]
    same(first, second)
    assert align(*models, config=config, cache=tmp_path).report.from_cache


FULL_DISK = """
import resource, sys
from pathlib import Path
from onceedit_vllm.alignment.align import align
from tests.unit.alignment.toys import StandInPack

plugin, llm, cache = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
report = align(StandInPack(plugin, weight_token_id=448), llm, cache=cache).report
print(report.num_anchors, *report.warnings)
"""


def test_a_full_disk_is_said_and_survived(models: tuple[StandInPack, Path], tmp_path: Path) -> None:
    """Files of this process cannot grow beyond 2000 bytes: the entry does not fit."""
    pack, llm = models
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK, *map(str, (pack.model_dir, llm, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "could not be cached" in done.stdout
    assert list((tmp_path / "alignments").iterdir()) == []


def test_others_may_read_the_cache_as_the_umask_says(
    models: tuple[StandInPack, Path], tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        align(*models, cache=tmp_path / "cache")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*") if path.is_dir()}
    assert modes == {0o750}
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert modes == {0o640}


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
    captured = capsys.readouterr()
    assert "measuring the relative maps" in captured.err
    assert captured.out == ""


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
