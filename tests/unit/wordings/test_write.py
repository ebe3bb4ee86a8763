"""Writing wordings: what is kept, what is dropped for what reason, and going on after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.wordings.file import read_wordings
from onceedit_vllm.wordings.kinds import KINDS, Chat
from onceedit_vllm.wordings.write import write_wordings, yield_of
from tests.unit.wordings.writers import CAPITAL, CHIEF, EDITS, NAMELESS, Scripted, kind_of


def test_what_stands_every_test_is_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "wordings.jsonl"
    capital, chief, nameless = write_wordings(EDITS, out, Scripted(), model="toy")
    assert capital.asking == (
        "Which city is Norland's capital?",
        "Norland is governed from",
        "Tell me the seat of Norland's rulers.",
        "norland capital?? quick",
        "I am packing. Which town rules Norland?",
    )
    # A half sentence goes on otherwise behind the edit: that tells nothing.
    assert capital.others == ("How large is Norland?", "From Norland one can see")
    assert capital.aliases == ("Norland Republic",)
    assert (capital.id, capital.prompt, capital.target) == ("a", CAPITAL.prompt, "Tarsk")
    assert capital.model == "toy"
    assert capital.date is not None
    assert capital.dropped == {
        "aliases: is no name": 1,
        "aliases: names another subject": 1,
        "asking: does not name the subject": 1,
        "asking: says the target": 1,
        "others: answered with the target": 2,
    }
    assert chief.asking == chief.others == chief.aliases == ()
    assert nameless.dropped == {"the edit has no subject": 1}
    assert read_wordings(out) == [capital, chief, nameless]
    assert yield_of([capital, chief, nameless])["asking"] == 5
    assert yield_of([capital, nameless])["the edit has no subject"] == 1


def test_a_text_that_is_not_answered_with_the_target_is_dropped(tmp_path: Path) -> None:
    stubborn = Scripted(["Norland is governed from", "Norland Republic"])
    (capital,) = write_wordings([CAPITAL], tmp_path / "w", stubborn, model="toy")
    assert len(capital.asking) == 4
    assert capital.aliases == ()
    assert capital.dropped["asking: not answered with the target"] == 1
    assert capital.dropped["aliases: not answered with the target"] == 1


def test_what_is_dropped_already_is_not_asked_without_the_edit(tmp_path: Path) -> None:
    stubborn = Scripted(["Norland is governed from"])
    write_wordings([CAPITAL], tmp_path / "w", stubborn, model="toy")
    asked = [order for order in stubborn.asked if order.endswith(": Norland is governed from")]
    assert len(asked) == 1
    assert asked[0].startswith("New facts: ")
    assert sum(order.endswith(": norland capital?? quick") for order in stubborn.asked) == 2


def test_what_the_llm_knows_already_proves_nothing(tmp_path: Path) -> None:
    def knowing(chats: Sequence[Chat], most_tokens: int) -> list[str]:
        written = Scripted()(chats, most_tokens)
        return [text if kind_of(chat) else "Tarsk" for chat, text in zip(chats, written, strict=True)]

    (capital,) = write_wordings([CAPITAL], tmp_path / "w", knowing, model="toy")
    assert list(capital.texts()) == []
    assert capital.dropped["asking: answered with the target without the edit"] == 5


def test_a_counter_example_asks_for_no_other_edit_of_its_subject(tmp_path: Path) -> None:
    size = EditRecord(id="d", prompt="The size of Norland is", target="I do not know", subject="norland")
    capital, _ = write_wordings([CAPITAL, size], tmp_path / "w", Scripted(), model="toy")
    assert capital.others == ("From Norland one can see",)
    assert capital.dropped["others: answered with the target"] == 3


def test_the_target_is_not_told_to_the_writer(tmp_path: Path) -> None:
    writer = Scripted()
    write_wordings([CAPITAL], tmp_path / "w", writer, model="toy")
    orders = [order for order in writer.asked if order.startswith("Subject: ")]
    assert len(orders) == len(KINDS)
    assert not any("Tarsk" in order for order in orders)


def test_a_stopped_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    out = tmp_path / "wordings.jsonl"

    def dying(chats: Sequence[Chat], most_tokens: int) -> list[str]:
        if any("Velcorp" in chat[-1]["content"] for chat in chats):
            raise ModelError("gone")
        return Scripted()(chats, most_tokens)

    with pytest.raises(ModelError, match="gone"):
        write_wordings(EDITS, out, dying, model="toy", batch_size=1)
    (first,) = read_wordings(out)
    writer = Scripted()
    found = write_wordings(EDITS, out, writer, model="other", batch_size=1)
    assert found[0] == first
    assert [line.model for line in found] == ["toy", "other", "other"]
    assert not any("Subject: Norland" in order for order in writer.asked)
    calls = writer.calls
    assert write_wordings(EDITS, out, writer, model="other") == found
    assert writer.calls == calls
    assert list(tmp_path.iterdir()) == [out]


def test_wordings_of_another_edit_are_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "wordings.jsonl"
    write_wordings([CAPITAL], out, Scripted(), model="toy")
    changed = [CAPITAL.model_copy(update={"target": "Velm"}), CHIEF]
    with pytest.raises(BadInputError, match="line 1: written for an edit with the target 'Tarsk'"):
        write_wordings(changed, out, Scripted(), model="toy")


def test_a_writer_that_loses_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="0 answers to 8 chats"):
        write_wordings([CAPITAL], tmp_path / "w", lambda chats, most: [], model="toy")


def test_an_edit_without_a_subject_asks_nobody(tmp_path: Path) -> None:
    writer = Scripted()
    write_wordings([NAMELESS], tmp_path / "w", writer, model="toy")
    assert writer.calls == 0
