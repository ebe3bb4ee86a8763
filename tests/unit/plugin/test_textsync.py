"""The plug-in reads what the LLM reads."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.textsync import SyncUpdate, TextSync
from tests.unit.plugin.sync_cases import TEXTS, check_following, expected_ids, llm_tokens, plain_ids
from tests.unit.plugin.zoo import UNPROVEN, ZOO, from_zoo

LLMS = ("byte-level", "sentencepiece", "gemma")
SURFACES = {name: Surface.of(from_zoo(name)) for name in LLMS}


def make(plugin: str = "byte-level", llm: str = "byte-level", **options: object) -> TextSync:
    return TextSync(from_zoo(plugin), SURFACES[llm], **{"max_context": 10**6, **options})  # type: ignore[arg-type]


SYNCS = {(plugin, llm): make(plugin, llm) for plugin in ZOO for llm in LLMS}


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize("plugin", ZOO)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ids_are_those_of_the_whole_text(plugin: str, llm: str, data: st.DataObject) -> None:
    tokens = llm_tokens(from_zoo(llm), SURFACES[llm])
    check_following(data.draw, SYNCS[plugin, llm], from_zoo(plugin), data.draw(tokens), data.draw(tokens))


@pytest.mark.parametrize("plugin", ["byte-level", "qwen", "sentencepiece", "sentencepiece, prepending"])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), prefix=TEXTS, suffix=TEXTS)
def test_template_surrounds_the_prompt(plugin: str, data: st.DataObject, prefix: str, suffix: str) -> None:
    sync = make(plugin, "sentencepiece", prefix=prefix, suffix=suffix)
    tokens = llm_tokens(from_zoo("sentencepiece"), SURFACES["sentencepiece"])
    prompt_ids, output_ids = data.draw(tokens), data.draw(tokens)
    text = sync.start(prompt_ids)
    if text.ready:
        assert text.ids == expected_ids(sync, from_zoo(plugin), prompt_ids, [])
    check_following(data.draw, sync, from_zoo(plugin), prompt_ids, output_ids)


@pytest.mark.parametrize("plugin", [name for name in ZOO if name not in UNPROVEN])
def test_work_per_token_does_not_grow_with_the_text(plugin: str) -> None:
    sync = make(plugin)
    ids = plain_ids(from_zoo("byte-level"), "The play was written by a writer, who lives in Rome.\n" * 40)
    text = sync.start(ids[:5])
    work = []
    for token in ids[5:]:
        before = sync.num_encoded_characters
        text.extend([token])
        work.append(sync.num_encoded_characters - before)
    assert len(ids) > 500
    assert max(work[100:]) <= max(work[:100]) <= 40


@pytest.mark.parametrize("plugin", UNPROVEN)
def test_without_a_proof_texts_are_encoded_whole(plugin: str) -> None:
    sync = make(plugin)
    text = sync.start(plain_ids(from_zoo("byte-level"), "The tower"))
    before = sync.num_encoded_characters
    text.extend(plain_ids(from_zoo("byte-level"), "s"))
    assert sync.num_encoded_characters - before == len("The towers")


def test_only_what_changed_is_read_again() -> None:
    sync = make("sentencepiece")
    output = plain_ids(from_zoo("byte-level"), "The mother tongue of Danielle Darrieux is French. " * 5)
    text = sync.start([])
    updates = [text.extend([token]) for token in output]
    assert max(update.rollback for update in updates) <= 8
    assert sum(len(update.new_ids) for update in updates) < 2 * len(text.ids)


def test_a_text_whose_tokens_become_fewer_still_gives_one_to_read() -> None:
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "e": 2}, merges=[]))
    core.normalizer = normalizers.NFC()
    plugin = PreTrainedTokenizerFast(tokenizer_object=core)
    text = TextSync(plugin, SURFACES["byte-level"], max_context=99).start([])
    text.extend(plain_ids(from_zoo("byte-level"), "be"))
    assert text.ids == [1, 2]
    # Composed to é, which this plug-in has no token for.
    accent = [SURFACES["byte-level"].id_of[bytes([byte])] for byte in "\u0301".encode()]
    assert text.extend(accent) == SyncUpdate(2, (1,))
    assert text.ids == [1]


def bytes_of(text: str) -> list[int]:
    """A text in byte-level tokens of one byte each."""
    return [SURFACES["byte-level"].id_of[bytes([byte])] for byte in text.encode()]


def test_incomplete_character_waits_where_there_are_no_tokens_for_bytes() -> None:
    sync = make("unigram")
    first, *middle, last = bytes_of("😀")
    text = sync.start(plain_ids(from_zoo("byte-level"), "play"))
    before = text.ids
    assert text.extend([first]) == text.extend(middle) == SyncUpdate(0, ())
    assert (text.ready, text.reaches_end) == (False, False)
    assert text.ids == before
    text.extend([last])
    assert (text.ready, text.reaches_end) == (True, True)
    assert text.ids == plain_ids(from_zoo("unigram"), "play😀")


@pytest.mark.parametrize("plugin", ["byte-level", "qwen", "sentencepiece"])
@pytest.mark.parametrize("character", ["ř", "語", "😀"])
def test_the_bytes_of_a_begun_character_are_read(plugin: str, character: str) -> None:
    """Token by token what the plug-in itself writes: beginnings of the whole text's tokens, to the byte."""
    sync, tokenizer = make(plugin), from_zoo(plugin)
    surface = Surface.of(tokenizer)
    text = sync.start(plain_ids(from_zoo("byte-level"), "play "))
    encoded = b"play " + character.encode()
    for at, token in enumerate(bytes_of(character), start=1):
        assert text.extend([token]).new_ids
        assert (text.ready, text.reaches_end) == (at == len(character.encode()), True)
        plain = text.ids[len(sync.encoder.leading_ids) :]
        assert surface.decode_bytes(plain).lstrip(b" ") == encoded[: 5 + at]
    assert text.ids == [*sync.encoder.leading_ids, *plain_ids(tokenizer, f"play {character}")]


def test_begun_bytes_merge_with_what_they_stand_behind() -> None:
    """A plug-in that was taught " ř" as a space with the first byte, and the second, reads it so."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merged = "ĠÅ"
    core = Tokenizer(models.BPE(vocab={**alphabet, merged: 256}, merges=[("Ġ", "Å")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    plugin = PreTrainedTokenizerFast(tokenizer_object=core)
    text = TextSync(plugin, SURFACES["byte-level"], max_context=99).start([])
    text.extend(bytes_of("a "))
    first, second = bytes_of("ř")
    assert text.extend([first]) == SyncUpdate(1, (256,))
    whole = plugin.encode("a ř")
    assert text.ids == whole[:-1]
    assert text.extend([second]) == SyncUpdate(0, tuple(whole[-1:]))


def test_a_byte_without_a_token_waits_and_no_other_does() -> None:
    """Real tokenizers have none for bytes that they never met: SmolLM2's lacks 21 of 256."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter != "ð")
    core = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sync = TextSync(PreTrainedTokenizerFast(tokenizer_object=core), SURFACES["byte-level"], max_context=99)
    text = sync.start([])
    assert text.extend(bytes_of("ř")[:1]).new_ids
    assert text.reaches_end
    text.extend(bytes_of("ř")[1:])
    assert text.extend(bytes_of("😀")[:1]) == SyncUpdate(0, ())  # 0xF0, which byte-level spells "ð"
    assert not text.reaches_end


def test_prompt_may_end_inside_a_character() -> None:
    sync = make()
    *begun, last = bytes_of("語")
    text = sync.start([*plain_ids(from_zoo("byte-level"), "a"), *begun])
    assert (text.ready, text.reaches_end) == (False, True)
    assert sync.surface.decode_bytes(text.ids) == "a語".encode()[:-1]
    text.extend([last])
    assert text.ready
    assert text.ids == plain_ids(from_zoo("byte-level"), "a語")


def test_special_tokens_are_skipped_in_prompts_and_end_outputs() -> None:
    tokenizer, sync = from_zoo("byte-level"), make()
    words, eos = plain_ids(tokenizer, "the play"), tokenizer.eos_token_id
    text = sync.start([eos, *words, eos, *words])
    assert text.ids == plain_ids(tokenizer, "the playthe play")
    assert not text.ended
    text.extend([*words, eos, *words])
    assert text.ended
    assert text.ids == plain_ids(tokenizer, "the play" * 3)
    assert text.extend(words) == SyncUpdate(0, ())


def test_ids_without_a_token_end_the_output() -> None:
    text = make().start([])
    text.extend([SURFACES["byte-level"].vocab_size + 5])
    assert text.ended


def test_the_plugins_own_bos_comes_first() -> None:
    tokenizer = from_zoo("sentencepiece")
    ids = make("sentencepiece").start(plain_ids(from_zoo("byte-level"), "the play")).ids
    assert ids == tokenizer.encode("the play")
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("spelled", ["<|endoftext|>", "<s>", "</s>", "[WEIGHT]"])
@pytest.mark.parametrize("plugin", ["byte-level", "sentencepiece", "gemma"])
def test_text_never_becomes_a_control_token(plugin: str, spelled: str) -> None:
    sync = make(plugin)
    prompt = [i for piece in ("Say ", *spelled, " now") for i in plain_ids(from_zoo("byte-level"), piece)]
    special = set(from_zoo(plugin).all_special_ids)
    body = sync.start(prompt).ids[len(sync.encoder.leading_ids) :]
    assert body == plain_ids(from_zoo(plugin), f"Say {spelled} now")
    assert not special & set(body)


class TestWindow:
    def test_ids_are_the_end_of_the_text_and_updates_lead_there(self) -> None:
        sync, tokenizer = make("sentencepiece", max_context=40), from_zoo("sentencepiece")
        output = plain_ids(from_zoo("byte-level"), "The capital of France is Paris, 365 days! " * 12)
        text = sync.start([])
        read, rebuilt = text.ids, 0
        for i, token in enumerate(output):
            update = text.extend([token])
            rebuilt += update.rollback == len(read)
            read = [*read[: len(read) - update.rollback], *update.new_ids]
            assert read == text.ids
            if text.ready:
                whole = expected_ids(make("sentencepiece"), tokenizer, [], output[: i + 1])
                assert read[0] == whole[0] == tokenizer.bos_token_id
                assert read[1:] == whole[1:][-(len(read) - 1) :]
                assert len(whole) <= 40 or 40 - 10 < len(read) <= 40
        assert 5 < rebuilt < len(output) / 5

    @pytest.mark.parametrize("plugin", ["sentencepiece", "unigram"])
    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), max_context=st.integers(8, 30))
    def test_ids_do_not_depend_on_the_way_there(
        self, plugin: str, data: st.DataObject, max_context: int
    ) -> None:
        sync = make(plugin, max_context=max_context)
        whole = SYNCS[plugin, "byte-level"]
        tokens = llm_tokens(from_zoo("byte-level"), SURFACES["byte-level"])
        prompt_ids, output_ids = data.draw(tokens), data.draw(tokens)
        stepwise, at_once, unlimited = sync.start(prompt_ids), sync.start(prompt_ids), whole.start(prompt_ids)
        read = stepwise.ids
        for token in output_ids:
            update = stepwise.extend([token])
            read = [*read[: len(read) - update.rollback], *update.new_ids]
            assert read == stepwise.ids
            assert len(read) <= max_context
        at_once.extend(output_ids)
        unlimited.extend(output_ids)
        leading = list(sync.encoder.leading_ids)
        body = unlimited.ids[len(leading) :]
        assert stepwise.ids == at_once.ids == [*leading, *body[sync.window_start(len(body)) :]]

    def test_changes_before_the_window_are_not_read(self) -> None:
        sync = make("digits from the right", max_context=24)
        text = sync.start([])
        read = text.ids
        for digit in "0" * 120:
            update = text.extend(plain_ids(from_zoo("byte-level"), digit))
            assert update.rollback <= len(read)
            read = [*read[: len(read) - update.rollback], *update.new_ids]
            assert read == text.ids
        assert len(text.ids) > 18

    def test_counted_per_text_and_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        sync = make(max_context=8)
        long = plain_ids(from_zoo("byte-level"), "The mother tongue of Danielle Darrieux is French. " * 3)
        with caplog.at_level(logging.WARNING, logger="onceedit_vllm.plugin"):
            sync.start(long[:4])
            assert sync.num_truncated == 0
            sync.start(long).extend(long)
            sync.start(long)
        assert sync.num_truncated == 2
        assert [record.name for record in caplog.records] == ["onceedit_vllm.plugin"]

    def test_no_room(self) -> None:
        with pytest.raises(BadInputError, match="max_context=2"):
            make("sentencepiece", max_context=2)
