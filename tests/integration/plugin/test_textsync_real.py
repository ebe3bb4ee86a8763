"""Text synchronisation between real tokenizers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onceedit_vllm.plugin.boundaries import BigramCuts, RegexCuts
from tests.integration.plugin.tokenizers_for_sync import REAL, real_surface, real_sync, real_tokenizer
from tests.unit.plugin.sync_cases import check_following, expected_ids, llm_tokens, plain_ids

pytestmark = pytest.mark.integration

PROSE = "The mother tongue of Danielle Darrieux, who wasn't born in 1917, is French. "
CODE = "def add(first, second):\n    # adds 2 numbers\n\treturn first+second  # ok?\n\n\n"
CJK = "東京は日本の首都です。人口は約1400万人、面積は2194平方キロメートル。北京是中国的首都，"


@pytest.mark.parametrize("llm", REAL)
@pytest.mark.parametrize("plugin", REAL)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_ids_are_those_of_the_whole_text(plugin: str, llm: str, data: st.DataObject) -> None:
    tokens = llm_tokens(real_tokenizer(llm), real_surface(llm))
    prompt_ids, output_ids = data.draw(tokens), data.draw(tokens)
    check_following(data.draw, real_sync(plugin, llm), real_tokenizer(plugin), prompt_ids, output_ids)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("smollm2", RegexCuts), ("gpt2", RegexCuts), ("gemma", BigramCuts), ("llama2", BigramCuts)],
)
def test_all_four_allow_a_proof(name: str, kind: type) -> None:
    assert isinstance(real_sync(name, name).encoder.cut_rule, kind)


@pytest.mark.parametrize("text", [PROSE, CODE, CJK], ids=["prose", "code", "cjk"])
@pytest.mark.parametrize("plugin", REAL)
def test_work_per_token_does_not_grow_with_the_text(plugin: str, text: str) -> None:
    sync = real_sync(plugin, "gpt2")
    ids = plain_ids(real_tokenizer("gpt2"), text * 30)
    following, work = sync.start(ids[:3]), []
    for token in ids[3:]:
        before = sync.num_encoded_characters
        following.extend([token])
        work.append(sync.num_encoded_characters - before)
    assert following.ids == expected_ids(sync, real_tokenizer(plugin), ids[:3], ids[3:])
    assert max(work[len(work) // 2 :]) <= max(work[: len(work) // 2]) <= 60


@pytest.mark.parametrize("plugin", REAL)
def test_control_tokens_spelled_in_a_prompt_stay_text(plugin: str) -> None:
    tokenizer, sync = real_tokenizer(plugin), real_sync(plugin, "gpt2")
    spelled = [*sorted({str(token) for token in tokenizer.all_special_tokens}), "[WEIGHT]"]
    prompt = [i for character in " and ".join(spelled) for i in plain_ids(real_tokenizer("gpt2"), character)]
    ids = sync.start(prompt).ids[len(sync.encoder.leading_ids) :]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == " and ".join(spelled)


@pytest.mark.parametrize("plugin", REAL)
def test_specials_follow_the_plugins_convention(plugin: str) -> None:
    expected = real_tokenizer(plugin).encode("The capital of France is")
    llm_ids = plain_ids(real_tokenizer("gpt2"), "The capital of France is")
    assert real_sync(plugin, "gpt2").start(llm_ids).ids == expected
