"""Which questions are no evidence, because training or calibration can have seen them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.evaluation.record import EvalRecord
from onceedit_vllm.pack import EditPack

#: A question: its record and its place among the record's questions.
Place = tuple[str, int]


def find_contaminated(records: Sequence[EvalRecord], pack: EditPack) -> set[Place]:
    """The questions that training or calibration of a pack can generate, word for word or nearly so.

    An edit's own prompt is what was trained; it is asked all the same.
    """
    pool = TextPool(pack.edits, None, training_settings(pack), pack.wordings)
    return {
        (record.id, index)
        for record in records
        for index, question in enumerate(record.questions)
        if question.stratum != "edit" and pool.find(question.prompt) is not None
    }


def training_settings(pack: EditPack) -> EditingConfig:
    """The settings that a pack was trained with; what its manifest does not say is the default."""
    known = EditingConfig.model_fields
    return EditingConfig(**{key: value for key, value in pack.manifest.training.items() if key in known})


def ids_of(places: Iterable[Place], records: Sequence[EvalRecord]) -> list[str]:
    """The records that hold one of the questions, in their order."""
    marked = {record for record, _ in places}
    return [record.id for record in records if record.id in marked]
