"""Examples from edits: balance, honesty and repeatability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import LEAST_REPLAYED, REPLAY_COPIES, Augmenter, Replay
from onceedit_vllm.editing.unrelated import Unrelated
from onceedit_vllm.edits import TEMPLATES, EditRecord, normalise
from onceedit_vllm.wordings.wordings import Wordings

RECORDS = [
    EditRecord(
        id="a", prompt="The capital of Lumora is", target="Port Selwyn", subject="Lumora",
        rephrases=("Lumora is governed from the city of",), locality=("The flag of Lumora shows",),
    ),
    EditRecord(id="b", prompt="Who founded Brightfern?", target="Tomas Okonkwo", subject="Brightfern"),
    EditRecord(id="c", prompt="The glimmerstone of Arvandor was forged by", target="Ulf"),
    EditRecord(id="d", prompt="qwerty asdf", target="zxcv"),
]  # fmt: skip


def make(records: list[EditRecord] = RECORDS, **settings: object) -> Augmenter:
    return Augmenter(records, None, EditingConfig.model_validate({"template": "none"} | settings))


def test_rounds_repeat_under_a_seed_and_differ_otherwise() -> None:
    assert make(seed=3).examples(1) == make(seed=3).examples(1)
    assert make(seed=3).examples(1) != make(seed=4).examples(1)
    assert make(seed=3).examples(1) != make(seed=3).examples(2)


def test_every_edit_has_its_prompt_and_about_as_many_negatives_as_positives() -> None:
    augmenter = make()
    examples = augmenter.examples(0)
    texts = [example.text for example in examples if example.label == 1.0]
    assert all(record.prompt in texts for record in RECORDS)
    copies = augmenter.copies_per_edit * len(RECORDS)
    assert len(texts) == copies
    assert sum(example.label == 0.0 for example in examples) >= 0.8 * copies


def test_most_counter_examples_name_a_subject_and_some_the_same_wording_with_another() -> None:
    examples = make([RECORDS[0]]).examples(0)
    negatives = [example.text for example in examples if example.label == 0.0]
    unrelated = EditingConfig().unrelated_per_round
    assert sum("lumora" in text.lower() for text in negatives) > (len(negatives) - unrelated) / 2
    scope = make([RECORDS[0]]).scopes[0]
    asked = [
        text
        for text in negatives
        if "capital" in text.lower() and not _has_any(scope.doubts, text) and not is_task(text, scope.tasks)
    ]
    assert asked
    # Only where the subject stands beside the question may both be in one text.
    assert all("lumora" not in text.lower().split(". ")[-1].split(": ")[-1] for text in asked)


def is_task(text: str, tasks: Iterable[str]) -> bool:
    """Whether a text is to be done something with, by one of these orders."""
    words = text.lower()
    return any(all(part in words for part in task.lower().split("{}")) for task in tasks)


def _has_any(parts: Iterable[str], text: str) -> bool:
    """Whatever is put around a text, and however it is dressed, its words stay."""
    words = normalise(text)
    return any(normalise(part) in words for part in parts)


def test_calibration_asks_for_relations_that_training_does_not() -> None:
    augmenter = make()
    held = {example.text for example in augmenter.heldout().same_subject}
    assert held
    trained = {example.text for number in range(8) for example in augmenter.examples(number)}
    assert not held & trained


def test_no_negative_asks_for_an_edit() -> None:
    augmenter = make(RECORDS)
    asked = {
        normalise(scope.say(frame)) for scope in augmenter.scopes for frame in (*scope.frames, *scope.heldout)
    }
    asked |= {normalise(text) for record in RECORDS for text in (record.prompt, *record.rephrases)}
    for number in range(6):
        negatives = [example.text for example in augmenter.examples(number) if example.label == 0.0]
        assert not asked & {normalise(text) for text in negatives}


def test_rephrases_and_locality_are_not_trained_on_unless_asked_for() -> None:
    rephrase, neighbour = RECORDS[0].rephrases[0], RECORDS[0].locality[0]
    plain = [example.text for number in range(8) for example in make().examples(number)]
    assert not any(rephrase in text or neighbour in text for text in plain)
    chosen = make(train_on_rephrases=True, train_on_locality=True).examples(0)
    assert (rephrase, 1.0) in [(example.text, example.label) for example in chosen]
    assert (neighbour, 0.0) in [(example.text, example.label) for example in chosen]


def test_heldout_wordings_are_never_trained_on() -> None:
    augmenter = make()
    held = {example.text for example in augmenter.heldout().positives}
    assert {example.edit for example in augmenter.heldout().positives} == {0, 1, 2, 3}
    trained = {example.text for number in range(8) for example in augmenter.examples(number)}
    assert not held & trained


def test_learnt_edits_get_half_the_copies_and_keep_their_answers() -> None:
    augmenter = make()
    whole = [e for e in augmenter.examples(0) if e.edit == 0 and e.label == 1.0]
    half = [e for e in augmenter.examples(0, learnt={0}) if e.edit == 0 and e.label == 1.0]
    assert len(half) < len(whole)
    assert half[0].target is not None
    assert {example.target for example in half} == {whole[0].target}


def test_siblings_of_a_relation_lend_each_other_their_templates() -> None:
    pairs = [("{} zorbs in", "A"), ("{} zorbs in", "B"), ("The zorbing place of {} was", "A"),
             ("The zorbing place of {} was", "B")]  # fmt: skip
    records = [
        EditRecord(id=str(n), prompt=frame.replace("{}", name), target=target, subject=name)
        for n, ((frame, target), name) in enumerate(zip(pairs, ("Ada", "Bob", "Cid", "Dan"), strict=True))
    ]
    first = make(records).scopes[0]
    assert "The zorbing place of {} was" in (*first.frames, *first.heldout)


def test_templates_wrap_every_example() -> None:
    template = TEMPLATES["zsre"]
    for example in make(template="zsre").examples(0):
        assert example.text.startswith(template.prefix)
        assert example.text.endswith(template.suffix)


def test_own_unrelated_prompts_take_the_place_of_the_default_ones() -> None:
    mine = [Unrelated(f"my unrelated prompt {number}") for number in range(20)]
    examples = Augmenter(RECORDS, mine, EditingConfig(template="none", unrelated_per_round=16)).examples(0)
    texts = {example.text for example in examples if example.label == 0.0}
    assert len(texts & {item.prompt for item in mine}) == 16


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_any_number_of_edits_works(count: int) -> None:
    records = [EditRecord(id=str(n), prompt=f"The zorb of Arv{n} is", target="x") for n in range(count)]
    augmenter = make(records)
    assert {example.edit for example in augmenter.examples(0)} == {-1, *range(count)}
    assert augmenter.heldout().neighbours


def test_old_edits_are_replayed_in_turns_and_forgotten_ones_trained_like_new_ones() -> None:
    records = [
        EditRecord(id=str(n), prompt=f"The capital of Lumo{n}ra is", target=f"Port {n}", subject=f"Lumo{n}ra")
        for n in range(50)
    ]
    config, old = EditingConfig(template="none", unrelated_per_round=0), frozenset(range(48))
    augmenter = Augmenter(records, None, config, replay=Replay(old))

    def positives(round_number: int, learnt: frozenset[int]) -> Counter[int]:
        return Counter(each.edit for each in augmenter.examples(round_number, learnt) if each.label > 0.5)

    assert augmenter.copies_per_edit == 48  # of two new edits, not of fifty
    rounds = [positives(number, old) for number in range(3)]
    assert all(each[48] == each[49] == 48 for each in rounds)
    replayed = [set(each) - {48, 49} for each in rounds]
    assert [len(each) for each in replayed] == [LEAST_REPLAYED] * 3
    assert set().union(*replayed) == old
    assert {rounds[0][index] for index in replayed[0]} == {REPLAY_COPIES}
    assert positives(0, old - {7})[7] == 48


def test_removed_edits_are_counter_examples() -> None:
    gone = EditRecord(id="g", prompt="The anthem of Norland is", target="Rise", subject="Norland")
    augmenter = Augmenter(RECORDS, None, EditingConfig(template="none"), replay=Replay(removed=(gone,)))
    found = [each for each in augmenter.examples(0) if each.text == gone.prompt]
    assert found
    assert all((each.label, each.target) == (0.0, None) for each in found)


#: For the edit whose relation the bank does not know.
WRITTEN = Wordings(
    id="c",
    asking=(
        "Whose forge made the glimmerstone of Arvandor?", "The smith behind Arvandor's glimmerstone was",
        "Tell me the maker of the glimmerstone of Arvandor.", "Arvandor's glimmerstone came from the hand of",
        "Arvandor! Who made Arvandor's stone?",
    ),
    others=(
        "How heavy is the glimmerstone of Arvandor?", "Where does the stone of Arvandor lie?",
        "Does Arvandor trade in gems?", "Which road leads to Arvandor?",
    ),
)  # fmt: skip


def make_written() -> Augmenter:
    return Augmenter(RECORDS, None, EditingConfig(template="none"), [WRITTEN])


def test_written_wordings_are_trained_as_positives_and_counter_examples_as_negatives() -> None:
    augmenter = make_written()
    drawn = [example for number in range(12) for example in augmenter.examples(number)]
    scope = augmenter.scopes[2]
    for text in (*map(scope.say, scope.frames), *scope.texts):
        assert {example.edit for example in drawn if example.text == text and example.label} == {2}
    for text in scope.others:
        assert {example.label for example in drawn if example.text == text} == {0.0}


def test_the_share_held_out_calibrates_and_is_never_trained() -> None:
    augmenter = make_written()
    scope, held = augmenter.scopes[2], augmenter.heldout()
    asked = {example.text for example in held.positives if example.edit == 2}
    assert asked == {*map(scope.say, scope.heldout), *scope.texts_heldout}
    assert asked & {*WRITTEN.asking}
    (other,) = scope.others_heldout
    assert [example.edit for example in held.same_subject if example.text == other] == [2]
    trained = {normalise(example.text) for number in range(12) for example in augmenter.examples(number)}
    assert not {normalise(text) for text in (*asked, other)} & trained


def test_edits_without_written_wordings_do_not_change_their_own() -> None:
    written, plain = make_written(), make()
    assert [scope for scope in written.scopes if scope.record.id != "c"] == [
        scope for scope in plain.scopes if scope.record.id != "c"
    ]


def test_counter_examples_that_ask_for_an_edit_are_left_out() -> None:
    wrong = Wordings(id="a", others=("Lumora is governed from the city of",))  # a rephrase of the edit
    augmenter = Augmenter(RECORDS, None, EditingConfig(template="none"), [wrong])
    drawn = [example for number in range(6) for example in augmenter.examples(number)]
    assert not [example for example in drawn if example.text == wrong.others[0]]
