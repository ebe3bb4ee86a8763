"""Anchors, surfaces and alignments of real vocabularies."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.alignment.align import align
from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import AlignmentConfig
from onceedit_vllm.dense.statistics import build_dense_map
from onceedit_vllm.models import cached_model
from tests import real_tokenizers
from tests.unit.alignment.toys import StandInPack

pytestmark = pytest.mark.integration

TEXT = (
    "Hello  wörld, 日本語 😀👩‍👩‍👧 e\u0301\n\n\tx = [1,2]\r\n  def f():\n\t\treturn 'naïve'   <table> 12345"
)


def real_folder(name: str) -> Path:
    folder = cached_model(name)
    if folder is None:
        pytest.skip(f"{name} is not cached; `onceedit models get {name}` fetches it")
    return folder


@cache
def real_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_folder(name))


@cache
def real_surface(name: str) -> Surface:
    return Surface.of(real_tokenizer(name))


def test_the_papers_anchor_counts() -> None:
    """Table 9; TinyLlama has the vocabulary of Llama-2."""
    llama, mistral = real_tokenizers.llama2_vocab(), real_tokenizers.mistral_vocab()
    assert len(llama) == len(mistral) == 32000
    assert len(find_anchors(llama, llama, "string")) == 31999
    assert len(find_anchors(llama, mistral, "string")) == 24184
    gpt2 = real_tokenizers.gpt2_tokenizer()
    assert len(find_anchors(llama, gpt2.get_vocab(), "string")) == 17830
    assert len(find_anchors(real_tokenizers.llama2_tokenizer(), gpt2, "string")) == 17830


@pytest.mark.parametrize("name", ["llama2_tokenizer", "mistral_tokenizer", "gpt2_tokenizer"])
def test_real_surfaces_give_back_the_text(name: str) -> None:
    tokenizer = getattr(real_tokenizers, name)()
    surface = Surface.of(tokenizer)
    assert surface.decode_bytes(tokenizer.encode(TEXT)) == TEXT.encode()
    assert surface.strips_prefix_space == (name != "gpt2_tokenizer")


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma-3-270m"])
def test_cached_models_give_back_the_text(name: str) -> None:
    surface = real_surface(name)
    assert surface.decode_bytes(real_tokenizer(name).encode(TEXT)) == TEXT.encode()
    assert not surface.strips_prefix_space


def test_anchors_of_smollm2_and_gemma() -> None:
    plugin, llm = real_tokenizer("smollm2-135m"), real_tokenizer("gemma-3-270m")
    assert len(find_anchors(plugin, llm, "string")) == 45589
    left, right = real_surface("smollm2-135m"), real_surface("gemma-3-270m")
    common = left.id_of.keys() & right.id_of.keys()
    # Seven texts are in Gemma's vocabulary only as added tokens; 46138 without those.
    layout = json.loads(llm.backend_tokenizer.to_str())
    added = {token["id"] for token in layout["added_tokens"]}
    others = {text for i, text in enumerate(right.token_bytes) if i not in added}
    newlines_and_tabs = {b"\n\n", b"\n\n\n", b"\n" * 4, b"\t\t", b"\t\t\t", b"\t" * 4, b"\t" * 8}
    assert common - others == newlines_and_tabs
    assert len(common & others) == 46138
    assert len(find_anchors(left, right, "bytes")) == 46145
    paired = find_anchors(left, right, "bytes", pair_eos=True)
    assert len(paired) == 46146
    assert paired.llm_ids[paired.plugin_ids == left.eos_id].tolist() == [right.eos_id]


def test_the_textual_alignment_of_two_real_models(tmp_path: Path) -> None:
    pack = StandInPack(real_folder("smollm2-135m"), weight_token_id=49152)
    llm = real_folder("gemma-3-270m")
    alignment = align(pack, llm, cache=tmp_path)
    report = alignment.report
    assert (report.num_anchors, report.plugin_vocab_size, report.llm_vocab_size) == (46146, 49153, 262144)
    assert report.round_trip_fidelity == report.self_mass_plugin == report.self_mass_llm == 1.0
    assert report.bytes_held < 3e6
    assert report.paper_tflops == pytest.approx(18.49, abs=0.01)
    assert report.warnings == ()
    left, right = real_surface("smollm2-135m"), real_surface("gemma-3-270m")
    for token in range(left.vocab_size):
        text, partner = left.token_bytes[token], int(alignment.carry[token])
        if text is None:
            assert partner == (right.eos_id if token == left.eos_id else -1)
        else:
            assert text.startswith(right.token_bytes[partner] or b"?")
    assert align(pack, llm, cache=tmp_path).report.from_cache


def test_dense_kinds_on_a_real_slice() -> None:
    """Every fortieth token of SmolLM2 as an anchor: the order of the kinds, in seconds."""
    table = load_embeddings(real_folder("smollm2-135m"))
    ids = torch.arange(17, 49152, 40)
    own = Anchors(ids, ids, "bytes")
    fidelity, self_mass = {}, {}
    for kind in ("deepen", "eq16", "calibrated"):
        made = build_dense_map(kind, table[17:], own.plugin_ids - 17, self_mass=AlignmentConfig().self_mass)
        fidelity[kind] = float((made.own_token == ids - 17).double().mean())
        self_mass[kind] = float(made.self_mass().median())
    assert fidelity["deepen"] < 0.95 < fidelity["eq16"] < 0.999 < fidelity["calibrated"]
    assert self_mass["deepen"] < 0.05
    assert self_mass["eq16"] < 0.01
    assert self_mass["calibrated"] == pytest.approx(0.9, abs=0.02)
