"""From a GGUF file to a folder of bf16 safetensors and a tokenizer, in a process of its own.

The child process keeps transformers' bars and warnings out of the caller's terminal, and gives the
memory of the tensors and of the file's vocabulary back when it ends. It says one line per stage on
standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models.bars import progress_bar
from onceedit_vllm.models.gguf_weights import shared_reader, write_weights
from onceedit_vllm.models.recipes import CHECK_ANSWER, CHECK_PROMPT, RECIPES, Recipe

_STAGES = ("the weights", "the tokenizer", "the check", "done")
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def convert(recipe: Recipe, gguf: Path, out: Path, *, progress: bool) -> None:
    """Convert `gguf` into the folder `out`, and check that the result works.

    Raises:
        ModelError: transformers could not read the file, or the converted model does not encode
            or continue the check prompt as it must.
    """
    command = [sys.executable, "-m", "onceedit_vllm.models.convert", recipe.name, str(gguf), str(out)]
    log = gguf.with_suffix(".log")
    with (
        log.open("wb") as words,
        progress_bar(f"Converting {recipe.title}", len(_STAGES) - 1, shown=progress) as report,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, stdin=subprocess.DEVNULL, env=os.environ | _QUIET
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                stage = line.decode(errors="replace").strip()
                if stage in _STAGES:
                    report(_STAGES.index(stage), None if stage == "done" else stage)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        said = [
            line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        raise ModelError(
            f"{recipe.name}: converting its GGUF file to safetensors failed:\n  "
            + "\n  ".join(said[-3:] or [f"the process ended with status {child.returncode} (out of memory?)"])
            + "\nRun `onceedit doctor` to see what is wrong with the installation; or pass a folder with a "
            "model, or a hub id (owner/name), instead of the name."
        )


def _convert_here(recipe: Recipe, gguf: Path, out: Path) -> None:
    """The work of the child process."""
    from transformers import AutoTokenizer

    with shared_reader():
        _say("the weights")
        write_weights(gguf, out, recipe.title)
        _say("the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _mend_tokenizer(tokenizer, recipe)
    tokenizer.save_pretrained(out)
    _write_bos_setting(out / "tokenizer_config.json", recipe.adds_bos)
    if recipe.num_tokens is not None:
        _drop_made_up_tokens(out / "tokenizer.json", recipe.num_tokens)
    _say("the check")
    _check(out, recipe)
    _say("done")


def _mend_tokenizer(tokenizer: Any, recipe: Recipe) -> None:
    """Put back what transformers' GGUF reader leaves out: the leading BOS, the split of digits, NFC."""
    from tokenizers import normalizers, pre_tokenizers

    if recipe.nfc:
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    if recipe.digits_alone:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    # Rewrites the post-processor, which tokenizer.json keeps.
    tokenizer.add_bos_token = recipe.adds_bos


def _write_bos_setting(path: Path, adds_bos: bool) -> None:
    """Say it in tokenizer_config.json too: the tokenizer classes read it from there."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"add_bos_token": adds_bos, "add_eos_token": False}
    for leftover in ("is_local", "local_files_only"):
        settings.pop(leftover, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _drop_made_up_tokens(path: Path, num_tokens: int) -> None:
    """Keep the tokens below `num_tokens`; as text, the others' names would be taken for words."""
    layout = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = layout["model"]["vocab"]
    layout["model"]["vocab"] = {token: index for token, index in vocabulary.items() if index < num_tokens}
    path.write_text(json.dumps(layout, indent=2, ensure_ascii=False), encoding="utf-8")


def _check(folder: Path, recipe: Recipe) -> None:
    """Reload as a user would: the check prompt's ids, its continuation, and how text ends."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(CHECK_PROMPT)["input_ids"]
    if tuple(ids) != recipe.prompt_ids:
        raise ModelError(f"{CHECK_PROMPT!r} encodes to {ids}, expected {list(recipe.prompt_ids)}")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.inference_mode():
        answer = tokenizer.decode(model(torch.tensor([ids])).logits[0, -1].argmax())
    if answer != CHECK_ANSWER:
        raise ModelError(f"{CHECK_PROMPT!r} is continued with {answer!r}, expected {CHECK_ANSWER!r}")
    if model.generation_config.eos_token_id != tokenizer.eos_token_id:
        raise ModelError(f"generation ends at {model.generation_config.eos_token_id}, not at the EOS token")


def _say(stage: str) -> None:
    print(stage, flush=True)


if __name__ == "__main__":
    _convert_here(RECIPES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))
