"""Orders that something be done with a text that asks for an edit."""

from __future__ import annotations

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.editing.tasks import TASKS
from onceedit_vllm.edits import EditRecord
from tests.unit.editing.test_augment import is_task

RECORDS = [
    EditRecord(id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland"),
    EditRecord(id="b", prompt="Who leads Velcorp?", target="Ada Quill", subject="Velcorp"),
]


def test_each_has_one_place_for_the_text() -> None:
    assert all(task.count("{}") == 1 for task in TASKS)
    assert len({*TASKS}) == len(TASKS)


def test_they_are_counter_examples_that_name_the_subject() -> None:
    augmenter = Augmenter(RECORDS, None, EditingConfig())
    drawn = [example for number in range(4) for example in augmenter.examples(number)]
    for index, scope in enumerate(augmenter.scopes):
        found = [example for example in drawn if example.edit == index and is_task(example.text, scope.tasks)]
        assert found
        assert {example.label for example in found} == {0.0}
        assert any(scope.record.prompt.lower() in example.text.lower() for example in found)
        assert not {*scope.tasks} & {*scope.tasks_heldout}
        assert {*scope.tasks, *scope.tasks_heldout} == {*TASKS}
    half, question = (
        [example.text for example in drawn if example.edit == index and example.label == 0.0]
        for index in range(2)
    )
    assert any("The capital of Norland is Tarsk." in text for text in half)  # what is said, too
    assert not any("Who leads Velcorp? Ada Quill." in text for text in question)


def test_some_are_kept_out_of_training() -> None:
    augmenter = Augmenter(RECORDS, None, EditingConfig())
    held = [example for example in augmenter.heldout().same_subject if is_task(example.text, TASKS)]
    assert {example.edit for example in held} == {0, 1}
    for example in held:
        assert not is_task(example.text, augmenter.scopes[example.edit].tasks)


@pytest.mark.parametrize("task", TASKS)
def test_the_pool_sees_the_question_inside(task: str) -> None:
    pool = TextPool(RECORDS, None, EditingConfig())
    assert pool.find(task.replace("{}", RECORDS[1].prompt)) is not None
