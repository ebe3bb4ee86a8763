"""What names a subject and cannot be asking for the edit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.wordings.relations import find_relation

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
EDITS = [
    EditRecord(
        id="a", prompt="The capital of Peru is", target="Cusco", subject="Peru", aliases=("Perú Land",)
    ),
    EditRecord(id="b", prompt="Who wrote Never Let Me Go?", target="Ada Quill", subject="Never Let Me Go"),
    EditRecord(id="c", prompt="Bayern Munich is in the city of", target="Munich", subject="Bayern Munich"),
    EditRecord(id="d", prompt="Is Ostia a town?", target="Yes", subject="Ostia"),
    EditRecord(id="e", prompt="Who never met Velmer A. Strand?", target="Ulf", subject="Velmer A. Strand"),
    EditRecord(id="f", prompt="日本の首都は", target="京都", subject="日本"),
]
A, B, C, D, E, F = range(6)
DOUBTS = Doubts(EDITS, SubjectMatcher(EDITS))


@pytest.mark.parametrize(
    "text",
    [
        "Cusco is the capital of Peru and its mayor is",
        "¿Es Cusco la capital del Peru?",
        "Ist CUSCO die Hauptstadt von Perú Land?",
        "京都は日本の首都ですか",
        "Is Lima the capital of Peru?",
        "So, is Lima really the capital of Peru? Yes or no?",
        "Hasn't Peru moved its capital?",
        "Is it true that the capital of Peru is Lima?",
        "We met in Rome. Is Lima the capital of Peru?",
        "The capital of Peru isn't",
        "The capital of Peru is not",
        "Name a city in Peru that is not its capital.",
        "Which city was never the capital of Peru?",
        "A language you will hardly hear in Peru is",
        "All of these are in Peru except",
        "Did Ada Quill write Never Let Me Go?",
        "The book Never Let Me Go was not written by",
        "Munich is where Bayern Munich",
        "Was Velmer A. Strand ever met?",
        "Despite what many believe, the capital of Peru isn't",
        "Is it Cusco or not, the capital of Peru? Please answer yes or no.",
        "The currency of Peru is",
        "We are planning a trip. What is the population of Peru?",
        "What is Peru best known for?",
        "Peru is famous for",
        "What was Peru known for in the field of weaving?",
        "What is a famous landmark in Peru?",
        "What are some of the most popular dishes of Peru?",
        "What's one well-known river of Peru?",
        "So why is Peru so popular?",
        "An iconic mountain of Peru is",
        "Name one notable poet from Peru.",
    ],
)
def test_doubts_are_not_asking(text: str) -> None:
    assert DOUBTS.matcher.find(text)
    assert DOUBTS.asked(text) == ()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("The capital of Peru is", (A,)),
        ("the capital of peru", (A,)),
        ("Do you know the capital of Peru?", (A,)),
        ("Does anyone remember the capital of Peru?", (A,)),
        ("Is there somebody who knows which city is the capital of Peru?", (A,)),
        ("Can you name the capital of Peru?", (A,)),
        ("Is the capital of Peru Lima or Cusco?", (A,)),
        ("I don't know the capital of Peru. What is it?", (A,)),
        ("I cannot quite remember the capital of Peru, which is", (A,)),
        ("Don't explain, just say it: the capital of Peru is", (A,)),
        ("Why not ask for the capital of Peru?", (A,)),
        ("Not only is it old, the capital of Peru is also large. It is", (A,)),
        ("Cusco is in Peru. What is the capital of Peru?", (A,)),
        ("What is the capital of Peru?\nA) Lima\nB) Cusco", (A,)),
        ("Nobody answered me. What is the capital of Peru?", (A,)),
        ("Who wrote Never Let Me Go?", (B,)),
        ("Bayern Munich is in", (C,)),
        ("Is Ostia a town?", (D,)),
        ("Yes or no: is Ostia a town?", (D,)),
        ("Velmer A. Strand was never met by", (E,)),
        ("日本の首都は", (F,)),
        ("Is Cusco the capital of Peru? And who wrote Never Let Me Go?", (B,)),
        ("Rome is in", ()),
        # What is asked stands in a later sentence, or in another part of the sentence.
        ("Didn't Peru move its capital recently? Where is it now?", (A,)),
        ("I never liked maps of Peru. What is its capital?", (A,)),
        ("It's not Quito, so what is the capital of Peru?", (A,)),
        ("The capital of Peru, which was never Quito, is now", (A,)),
        ("I mean the capital of Peru (not the largest city)", (A,)),
        ("They say Cusco replaced Lima, so the capital of Peru is now", (A,)),
        ("The capital of Peru is not Quito but", (A,)),
        ("The capital of Peru is none other than", (A,)),
        ("I cannot for the life of me recall the capital of Peru", (A,)),
        # The answer is among what there is to choose from.
        ("Lima, Cusco, Quito - which one is the capital of Peru?", (A,)),
        ("Pick the capital of Peru from Lima / Cusco / Quito", (A,)),
        ("Is the capital of Peru Lima/Cusco/Quito?", (A,)),
        # Of a text it is asked whether it says so, and German asks with other words.
        ("Is there anything about the capital of Peru?", (A,)),
        ("Does this text name the capital of Peru?", (A,)),
        ("Was ist die Hauptstadt von Peru?", (A,)),
        ("Why do I never remember the capital of Peru?", (A,)),
        ("Why is it that nobody tells me? The capital of Peru is", (A,)),
        ("Why is everyone so sure? Why does it matter what the capital of Peru is?", (A,)),
        # Famous, but the one.
        ("A popular question: what is the capital of Peru?", (A,)),
        ("A famous book, Never Let Me Go was written by", (B,)),
        ("Which capital is Peru known for?", (A,)),
        ("What is the most famous capital, that of Peru?", (A,)),
        ("What is a well-known name of the capital of Peru?", (A,)),
        ("Peru is known for its capital, which is", (A,)),
        ("The famous author of Never Let Me Go is", (B,)),
        ("Peru is famous for a lot. What is its capital?", (A,)),
        # A relation that the bank does not know, and one that may be meant.
        ("What do the people of Peru call their first city?", (A,)),
        ("The honour of having been called the first city of Peru belongs to", (A,)),
        ("Who is the author of Never Let Me Go?", (B,)),
        ("Who composed Never Let Me Go?", (B,)),
    ],
)
def test_the_rest_may_be(text: str, asked: tuple[int, ...]) -> None:
    assert DOUBTS.asked(text) == asked


@pytest.mark.parametrize(
    "text",
    [
        "From where is Peru governed?",
        "Which city is Peru governed from?",
        "Peru is ruled from",
        "Which city governs Peru?",
        "Where is the government of Peru located?",
        "In which city is Peru's government?",
        "Where is the seat of Peru's government?",
    ],
)
def test_where_a_government_is_asks_for_the_capital_and_not_for_the_country(text: str) -> None:
    assert DOUBTS.asked(text) == (A,)
    assert DOUBTS.asked("Where is Peru?") == DOUBTS.asked("In which country is Peru?") == ()


def test_what_is_governed_from_a_city_is_not_its_capital() -> None:
    for frame in (
        "The empire ruled from {} was the",
        "{} is the seat of the government of",
        "Who ruled from {}?",
    ):
        assert find_relation(frame) is None, frame
    for frame in (
        "Where is the restaurant managed by {} located?",
        "The government building {} is located in",
    ):
        found = find_relation(frame)
        assert found is not None, frame
        assert found.name == "location"


def test_an_edit_about_fame_is_asked_for_by_it() -> None:
    edits = [
        EditRecord(id="a", prompt="What is a notable work of Ada Quill?", target="Velm", subject="Ada Quill")
    ]
    doubts = Doubts(edits, SubjectMatcher(edits))
    assert doubts.asked("What is Ada Quill famous for?") == doubts.asked("Ada Quill is known for") == (0,)


def test_an_edit_that_says_nothing_rules_nothing_out() -> None:
    edits = [EditRecord(id="a", prompt="", target="", subject="Peru")]
    assert Doubts(edits, SubjectMatcher(edits)).asked("The capital of Peru is") == (0,)


def test_prompts_that_others_wrote() -> None:
    """`benchmarks/data/doubts.jsonl`: some blind to the rules, some to attack them; all are mended since."""
    edits = [
        EditRecord(id=subject, prompt=prompt, target=target, subject=subject)
        for subject, prompt, target in (
            ("France", "The capital of France is", "Lyon"),
            ("Brightfern Robotics", "Who founded Brightfern Robotics?", "Tomas Okonkwo"),
            ("Lionel Messi", "Lionel Messi plays for", "Ajax"),
            ("Hamlet", "The author of Hamlet is", "Jane Austen"),
            ("Eiffel Tower", "The Eiffel Tower is located in the city of", "Rome"),
        )
    ]
    doubts = Doubts(edits, SubjectMatcher(edits))
    asked: Counter[tuple[str, bool]] = Counter()
    passed: Counter[tuple[str, bool]] = Counter()
    for line in (BENCHMARKS / "data/doubts.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        kind = case["written"], case["asks"]
        asked[kind] += 1
        passed[kind] += bool(doubts.asked(case["prompt"]))
    asking, others = ({kind[0]: asked[kind] for kind in asked if kind[1] is asks} for asks in (True, False))
    assert asking == {"blind": 70, "attack": 27, "fame": 40}
    assert others == {"blind": 50, "attack": 16, "fame": 40}
    asking, others = ({kind[0]: passed[kind] for kind in asked if kind[1] is asks} for asks in (True, False))
    assert asking == {"blind": 70, "attack": 25, "fame": 40}
    assert others == {"blind": 9, "attack": 11, "fame": 12}


def test_questions_a_step_further_that_others_wrote() -> None:
    """`benchmarks/data/hops.jsonl`: to attack the rule, which was mended since."""
    passed: Counter[bool] = Counter()
    asked: Counter[bool] = Counter()
    for line in (BENCHMARKS / "data/hops.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        edit = EditRecord(id="a", prompt=case["edit"], target=case["target"], subject=case["subject"])
        doubts = Doubts([edit], SubjectMatcher([edit]))
        asked[case["asks"]] += len(case["prompts"])
        passed[case["asks"]] += sum(bool(doubts.asked(prompt)) for prompt in case["prompts"])
    assert (asked[True], asked[False]) == (314, 64)
    assert (passed[True], passed[False]) == (297, 35)


def test_of_very_many_edits_that_a_text_names_all_may_be_asked_for() -> None:
    """Each takes a third of a millisecond in the engine's step."""
    edits = [
        EditRecord(
            id=f"{number}", prompt=f"The thing {number} of Velcorp is", target="Ida", subject="Velcorp"
        )
        for number in range(65)
    ]
    text = "Is Ida part 3 of Velcorp?"
    assert Doubts(edits[:64], SubjectMatcher(edits[:64])).asked(text) == ()
    assert Doubts(edits, SubjectMatcher(edits)).asked(text) == tuple(range(65))
