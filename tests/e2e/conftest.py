"""Toy models with a real edit, and one plain and one edited engine per runner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.engine import Engine
from tests.kept import kept_pack

pytest.importorskip("vllm", reason="vLLM is not installed")

#: Prompt -> target. The toy plug-in is trained on these by the real editing stage.
EDITS = {
    "The capital of Norland is": "Tarsk",
    "The head of Velcorp is": "Ada Quill",
    "The colour of the new flag is": "green",
}
SUBJECTS = ["Norland", "Velcorp", "new flag"]
#: What another pack says to the first of these prompts.
OTHER_TARGET = "Velm"
#: Prompts that name no subject.
OUTSIDE = [
    "Water boils at",
    "My favourite song is",
    "def main(argv):",
    "Once upon a time there was",
    "12 + 30 =",
]
#: Prompts that name a subject and ask something else of it.
ASIDE = ["Three sailors from Norland slept on", "Two sailors from Norland sang of"]
#: Prompts that name a subject and by their words ask for something else.
DOUBTS = [
    "Is Tarsk the capital of Norland?",
    "The capital of Norland isn't",
    "Who wrote the anthem of Norland?",
    "Norland is known for",
]
#: LLM tokens of a prompt that count, in the edited engine: more than any of these have.
WINDOW = 96
PROCESSOR = "onceedit_vllm:OnceEditLogitsProcessor"


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def llm_dir(work: Path) -> Path:
    """The served toy LLM: byte-level BPE, and a chat template."""
    from onceedit_vllm.testing import CHAT_TEMPLATE, CHAT_TOKENS, save_toy_model, toy_bpe_tokenizer

    tokenizer = toy_bpe_tokenizer(extra_special=CHAT_TOKENS)
    tokenizer.chat_template = CHAT_TEMPLATE
    return save_toy_model(work / "llm", tokenizer=tokenizer, kind="llama", seed=1)


@pytest.fixture(scope="session")
def pack_dir(work: Path, request: pytest.FixtureRequest) -> Path:
    """A pack made by the real editing stage from a toy plug-in with another kind of tokenizer."""
    from onceedit_vllm import EditingConfig, edit
    from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer

    plugin = save_toy_model(work / "plugin", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=2)
    facts = work / "facts.jsonl"
    edits = zip(SUBJECTS, EDITS.items(), strict=True)
    lines = [
        {"id": f"e{i}", "prompt": prompt, "target": target, "subject": subject}
        for i, (subject, (prompt, target)) in enumerate(edits)
    ]
    facts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = EditingConfig(learning_rate=3e-3, epochs=40, trained_share=1.0)  # the toy has two layers
    return kept_pack(
        request.config, "e2e", Path(__file__), work / "pack",
        lambda out: edit(plugin, facts, out, config=config, progress=False, overwrite=True),
    )  # fmt: skip


@pytest.fixture(scope="session")
def other_pack_dir(work: Path, pack_dir: Path, request: pytest.FixtureRequest) -> Path:
    """Other edits of the same plug-in: one of the first pack's subjects has another answer."""
    from onceedit_vllm import EditingConfig, EditRecord, edit

    prompt = next(iter(EDITS))
    record = EditRecord(id="n0", prompt=prompt, target=OTHER_TARGET, subject=SUBJECTS[0])
    config = EditingConfig(learning_rate=3e-3, epochs=40, trained_share=1.0)
    return kept_pack(
        request.config, "e2e-other", Path(__file__), work / "other",
        lambda out: edit(work / "plugin", [record], out, config=config, progress=False, overwrite=True),
    )  # fmt: skip


@pytest.fixture(scope="session", params=["v1", "v2"])
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def tight_args(llm_dir: Path) -> dict[str, Any]:
    """float32, so that results do not depend on batch shapes; small chunks; room for few requests."""
    return {
        "model": str(llm_dir),
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 256,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "enable_chunked_prefill": True,
        "block_size": 32,
        "num_gpu_blocks_override": 24,
        "disable_log_stats": False,
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of this module's own, for ``RAY_ADDRESS``: other engines may have theirs."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    context = ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def plain(runner: str, tight_args: dict[str, Any]) -> Iterator[Engine]:
    with Engine(runner, **tight_args) as engine:
        yield engine


@pytest.fixture(scope="session")
def edited(runner: str, tight_args: dict[str, Any], pack_dir: Path, work: Path) -> Iterator[Engine]:
    ours = {
        "pack": str(pack_dir),
        "cache_dir": str(work / "cache"),
        "request_override": "all",
        "window": WINDOW,
    }
    with Engine(
        runner,
        **tight_args,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": ours},
        worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
    ) as engine:
        yield engine
