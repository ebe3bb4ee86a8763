"""No room for one more text: the row is the LLM's, counted, and the others do not notice; on both hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from onceedit_vllm.alignment.align import align
from onceedit_vllm.config import FusionConfig, PlugInConfig
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.plugin.host import PlugInClient
from onceedit_vllm.plugin.kv_pool import probe_layers
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.prefixes import BLOCK
from onceedit_vllm.plugin.remote import Endpoint, RemoteClient
from onceedit_vllm.plugin.server import PlugInServer
from onceedit_vllm.runner.options import RequestOptions
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.step import FusionStep
from tests.unit.alignment.toys import StandInPack
from tests.unit.plugin.client_contract import PROMPTS, ToyPlugIn, plug_in

pytestmark = pytest.mark.integration

__all__ = ["plug_in"]  # the fixture

#: Of keys and values: room for two of the shorter texts, or for one of the longer.
_BLOCKS = 4


def config_of(plug_in: ToyPlugIn) -> PlugInConfig:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(plug_in.folder, dtype=torch.float32)
    per_token = sum(shape.bytes_per_token for shape in probe_layers(model))
    return PlugInConfig(device="cpu", max_context=_BLOCKS * BLOCK, kv_cache_bytes=_BLOCKS * BLOCK * per_token)


@pytest.fixture(params=["local", "remote"])
def client(request: pytest.FixtureRequest, plug_in: ToyPlugIn, tmp_path: Path) -> Iterator[PlugInClient]:
    """Remote: over the socket of the server that a Ray actor runs."""
    config = config_of(plug_in)
    host = LocalHost(plug_in.pack, config)
    if request.param == "local":
        yield host.attach(plug_in.vocabulary)
        return
    server = PlugInServer(host, f"ipc://{tmp_path / 'socket'}")
    server.start()
    remote = RemoteClient(Endpoint(f"ipc://{tmp_path / 'socket'}"), plug_in.vocabulary, config=config)
    yield remote
    remote.shutdown()
    server.stop()


@pytest.fixture
def step(client: PlugInClient, plug_in: ToyPlugIn) -> FusionStep:
    pack = StandInPack(plug_in.folder, plug_in.weight_token_id)
    alignment = align(pack, plug_in.llm_folder, tokenizer=plug_in.llm_tokenizer, cache=plug_in.cache)
    return FusionStep(client, Fuser(alignment, FusionConfig()), eos_id=plug_in.llm_tokenizer.eos_token_id)


def some_rows(plug_in: ToyPlugIn, texts: list[str]) -> list[Row]:
    """Of which the edits take part in each."""
    return [Row(prompt_ids=plug_in.llm_ids(text), options=RequestOptions(alpha=1.0)) for text in texts]


def test_rows_without_room_are_the_llms_and_are_counted(step: FusionStep, plug_in: ToyPlugIn) -> None:
    texts = [f"{PROMPTS[i]} {PROMPTS[i - 1]}" for i in range(4)]
    rows = some_rows(plug_in, texts)
    logits = torch.randn(4, plug_in.vocabulary.width, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    for row in rows:
        assert step.admit(row)
    step.finish(logits, list(enumerate(rows)))
    is_untouched = [torch.equal(logits[i], before[i]) for i in range(4)]
    assert is_untouched == [row.is_over for row in rows]
    lost = sum(is_untouched)
    assert 0 < lost < 4
    tally = step.tally()
    assert (tally["kv_full"], tally["failures"], tally["texts"]) == (lost, lost, 4 - lost)
    for row in rows:
        step.close(row)
    tally = step.tally()
    assert (tally["texts"], tally["kv_free_tokens"]) == (0, _BLOCKS * BLOCK)
    # There is room again.
    (late,) = some_rows(plug_in, texts[:1])
    assert step.admit(late)
    step.finish(logits[:1], [(0, late)])
    assert not torch.equal(logits[0], before[0])
    assert step.tally()["failures"] == lost


def test_an_answer_that_outgrows_the_room_ends_and_the_other_goes_on(
    step: FusionStep, plug_in: ToyPlugIn
) -> None:
    """Never finished by the LLM from half a name."""
    rows = some_rows(plug_in, PROMPTS[:2])
    for row in rows:
        assert step.admit(row)
    token = plug_in.llm_ids(" city")[0]
    logits = torch.zeros(2, plug_in.vocabulary.width)
    for _ in range(2 * BLOCK):
        logits = torch.zeros(2, plug_in.vocabulary.width)
        step.finish(logits, list(enumerate(rows)))
        if rows[0].is_stopped or rows[1].is_stopped:
            break
        for row in rows:
            row.output_ids.append(token)
    assert [row.is_stopped for row in rows].count(True) == 1
    stopped = rows.index(next(row for row in rows if row.is_stopped))
    assert int(logits[stopped].argmax()) == plug_in.llm_tokenizer.eos_token_id
    assert (logits[1 - stopped] != 0.0).any()
    tally = step.tally()
    assert (tally["kv_full"], tally["failures"], tally["texts"]) == (1, 1, 1)
