"""Records beside the edits of a pack."""

from __future__ import annotations

from onceedit_vllm.edits import normalise
from onceedit_vllm.evaluation.record import Asked, EvalRecord


def test_another_edits_prompt_is_nothing_that_must_not_change() -> None:
    other = "The place of death of Prince Philip is"
    record = EvalRecord(
        id="a",
        prompt="The father of Prince Philip is",
        target="Ada Quill",
        questions=(
            Asked(stratum="edit", prompt="The father of Prince Philip is", answer="Ada Quill"),
            Asked(stratum="same_subject", prompt="the place of death of  Prince Philip is"),
            Asked(stratum="same_subject", prompt="The mother of Prince Philip is"),
            Asked(stratum="portability", prompt=other),
        ),
    )
    prompts = {normalise(record.prompt), normalise(other)}
    kept = [question.stratum for question in record.beside(prompts).questions]
    assert kept == ["edit", "same_subject", "portability"]
    assert record.beside(prompts).questions[1].prompt == "The mother of Prince Philip is"
    assert record.beside(set()) == record
