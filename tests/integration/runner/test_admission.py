"""Requests refused at admission, by vLLM's own front end of either runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.admission import admit, refuse_beam_search
from onceedit_vllm.runner.callers import front_end_config
from onceedit_vllm.testing import save_toy_model

pytestmark = pytest.mark.integration

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.exceptions import VLLMValidationError  # noqa: E402

FORCED = {"onceedit": {"alpha": 1.0}}
OFF = {"onceedit": False}


@pytest.fixture(scope="module")
def llm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_model(tmp_path_factory.mktemp("admission") / "llm")


@pytest.fixture(params=["0", "1"], ids=["v1", "v2"])
def front_end(request, llm_dir, monkeypatch):
    """Makes the front end of an engine with these settings of ours."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.input_processor import InputProcessor

    def make(**ours: Any) -> InputProcessor:
        args = EngineArgs(
            model=str(llm_dir),
            enforce_eager=True,
            logits_processors=["onceedit_vllm:OnceEditLogitsProcessor"],
            additional_config={"onceedit": {"pack": "p", **ours}},
        )
        monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
        config = args.create_engine_config()
        # Only now: without Triton a configuration for V2 is refused; its front end needs none.
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", request.param)
        assert config.use_v2_model_runner == (request.param == "1")
        return InputProcessor(config)

    return make


def ask(front_end: Any, **params: Any) -> Any:
    prompt = {"prompt_token_ids": [1, 2, 3]}
    return front_end.process_inputs("r", prompt, vllm.SamplingParams(**params), ("generate",))


def test_forcing_the_weight_needs_the_engines_leave(front_end):
    with pytest.raises(VLLMValidationError, match='"request_override": "all"'):
        ask(front_end(), extra_args=FORCED)
    assert ask(front_end(request_override="all"), extra_args=FORCED).sampling_params.extra_args == FORCED


def test_the_switch_works_unless_the_engine_says_none(front_end):
    ask(front_end(), extra_args=OFF)
    with pytest.raises(VLLMValidationError, match="request_override"):
        ask(front_end(request_override="none"), extra_args=OFF)


def test_malformed_options_and_plain_requests(front_end):
    engine = front_end()
    with pytest.raises(VLLMValidationError, match="alhpa"):
        ask(engine, extra_args={"onceedit": {"alhpa": 1}})
    ask(engine)
    ask(engine, extra_args={"onceedit": 1})


def test_outside_of_a_front_end_only_the_form_is_checked():
    admit(vllm.SamplingParams(extra_args=FORCED))
    assert front_end_config() is None


def beam(**kwargs: Any) -> Any:
    """What vllm/entrypoints/generate/beam_search builds; the e2e tests ask the real one."""
    shape: dict[str, Any] = {"logprobs": 4, "max_tokens": 1, "temperature": 0.0}
    return vllm.SamplingParams(**{**shape, "watermarking": False, "detokenize": False, **kwargs})


def test_a_step_of_beam_search_is_refused():
    with pytest.raises(BadInputError, match="beam search"):
        refuse_beam_search(beam())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"logprobs": 3},
        {"logprobs": None},
        {"max_tokens": 2},
        {"detokenize": True},
        {"watermarking": None},
        {"extra_args": {"onceedit": True}},
    ],
)
def test_whoever_asks_for_something_else_is_served(kwargs):
    refuse_beam_search(beam(**kwargs))
