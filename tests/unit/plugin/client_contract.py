"""What every plug-in host must do, wherever it runs the plug-in.

A test class derives from :class:`ClientContract` and gives it the fixture `client`: one engine's end of a
host that runs the toy plug-in of `plug_in`, attached with `vocabulary_of(plug_in)`.
"""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from onceedit_vllm.alignment.align import align
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.pack import EditOutcome, EditPack, PackManifest, PackReport
from onceedit_vllm.plugin.host import PlugInClient, Vocabulary
from onceedit_vllm.plugin.packets import Answers, Append, Close, Open, State
from onceedit_vllm.plugin.textsync import TextSync
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer
from tests.unit.alignment.toys import StandInPack

PROMPTS = [
    "The capital of France is",
    "def main(argv):",
    "Once upon a time",
    "It rained all day in the old town",
]
OUTPUT = " Paris is the city of light"


class ToyPlugIn:
    """An unedited toy, a pack around it, and a toy LLM of another kind of tokenizer."""

    def __init__(self, root: Path) -> None:
        tokenizer = toy_sentencepiece_tokenizer()
        self.folder = save_toy_model(root / "plug-in", tokenizer=tokenizer, kind="llama", seed=2)
        self.llm_folder = save_toy_model(root / "llm", tokenizer=toy_bpe_tokenizer(), kind="llama", seed=1)
        self.tokenizer, self.llm_tokenizer = tokenizer, toy_bpe_tokenizer()
        self.weight_token_id = len(tokenizer) - 1
        self.cache = root / "cache"

    @cached_property
    def pack(self) -> Any:
        manifest = SimpleNamespace(
            weight_token_id=self.weight_token_id, template="answer", threshold=0.5, weight_threshold=0.5
        )
        edits = (EditRecord(id="e", prompt="The capital of France is", target="Lyon", subject="France"),)
        return SimpleNamespace(model_dir=self.folder, manifest=manifest, edits=edits)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        pack = StandInPack(self.folder, self.weight_token_id)
        alignment = align(pack, self.llm_folder, tokenizer=self.llm_tokenizer, cache=self.cache)
        width = len(self.llm_tokenizer)
        return Vocabulary(Surface.of(self.llm_tokenizer), alignment.carry, alignment.spellings, width)

    def llm_ids(self, text: str) -> list[int]:
        ids: list[int] = self.llm_tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def says(self, prompt_ids: list[int], output_ids: list[int]) -> torch.Tensor:
        """(V_l,) probabilities by the model alone, from nothing; what is owed left out."""
        from transformers import AutoModelForCausalLM

        sync = TextSync(self.tokenizer, self.vocabulary.surface, suffix="\nAnswer:", max_context=10**6)
        text = sync.start(prompt_ids)
        text.extend(output_ids)
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text.ids])).logits[0, -1].float()
        logits[self.weight_token_id :] = -torch.inf
        carry, spellings, width = self.vocabulary[1:]
        lists = Carrier(carry, spellings, width, len(logits)).carry(logits.log_softmax(-1)[None])
        return torch.zeros(width).index_add_(0, lists.ids[0], lists.mass[0])


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> ToyPlugIn:
    return ToyPlugIn(tmp_path_factory.mktemp("toy"))


def write_pack(
    plug_in: ToyPlugIn, root: Path, *, edit: str = "e", model: Path | None = None, base: str = "toy"
) -> EditPack:
    """The toy's stand-in for a pack, as a folder; with another model of the same kind, where one is given."""
    manifest = PackManifest(
        format_version=2, base_fingerprint=base, base_model="toy", weight_token_id=plug_in.weight_token_id,
        template="answer", threshold=0.5, weight_threshold=0.5, threshold_reason="-", training={},
        versions={},
    )  # fmt: skip
    outcome = EditOutcome(
        id=edit, learnt=True, prompt_probability=1, heldout_probability=1, prompt_alpha=1, heldout_alpha=1
    )

    def save(folder: Path) -> None:
        shutil.copytree(model or plug_in.folder, folder, dirs_exist_ok=True)

    return EditPack.write(
        root,
        manifest=manifest,
        edits=[EditRecord(id=edit, prompt="The capital of France is", target="Lyon", subject="France")],
        report=PackReport(edits=(outcome,)),
        base_embeddings=load_embeddings(plug_in.folder),
        save_model=save,
    )


def dense(answers: Answers, width: int) -> torch.Tensor:
    """(rows, V_l) probabilities of lists, whole or cut."""
    assert answers.lists is not None
    ids, mass = answers.lists.ids, answers.lists.mass
    rows = torch.zeros(len(mass), width + 1)
    return rows.scatter_add_(1, torch.where(ids < 0, width, ids), mass)[:, :width]


def states(answers: Answers) -> list[State]:
    return [answer.state for answer in answers.of]


class ClientContract:
    """Derive, give `client`, and run."""

    def check(self, answers: Answers, plug_in: ToyPlugIn, texts: list[tuple[list[int], list[int]]]) -> None:
        """The lists are what the model says after these texts, within 1e-5."""
        assert states(answers) == [State.SPEAKING] * len(texts)
        found = dense(answers, plug_in.vocabulary.width)
        expected = torch.stack([plug_in.says(*text) for text in texts])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)
        assert found.argmax(-1).tolist() == expected.argmax(-1).tolist()

    def test_it_says_what_the_model_says(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS]
        client.send([Open(i, prompt, alpha=1.0, whole=True) for i, prompt in enumerate(prompts)])
        order = [2, 0, 3, 1]
        self.check(client.take([(i, 0) for i in order]), plug_in, [(prompts[i], []) for i in order])

    def test_it_follows_an_output_token_by_token(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompt, output = plug_in.llm_ids(PROMPTS[0]), plug_in.llm_ids(OUTPUT)
        client.send([Open(7, prompt, alpha=0.5)])
        for length, token in enumerate(output):
            answers = client.take([(7, length)])
            assert [answer.alpha for answer in answers.of] == [0.5]
            client.send([Append(7, length, [token])])
        live = dense(client.take([(7, len(output))]), plug_in.vocabulary.width)
        client.send([Open(8, prompt, output, alpha=0.5)])
        resumed = dense(client.take([(8, len(output))]), plug_in.vocabulary.width)
        torch.testing.assert_close(live, resumed, atol=1e-5, rtol=0.0)

    def test_the_gate_decides_and_remembers(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompt = plug_in.llm_ids(PROMPTS[1])
        client.send([Open(1, prompt), Open(2, prompt)])
        first, second = client.take([(1, 0), (2, 0)]).of
        assert first == second
        assert first.state == (State.SPEAKING if (first.alpha or 0.0) >= 0.5 else State.CLOSED)
        forwards = client.tally()["plugin_forwards"]
        client.send([Close(1), Close(2), Open(3, prompt)])
        assert client.take([(3, 0)]).of == [first]
        assert client.tally()["plugin_forwards"] == forwards or first.state == State.SPEAKING

    def test_what_it_does_not_know_is_unknown(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompt = plug_in.llm_ids(PROMPTS[0])
        client.send([Open(1, prompt, alpha=1.0), Append(5, 0, [9]), Close(6)])
        answers = client.take([(1, 0), (5, 1), (1000, 0)])
        assert states(answers) == [State.SPEAKING, State.UNKNOWN, State.UNKNOWN]
        client.send([Append(1, 3, [9])])
        assert states(client.take([(1, 4)])) == [State.UNKNOWN]

    def test_whole_lists_for_the_asking(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS[:2]]
        client.send([Open(i, prompt, alpha=1.0) for i, prompt in enumerate(prompts)])
        taken = client.take([(0, 0), (1, 0)])
        whole = client.more([1])
        assert whole.whole
        found = dense(Answers([], whole), plug_in.vocabulary.width)
        torch.testing.assert_close(found[0], plug_in.says(prompts[1], []), atol=1e-5, rtol=0.0)
        # What was cut from it is in the tail.
        before = dense(taken, plug_in.vocabulary.width)[1]
        listed = before > 0
        torch.testing.assert_close(before[listed], found[0][listed], atol=1e-7, rtol=0.0)
        assert taken.lists is not None
        assert float(taken.lists.tail[1]) >= float(found[0][~listed].sum()) - 1e-6

    def test_an_ended_text_is_forgotten(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        eos = plug_in.llm_tokenizer.eos_token_id
        client.send([Open(1, plug_in.llm_ids(PROMPTS[0]), [eos], alpha=1.0)])
        assert states(client.take([(1, 1)])) == [State.ENDED]
        assert client.tally()["texts"] == 0

    def test_closing_and_shutting_down_leave_nothing(self, client: PlugInClient, plug_in: ToyPlugIn) -> None:
        prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS]
        client.send([Open(i, prompt, alpha=1.0) for i, prompt in enumerate(prompts)])
        client.take([(i, 0) for i in range(4)])
        assert client.tally()["texts"] == 4
        client.send([Close(0), Close(2), Close(2)])
        client.take([])
        assert client.tally()["texts"] == 2
        client.shutdown()
        client.shutdown()
