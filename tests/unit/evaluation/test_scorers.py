"""What is right and what is not, on cases made by hand; EasyEdit's definitions among them."""

from __future__ import annotations

import pytest

from onceedit_vllm.evaluation.scorers import (
    forced_accuracy,
    is_exact,
    is_said,
    natural_stop,
    normalise_answer,
    text_accuracy,
    token_accuracy,
    token_agreement,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" Oslo.", "oslo"),
        ("The  Netherlands", "netherlands"),
        ("“A Tale”", "tale"),
        ("Wilt Chamberlain *", "wilt chamberlain"),
        ("Straße", "strasse"),
        ("C++", "c"),
        ("?!", "?!"),
        ("Theatre", "theatre"),
    ],
)
def test_answers_are_folded(text: str, plain: str) -> None:
    assert normalise_answer(text) == plain


@pytest.mark.parametrize(
    ("text", "target", "kept"),
    [
        (" Oslo. It is cold.", "Oslo", " Oslo"),
        (" Oslo\nQuestion:", "Oslo", " Oslo"),
        (" 3.5 metres. High", "3.5 metres", " 3.5 metres"),
        (" St. Louis. A city", "St. Louis", " St. Louis"),
        (" St. Louis is", "Oslo", " St"),
        (" Washington, D.C. is", "Washington, D.C.", " Washington, D.C"),
        ("\nOslo", "Oslo", ""),
        (" Oslo", "Oslo", " Oslo"),
    ],
)
def test_an_answer_ends_by_itself(text: str, target: str, kept: str) -> None:
    assert natural_stop(text, target) == kept


def test_the_headline_wants_the_target_and_nothing_else() -> None:
    assert is_exact(" Oslo.", "Oslo")
    assert is_exact(" the oslo", "Oslo")
    assert is_exact(" Washington, D.C. and", "Washington, D.C.")
    assert not is_exact(" Oslo, Norway.", "Oslo")
    assert not is_exact("", "Oslo")


def test_a_chat_must_say_the_new_answer_and_not_the_old_one() -> None:
    assert is_said("It has been moved to Oslo, I think.", "Oslo", "Paris")
    assert not is_said("It is in Oslo, not in Paris.", "Oslo", "Paris")
    assert not is_said("Oslofjord", "Oslo")
    # An old answer inside the new one is no mistake.
    assert is_said("In New York.", "New York", "York")
    assert is_said("In Oslo.", "Oslo")


def test_easyedits_accuracy_is_the_share_of_target_tokens_in_place() -> None:
    # np.mean(np.equal(target, answer)): two of three.
    assert token_accuracy([" Ada", " Qu", "ick"], [" Ada", " Qu", "ill"]) == pytest.approx(2 / 3)
    assert token_accuracy([" Oslo"], [" Oslo"]) == 1.0
    # Nothing said is nothing right; what goes on behind the target is not looked at.
    assert token_accuracy([], [" Oslo"]) == 0.0
    assert token_accuracy([" Oslo", ","], [" Oslo"]) == 1.0


def test_the_space_before_a_word_is_no_error() -> None:
    """EasyEdit compares ids of "Oslo" with those of " Oslo", which differ in every vocabulary of bytes."""
    assert token_accuracy([" Oslo"], ["Oslo"]) == 1.0
    assert token_accuracy(["▁Oslo".replace("▁", " ")], ["oslo"]) == 1.0


def test_a_text_may_be_cut_elsewhere() -> None:
    wanted = [" Nikola", " Tesla"]
    assert text_accuracy(" Nikola Tesla, who", wanted) == 1.0
    assert text_accuracy(" Nikita Tesla", wanted) == 0.5
    assert text_accuracy(" Nik", wanted) == 0.0
    assert text_accuracy("", wanted) == 0.0
    # Pieces without the space before them, as SentencePiece gives them.
    assert text_accuracy("Nikola Tesla", ["Nik", "ola", "Tesla"]) == 1.0


def test_a_winner_is_right_where_it_begins_what_is_still_to_be_said() -> None:
    wanted = [" Nikola", " Tesla"]
    assert forced_accuracy([" Nikola", " Tesla"], wanted) == 1.0
    assert forced_accuracy([" Nik", " Tes"], wanted) == 1.0
    assert forced_accuracy([" Nikola Tesla", " Tesla"], wanted) == 1.0
    assert forced_accuracy([" Nikolas", " Edison"], wanted) == 0.0
    # A blank begins everything and says nothing.
    assert forced_accuracy([" ", " Tesla"], wanted) == 0.5
    assert forced_accuracy([], wanted) == 0.0


def test_easyedits_locality_is_agreement_with_what_was_said_before() -> None:
    assert token_agreement([1, 2, 3, 4], [1, 2, 9, 4]) == pytest.approx(3 / 4)
    assert token_agreement([1, 2], [1, 2]) == 1.0
    assert token_agreement([], []) == 1.0
    # One that ended earlier is not the same.
    assert token_agreement([1], [1, 2]) == 0.5
