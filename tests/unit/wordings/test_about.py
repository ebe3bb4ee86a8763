"""What is said of a subject beside its edits."""

from __future__ import annotations

from onceedit_vllm.wordings.about import about
from onceedit_vllm.wordings.relations import find_relation


def test_persons_and_things_have_things_to_say_of_their_own() -> None:
    persons, things = set(about("person")), set(about("building"))
    assert persons - things
    assert things - persons
    assert persons | things == {*about(None)}


def test_every_text_has_one_gap_and_stands_there_once() -> None:
    texts = about(None)
    assert len(texts) == len(set(texts))
    assert all(text.count("{}") == 1 for text in texts)
    # Two of these five do ask; what asks for an edit as the bank has it is never its counter-example.
    assert sum(find_relation(text) is not None for text in texts) == 5
