"""The settings of an engine, as vLLM hands them over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from onceedit_vllm.alignment.align import align
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.tokenizer_files import load_tokenizer, tokenizer_fingerprint
from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.assembly import _llm_folder, _llm_tokenizer, serving_config
from onceedit_vllm.runner.attachment import refuse_dense_elsewhere
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer
from tests.unit.alignment.toys import StandInPack

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("additional", [None, {}, {"other": {}}, "text", {"onceedit": None}])
def test_a_missing_configuration_says_how_to_pass_one(additional):
    with pytest.raises(BadInputError, match="additional_config="):
        serving_config(additional)


@pytest.mark.parametrize(
    ("ours", "names"),
    [
        ({}, "pack"),
        ({"pack": "p", "treshold": 0.5}, "treshold"),
        ({"pack": "p", "threshold": 2}, "threshold"),
        ({"pack": "p", "alignment": {"kind": "magic"}}, "alignment.kind"),
        ({"pack": "p", "plugin": {"host": "rays"}}, "plugin.host"),
        ({"pack": "p", "scope": "weight+subject"}, "scope"),
        ({"pack": "p", "weight": 0.5}, "weight"),
        ("a/pack", "onceedit"),
    ],
)
def test_a_bad_setting_is_named(ours, names):
    with pytest.raises(BadInputError, match=names):
        serving_config({"onceedit": ours})


@pytest.mark.parametrize("kind", ["eq16", "deepen", "calibrated"])
def test_dense_kinds_are_served_in_the_engines_own_process_only(kind):
    settings = {"pack": "p", "alignment": {"kind": kind}}
    refuse_dense_elsewhere(ServingConfig.model_validate(settings))
    refuse_dense_elsewhere(ServingConfig.model_validate({"pack": "p", "plugin": {"host": "ray"}}))
    with pytest.raises(BadInputError, match=f'"{kind}".*"local"'):
        refuse_dense_elsewhere(ServingConfig.model_validate(settings | {"plugin": {"host": "ray"}}))


def test_good_settings_are_read():
    config = serving_config({"onceedit": {"pack": "p", "fusion": {"solver": "adamw"}}})
    assert (str(config.pack), config.fusion.solver) == ("p", "adamw")


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A model's folder, and another folder with the tokenizer that is served."""
    root = tmp_path_factory.mktemp("llm")
    save_toy_model(root / "model", kind="qwen2", tokenizer=toy_bpe_tokenizer())
    save_toy_model(root / "tokenizer", kind="qwen2", tokenizer=toy_bpe_tokenizer(vocab_size=400))
    return root / "model", root / "tokenizer"


def engine(model, **kwargs):
    """VLLM's own reading of its arguments, as far as the LLM's files go."""
    from vllm.config import LoadConfig, ModelConfig

    model_config = ModelConfig(model=str(model), **kwargs)
    return SimpleNamespace(model_config=model_config, load_config=LoadConfig())


def test_the_tokenizer_is_the_one_that_is_served(llm):
    model, other = llm
    for settings, expected in (({}, model), ({"tokenizer": str(other)}, other)):
        found = _llm_tokenizer(engine(model, **settings))
        assert found.get_vocab() == load_tokenizer(expected).get_vocab()
        # What `onceedit align` puts into the cache is what the engine looks for.
        assert tokenizer_fingerprint(found) == tokenizer_fingerprint(load_tokenizer(expected))


def test_an_engine_without_a_tokenizer_is_refused(llm):
    with pytest.raises(BadInputError, match="skip_tokenizer_init"):
        _llm_tokenizer(engine(llm[0], skip_tokenizer_init=True))


def test_the_alignment_is_of_the_tokenizer_that_is_served(llm, tmp_path):
    model, other = llm
    settings = engine(model, tokenizer=str(other))
    pack = StandInPack(model, weight_token_id=448)
    assert _llm_folder(settings) == model
    alignment = align(pack, _llm_folder(settings), tokenizer=_llm_tokenizer(settings), cache=tmp_path)
    surface = Surface.of(load_tokenizer(other))
    plugin = Surface.of(load_tokenizer(model))
    for token, partner in enumerate(alignment.carry.tolist()):
        if partner >= 0 and token != plugin.eos_id:
            assert (plugin.token_bytes[token] or b"").startswith(surface.token_bytes[partner] or b"?")


def test_a_hub_id_is_the_revision_that_is_served(tmp_path):
    commits = {"main": "a" * 40, "v2": "b" * 40}
    repository = tmp_path / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in commits.items():
        save_toy_model(repository / "snapshots" / commit)
        (repository / "refs" / revision).write_text(commit)
    asked: tuple[tuple[str | None, str], ...] = ((None, "a" * 40), ("v2", "b" * 40))
    for wanted, commit in asked:
        model = SimpleNamespace(model="someone/some-model", revision=wanted)
        settings = SimpleNamespace(
            model_config=model, load_config=SimpleNamespace(download_dir=str(tmp_path))
        )
        assert _llm_folder(cast(Any, settings)) == repository / "snapshots" / commit
