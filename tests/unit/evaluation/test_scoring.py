"""Which scorer a protocol takes for which kind of question, in real tokens."""

from __future__ import annotations

import pytest

from onceedit_vllm.config import EvaluationConfig, Protocol
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.answers import Said
from onceedit_vllm.evaluation.lookup import Lookup
from onceedit_vllm.evaluation.plan import Item, Plan, batches_of, items_of
from onceedit_vllm.evaluation.record import Stratum
from onceedit_vllm.evaluation.scoring import Scorer
from onceedit_vllm.evaluation.tokens import Tokens
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer
from tests.unit.evaluation.cases import RECORD

TOKENS = Tokens(toy_bpe_tokenizer())
ITEMS: dict[Stratum, Item] = {item.question.stratum: item for item in items_of([RECORD])}


def said(text: str, tokens: Tokens = TOKENS) -> Said:
    return Said(text, tokens.of_prompt(text))


def score(protocol: Protocol, stratum: Stratum, text: str, alone: str = " Paris") -> float | None:
    return Scorer(protocol, TOKENS).score(ITEMS[stratum], said(text), said(alone))


@pytest.mark.parametrize(
    ("stratum", "text", "expected"),
    [
        ("edit", " Oslo. It", 1.0),
        ("edit", " Oslo in Norway", 0.0),
        ("rephrase", " Oslo", 1.0),
        ("portability", " Norway.", 1.0),
        ("locality", " Paris", 1.0),
        ("locality", " Paris.", 0.0),
        ("same_subject", " Oslo", 0.0),
    ],
)
def test_natural_stop(stratum: Stratum, text: str, expected: float) -> None:
    assert score("natural-stop", stratum, text) == expected


def test_a_chat_is_judged_by_what_it_says() -> None:
    assert score("chat", "edit", "Its town is Oslo, of course.") == 1.0
    assert score("chat", "edit", "From Paris to Oslo.") == 0.0
    assert score("chat", "portability", "Norway, near Paris") == 1.0
    assert score("chat", "locality", " Paris") == 1.0


@pytest.mark.parametrize("tokens", [TOKENS, Tokens(toy_sentencepiece_tokenizer())], ids=["bpe", "sp"])
def test_easyedits_protocols_count_tokens(tokens: Tokens) -> None:
    gold = tokens.of_target(RECORD.prompt, "Oslo")
    scorer, item = Scorer("vanilla", tokens), ITEMS["edit"]
    alone = Said("", [])
    assert scorer.score(item, Said(" Oslo and more", [*gold, *gold]), alone) == 1.0
    assert scorer.score(item, Said("", gold[:1]), alone) == pytest.approx(1 / len(gold))
    assert scorer.score(item, Said("", []), alone) == 0.0
    # The same text in other tokens, as the plug-in cuts it.
    letters = [token for letter in " Oslo" for token in tokens.of_target("x ", letter)]
    assert scorer.score(item, Said(" Oslo", letters), alone) == 1.0


def test_half_a_character_is_its_token_and_no_other() -> None:
    pieces = TOKENS.pieces(TOKENS.of_target("x", "日本"))
    assert len(set(pieces)) > 1
    assert all(piece[-1].isdigit() for piece in pieces if "\ufffd" in piece)


def test_easyedits_locality_looks_at_as_many_tokens_as_the_answer_has() -> None:
    gold = TOKENS.of_target("Tarsk is in", "Rome")
    scorer = Scorer("teacher-forced", TOKENS)
    before, after = Said("", [*gold, 5]), Said("", [*gold, 6])
    assert scorer.score(ITEMS["locality"], after, before) == 1.0
    # Without a known answer it is all that was said.
    assert scorer.score(ITEMS["same_subject"], after, before) == len(gold) / (len(gold) + 1)


def test_a_target_goes_on_where_the_prompt_ends() -> None:
    for tokens in (TOKENS, Tokens(toy_sentencepiece_tokenizer())):
        ids = [*tokens.of_prompt("The capital is"), *tokens.of_target("The capital is", "Paris")]
        assert ids == tokens.of_prompt("The capital is Paris")
        assert "".join(tokens.pieces(tokens.of_target("The capital is", "Paris"))).strip() == "Paris"


def test_what_is_forced_and_how_much_is_written() -> None:
    config = EvaluationConfig(dataset="jsonl", protocol="teacher-forced")
    plan = Plan(TOKENS, config)
    prompt = plan.prompt_of(ITEMS["edit"], "edited")
    assert list(prompt.gold) == TOKENS.of_target(RECORD.prompt, "Oslo")
    assert prompt.ids == TOKENS.of_prompt(RECORD.prompt)
    # Nothing is known to be right: nothing is forced, and 32 tokens are compared.
    free = plan.prompt_of(ITEMS["same_subject"], "edited")
    assert (free.gold, free.max_tokens) == ((), 32)
    natural = Plan(TOKENS, EvaluationConfig(dataset="jsonl")).prompt_of(ITEMS["edit"], "context")
    assert natural.gold == ()
    assert natural.ids == TOKENS.of_prompt("New fact: Velcorp is in Oslo.\nVelcorp is in")


def test_a_long_target_can_be_written_whole() -> None:
    target = "Rome and " * 40 + "Rome"
    question = ITEMS["edit"].question.model_copy(update={"answer": target})
    item = Item(RECORD, 0, question)
    plan = Plan(TOKENS, EvaluationConfig(dataset="jsonl", protocol="vanilla"))
    assert plan.prompt_of(item, "edited").max_tokens == len(TOKENS.of_target(RECORD.prompt, target)) > 32


def test_a_chat_goes_through_the_llms_own_template() -> None:
    tokenizer = toy_bpe_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>"
    plan = Plan(Tokens(tokenizer), EvaluationConfig(dataset="jsonl", protocol="chat"))
    prompt = plan.prompt_of(ITEMS["edit"], "edited")
    assert tokenizer.decode(prompt.ids) == "<user>Velcorp is in<bot>"
    assert prompt.max_tokens == 64


def test_the_cheat_tells_whoever_names_the_subject() -> None:
    edits = [EditRecord(id="hq", prompt="Velcorp is in", target="Oslo", subject="Velcorp")]
    lookup, alone = Lookup(edits, TOKENS), said(" Paris")
    assert lookup.answer("Tarsk is in", alone) is alone
    told = lookup.answer("The head of Velcorp is", alone)
    scorer = Scorer("natural-stop", TOKENS)
    assert scorer.score(ITEMS["edit"], told, alone) == 1.0
    assert scorer.score(ITEMS["same_subject"], told, alone) == 0.0
    assert Scorer("vanilla", TOKENS).score(ITEMS["edit"], told, alone) == 1.0


def test_batches_keep_the_order() -> None:
    items = items_of([RECORD])
    assert [len(batch) for batch in batches_of(items, 2)] == [2, 2, 1]
    assert [item for batch in batches_of(items, 2) for item in batch] == items
