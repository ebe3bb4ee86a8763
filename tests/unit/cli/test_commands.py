"""Each command: what it passes on, what it prints, how it exits. The work itself is stood in for."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import onceedit_vllm.doctor
from onceedit_vllm.alignment import align as align_module
from onceedit_vllm.alignment.report import AlignmentReport
from onceedit_vllm.cli import doctor as doctor_command
from onceedit_vllm.cli.main import app
from onceedit_vllm.config import AlignmentConfig, EditingConfig, GenerationConfig
from onceedit_vllm.doctor import Finding
from onceedit_vllm.editing import edit as edit_module
from onceedit_vllm.errors import ModelError, PackError
from onceedit_vllm.runner import offline
from tests.unit.test_pack import write as write_pack


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ONCEEDIT_DEBUG", "0")  # so that what --debug sets is taken back
    for name in ("VLLM_LOGGING_LEVEL", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "set, so that the command leaves it")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def fail(error: BaseException) -> Any:
    def raising(*_: Any, **__: Any) -> None:
        raise error

    return raising


def report(**changes: Any) -> AlignmentReport:
    values: dict[str, Any] = {
        "num_anchors": 46138,
        "kind": "textual",
        "matching": "bytes",
        "plugin_vocab_size": 49152,
        "llm_vocab_size": 262144,
        "num_coordinates": 262144,
        "round_trip_fidelity": 1.0,
        "self_mass_plugin": 1.0,
        "self_mass_llm": 1.0,
        "bytes_held": 2_500_000,
        "bytes_dense": 57_000_000_000,
        "tflops": 0.0,
        "llm_tokens": 0.0,
        "paper_tflops": 1.234,
        "paper_tokens": 2345.6,
        "seconds": 2.0,
        "from_cache": False,
    }
    return AlignmentReport(**(values | changes))


@pytest.mark.parametrize(
    "command",
    [
        "edit",
        "wordings",
        "align",
        "generate",
        "inspect",
        "doctor",
        "models",
        "models get",
        "host",
        "host start",
    ],
)
def test_help_of_each(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["models", "get"], ["edit"], ["align", "--pack", "x"], ["edit", "--template", "x"]],
)
def test_bad_arguments_exit_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_edit_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def edit(plugin: str, edits: Path, out: Path, **options: Any) -> Any:
        seen.update(options, plugin=plugin, edits=edits, out=out)
        outcomes = [SimpleNamespace(id="a", learnt=True), SimpleNamespace(id="b", learnt=False)]
        manifest = SimpleNamespace(threshold=0.5, threshold_reason="because")
        return SimpleNamespace(
            root=out,
            edits=(1, 2),
            manifest=manifest,
            report=SimpleNamespace(num_learnt=1, edits=outcomes),
        )

    inspect.signature(edit_module.edit).bind("p", "e", "o", unrelated=None, resume=True, overwrite=False)
    monkeypatch.setattr(edit_module, "edit", edit)
    given = ["edit", "--plugin", "p", "--edits", "e", "--out", "o"]
    result = run(*given)
    assert result.exit_code == 0, result.output
    assert seen["config"] == EditingConfig()
    assert (seen["plugin"], seen["edits"], seen["out"]) == ("p", Path("e"), Path("o"))
    assert (seen["unrelated"], seen["resume"], seen["overwrite"]) == (None, False, False)
    assert seen["wordings"] == ()
    assert "1 of 2" in result.stdout
    given += ["--lambda", "0.5", "--lr", "0.1", "--epochs", "3", "--seed", "7", "--template", "zsre"]
    given += ["--unrelated", "u", "--resume", "--overwrite"]
    assert run(*given).exit_code == 0
    assert seen["config"] == EditingConfig(
        weight_lambda=0.5, learning_rate=0.1, epochs=3, seed=7, template="zsre"
    )
    assert (seen["unrelated"], seen["resume"], seen["overwrite"]) == (Path("u"), True, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--plugin", "p"], "--plugin and --edits are needed"),
        (["--plugin", "p", "--edits", "e", "--remove", "x"], "name it with --pack"),
        (["--pack", "k", "--edits", "e", "--add", "f"], "leave out --plugin and --edits"),
        (["--pack", "k", "--on-conflict", "ask"], "'ask' is not one of"),
    ],
)
def test_edit_says_which_options_go_together(
    monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.setattr(edit_module, "edit", fail(AssertionError("must not start")))
    result = run("edit", "--out", "o", *given)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_setting_out_of_range_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_module, "edit", fail(AssertionError("must not start")))
    result = run("edit", "--plugin", "p", "--edits", "e", "--out", "o", "--lr", "-1", "--epochs", "0")
    assert result.exit_code == 2
    assert "--lr -1.0:" in result.stderr
    assert "--epochs 0:" in result.stderr


def test_align_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def align(pack: Path, llm: str, **options: Any) -> Any:
        seen.update(options, pack=pack, llm=llm)
        print("noise")
        return SimpleNamespace(report=report(warnings=("mind the gap",)))

    monkeypatch.setattr(align_module, "align", align)
    result = run("align", "--pack", "P", "--llm", "L")
    assert result.exit_code == 0, result.output
    assert seen == {"pack": Path("P"), "llm": "L", "config": AlignmentConfig(), "progress": True}
    assert "46138" in result.stdout
    assert "57.0 GB" in result.stdout
    assert "0.000 TFLOPs, or 0 tokens of this LLM" in result.stdout
    assert "1.234 TFLOPs, or 2,346 tokens of this LLM" in result.stdout
    assert "mind the gap" in result.stderr
    result = run(
        "align", "--pack", "P", "--llm", "L", "--kind", "eq16", "--matching", "string", "--json", "-"
    )
    assert seen["config"] == AlignmentConfig(kind="eq16", matching="string")
    assert json.loads(result.stdout)["num_anchors"] == 46138
    assert json.loads(result.stdout)["paper_tokens"] == 2345.6
    file = tmp_path / "report.json"
    assert run("align", "--pack", "P", "--llm", "L", "--json", str(file)).stdout == ""
    assert json.loads(file.read_text())["kind"] == "textual"


def test_align_says_no_tokens_where_they_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    uncounted = SimpleNamespace(report=report(llm_tokens=None, paper_tokens=None))
    monkeypatch.setattr(align_module, "align", lambda *_, **__: uncounted)
    result = run("align", "--pack", "P", "--llm", "L")
    assert "1.234 TFLOPs" in result.stdout
    assert "tokens" not in result.stdout


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def generate(pack: Path, llm: str, prompts: list[str], **options: Any) -> list[offline.Generation]:
        seen.update(options, pack=pack, llm=llm, prompts=prompts)
        before = (" Paris", [5]) if options["compare"] else (None, None)
        return [offline.Generation(prompt, " [Oslo]", [7, 2], 0.75, True, *before) for prompt in prompts]

    inspect.signature(offline.generate).bind(
        "p", "l", ["a"], compare=True, max_tokens=1, temperature=0, seed=1
    )
    monkeypatch.setattr(offline, "generate", generate)
    return seen


def test_generate_gives_exactly_the_promised_keys(asked: dict[str, Any]) -> None:
    result = run("generate", "--pack", "P", "--llm", "L", "--prompt", "a", "--prompt", "b", "--json", "-")
    assert result.exit_code == 0, result.output
    assert [set(item) for item in json.loads(result.stdout)] == [
        {"prompt", "text", "token_ids", "alpha", "gated"}
    ] * 2
    expected = {"pack": Path("P"), "llm": "L", "prompts": ["a", "b"], "compare": False}
    assert asked == expected | GenerationConfig().model_dump()
    result = run("generate", "--pack", "P", "--llm", "L", "--prompt", "a", "--compare", "--json", "-")
    (item,) = json.loads(result.stdout)
    assert list(item) == ["prompt", "text", "token_ids", "alpha", "gated", "plain_text", "plain_token_ids"]
    assert item["plain_token_ids"] == [5]


def test_generate_prints_a_table(asked: dict[str, Any]) -> None:
    result = run("generate", "--pack", "P", "--llm", "L", "--prompt", "a", "--compare", "--max-tokens", "5")
    assert asked["max_tokens"] == 5
    for cell in ("[Oslo]", "Paris", "0.750", "open"):
        assert cell in result.stdout


def test_generate_shows_a_prompt_out_of_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*_: Any, **__: Any) -> list[offline.Generation]:
        return [offline.Generation("a", "b", [7], None, False)]

    monkeypatch.setattr(offline, "generate", generate)
    given = ["generate", "--pack", "P", "--llm", "L", "--prompt", "a"]
    assert re.search(r"a .* b .* - .* out of scope", run(*given).stdout)
    assert json.loads(run(*given, "--json", "-").stdout)[0]["alpha"] is None


@pytest.mark.parametrize(
    "extra", [[], ["--prompt", ""], ["--prompts", "absent"], ["--prompt", "a", "--max-tokens", "0"]]
)
def test_generate_refuses_before_any_engine(asked: dict[str, Any], extra: list[str]) -> None:
    assert run("generate", "--pack", "P", "--llm", "L", *extra).exit_code == 2
    assert not asked


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PackError("P: damaged; make it again"), 1, "Error: P: damaged; make it again"),
        (ModelError("[bold]: no"), 1, r"Error: \[bold\]: no"),
        (RuntimeError("boom"), 1, r"RuntimeError: boom(.|\n)*onceedit --debug"),
        (KeyboardInterrupt(), 130, "Stopped"),
    ],
)
def test_errors_become_messages(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr(align_module, "align", fail(error))
    result = run("align", "--pack", "P", "--llm", "L")
    assert result.exit_code == code
    assert re.search(said, result.stderr)
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_module, "align", fail(RuntimeError("boom")))
    result = run("--debug", "align", "--pack", "P", "--llm", "L")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_inspect_refuses_what_is_no_pack(tmp_path: Path) -> None:
    result = run("inspect", str(tmp_path))
    assert result.exit_code == 1
    assert "not an EditPack" in result.stderr


def test_inspect_shows_both_thresholds(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack").root
    table = run("inspect", str(pack)).stdout
    assert "0.700 where the prompt names a subject (because)" in table
    assert "0.800" in table
    assert json.loads(run("inspect", str(pack), "--json", "-").stdout)["manifest"]["weight_threshold"] == 0.8


def test_models_are_listed_and_unknown_ones_refused() -> None:
    rows = json.loads(run("models", "list", "--json", "-").stdout)
    names = ("smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
    assert [(row["name"], row["folder"]) for row in rows] == [(name, None) for name in names]
    assert "onceedit models get gemma-3-270m" in run("models", "list").stdout
    result = run("models", "get", "nope")
    assert result.exit_code == 2
    assert "smollm2-135m" in result.stderr


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("broken", 1)])
def test_doctor_exits_by_what_is_broken(monkeypatch: pytest.MonkeyPatch, status: Any, code: int) -> None:
    monkeypatch.setattr(doctor_command, "examine", lambda: [Finding("x", status, "found", "the mend")])
    monkeypatch.setattr(doctor_command, "_runner_findings", lambda: [])
    result = run("doctor", "--json", "-")
    assert result.exit_code == code
    value = json.loads(result.stdout)
    assert value["serving_works"] == (code == 0)
    assert value["findings"] == [{"name": "x", "status": status, "found": "found", "mend": "the mend"}]
    assert "the mend" in run("doctor").stdout


def test_version() -> None:
    assert run("--version").stdout.strip() == f"onceedit-vllm {onceedit_vllm.__version__}"
