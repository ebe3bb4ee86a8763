"""Engines that must not start, by vLLM's own configuration."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace

import pytest

from onceedit_vllm.config import AlignmentConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.refusals import refuse_dense_ranks, refuse_second, refuse_unsupported
from onceedit_vllm.testing import save_toy_model

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.config import ParallelConfig, VllmConfig  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> VllmConfig:
    folder = save_toy_model(tmp_path_factory.mktemp("refusals") / "llm")
    return EngineArgs(model=str(folder), enforce_eager=True).create_engine_config()


@pytest.fixture
def config(accepted: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> VllmConfig:
    """A copy to spoil, with models and parallelism of its own; V1."""
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    mine = copy.copy(accepted)
    mine.model_config = copy.copy(accepted.model_config)
    mine.parallel_config = ParallelConfig()
    return mine


def test_a_plain_engine_is_accepted_on_either_runner(config, monkeypatch):
    refuse_unsupported(config)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    refuse_unsupported(config)


@pytest.mark.parametrize("runner", ["0", "1"])
def test_ranks_of_tensor_parallelism_are_accepted_on_either_runner(config, monkeypatch, runner):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    config.parallel_config = ParallelConfig(tensor_parallel_size=2, distributed_executor_backend="mp")
    refuse_unsupported(config)


@pytest.mark.parametrize(
    ("parallel", "names"),
    [
        ({"pipeline_parallel_size": 2}, r"pipeline_parallel_size=1 \(got 2\)"),
        (
            {"pipeline_parallel_size": 2, "tensor_parallel_size": 2},
            r"there are 4 workers",
        ),
        # Neither of the two, and still two workers.
        ({"prefill_context_parallel_size": 2}, r"prefill_context_parallel_size=1 \(got 2\)"),
        ({"distributed_executor_backend": "external_launcher"}, "external launcher"),
        ({"tensor_parallel_size": 2, "enable_batch_sharded_sampling": True}, "enable_batch_sharded_sampling"),
    ],
)
def test_workers_that_do_not_see_all_logits_are_refused(config, parallel, names, monkeypatch):
    # vLLM sets it to 0 for an external launcher, in this process and so for every engine of a later test.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    # Other executors look for a second accelerator.
    config.parallel_config = ParallelConfig(**{"distributed_executor_backend": "mp", **parallel})
    with pytest.raises(BadInputError, match=names):
        refuse_unsupported(config)


def test_a_dense_kind_is_refused_on_several_ranks_only(config):
    dense = AlignmentConfig(kind="eq16")
    refuse_dense_ranks(config, dense)
    config.parallel_config = ParallelConfig(tensor_parallel_size=2, distributed_executor_backend="mp")
    refuse_dense_ranks(config, AlignmentConfig())
    with pytest.raises(BadInputError, match=r'kind "eq16" .* take the kind "textual"'):
        refuse_dense_ranks(config, dense)


def test_an_engine_per_data_parallel_rank_is_accepted(config):
    config.parallel_config = ParallelConfig(data_parallel_size=2, distributed_executor_backend="mp")
    refuse_unsupported(config)


def test_speculative_decoding_is_refused(config):
    config.speculative_config = SimpleNamespace()
    with pytest.raises(BadInputError, match="speculative_config"):
        refuse_unsupported(config)


@pytest.mark.parametrize("setting", ["enable_sleep_mode", "enable_prompt_embeds"])
def test_what_v2_does_not_tell_a_processor_is_refused_there_only(config, setting, monkeypatch):
    # Set afterwards: vLLM itself refuses sleep mode on a CPU.
    setattr(config.model_config, setting, True)
    refuse_unsupported(config)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(BadInputError, match=setting):
        refuse_unsupported(config)


def test_v1_still_builds_its_processors_before_the_pool_of_the_weights():
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert "build_logitsprocs(" in inspect.getsource(GPUModelRunner.__init__)
    assert "build_logitsprocs(" not in inspect.getsource(GPUModelRunner.load_model)


def test_listing_the_processor_twice_is_refused(config):
    refuse_second(config)
    with pytest.raises(BadInputError, match="listed twice"):
        refuse_second(config)
    refuse_second(copy.copy(config))
