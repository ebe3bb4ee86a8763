"""Text synchronisation between real tokenizers."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onceedit_vllm.plugin.cuts import BigramCuts, RegexCuts
from tests.integration.plugin.tokenizers_for_sync import MORE, REAL, real_surface, real_sync, real_tokenizer
from tests.unit.plugin.sync_cases import check_following, expected_ids, llm_tokens, plain_ids

pytestmark = pytest.mark.integration

PROSE = "The mother tongue of Danielle Darrieux, who wasn't born in 1917, is French. "
CODE = "def add(first, second):\n    # adds 2 numbers\n\treturn first+second  # ok?\n\n\n"
CJK = "東京は日本の首都です。人口は約1400万人、面積は2194平方キロメートル。北京是中国的首都，"
#: What regexes, normalizers and merges treat apart: contractions, digits in groups, runs of whitespace,
#: marks, Hangul letters, characters newer than some tables, looks of control tokens.
NASTY = (
    "a", "e", "s", "re", "LL", "ß", "ſ", "'", "’", '"', "1", "23", "²", "٣", " ", "  ", "\n", "\r\n", "\t",
    "\u00a0", "\u3000", "\x1c", "\x85", "!", "...", "_", "-", "=" * 8, "\u0301", "\u0323", "\u0344", "é",
    "\u212b", "\u09c7", "\u09be", "ᄒ", "ᅡ", "ᆫ", "하", "語", "。", "，", "か", "\u3099", "हि", "\u094d", "א",
    "😀", "\U0001fae8", "\u200d", "\ufe0f", "🏽", "\u0295", "\u1c89", "\u0558", "\uffff", "\ufffd", "▁", "Ġ",
    "<|im_end|>", "<s>", "</s>", "<eos>", "<0x41>", "<table>", "<tool_call>", "<|fim_prefix|>",
)  # fmt: skip


@pytest.mark.parametrize("llm", REAL)
@pytest.mark.parametrize("plugin", REAL)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_ids_are_those_of_the_whole_text(plugin: str, llm: str, data: st.DataObject) -> None:
    tokens = llm_tokens(real_tokenizer(llm), real_surface(llm))
    prompt_ids, output_ids = data.draw(tokens), data.draw(tokens)
    check_following(data.draw, real_sync(plugin, llm), real_tokenizer(plugin), prompt_ids, output_ids)


@pytest.mark.parametrize("plugin", MORE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_ids_of_more_plugins_are_those_of_the_whole_text(plugin: str, data: st.DataObject) -> None:
    tokens = llm_tokens(real_tokenizer("gpt2"), real_surface("gpt2"))
    prompt_ids, output_ids = data.draw(tokens), data.draw(tokens)
    check_following(data.draw, real_sync(plugin, "gpt2"), real_tokenizer(plugin), prompt_ids, output_ids)


@pytest.mark.parametrize("plugin", [*REAL, *MORE])
def test_ids_are_those_of_the_whole_text_however_it_is_split(plugin: str) -> None:
    tokenizer, sync, surface = real_tokenizer(plugin), real_sync(plugin, "gpt2"), real_surface("gpt2")
    chance = random.Random(20)
    for _ in range(400):
        alphabet = chance.sample(NASTY, chance.randint(2, len(NASTY)))
        following, text = sync.start([]), ""
        for _ in range(chance.randint(1, 12)):
            piece = "".join(chance.choices(alphabet, k=chance.randint(1, 6)))
            following.extend([surface.id_of[bytes([byte])] for byte in piece.encode()])
            text += piece
            assert following.ids == [*sync.encoder.leading_ids, *plain_ids(tokenizer, text)], ascii(text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("smollm2", RegexCuts), ("gpt2", RegexCuts), ("gemma", BigramCuts), ("llama2", BigramCuts),
        ("mistral", BigramCuts), ("qwen", RegexCuts), ("llama3", RegexCuts),
    ],
)  # fmt: skip
def test_all_allow_a_proof(name: str, kind: type) -> None:
    assert isinstance(real_sync(name, name).encoder.cut_rule, kind)


@pytest.mark.parametrize("text", [PROSE, CODE, CJK], ids=["prose", "code", "cjk"])
@pytest.mark.parametrize("plugin", [*REAL, *MORE])
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


@pytest.mark.parametrize("answer", [" Příbram", " Þórshöfn", " 東京", " Київ"])
@pytest.mark.parametrize("plugin", [*REAL, *MORE])
def test_what_a_plugin_writes_of_a_character_it_reads(plugin: str, answer: str) -> None:
    """Byte by byte, as an LLM may write it: each beginning that the plug-in would write is read as such.

    Where the plug-in has a token for the whole character it never writes its bytes; then only the end counts.
    """
    tokenizer, sync, surface = real_tokenizer(plugin), real_sync(plugin, "gpt2"), real_surface("gpt2")
    text = sync.start(plain_ids(real_tokenizer("gpt2"), "The town is"))
    before, own = len(text.ids), real_surface(plugin) if plugin in REAL else None
    whole = [*sync.encoder.leading_ids, *plain_ids(tokenizer, f"The town is{answer}")]
    for at, byte in enumerate(answer.encode(), start=1):
        text.extend([surface.id_of[bytes([byte])]])
        assert text.reaches_end
        if own is not None:
            written = answer.encode()[:at]
            for end in range(before, len(whole) + 1):
                if own.decode_bytes(whole[before:end]) == written:
                    assert text.ids == whole[:end]
    assert text.ids == whole
