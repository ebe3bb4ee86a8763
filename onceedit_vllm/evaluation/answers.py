"""What was answered, kept in a file as it comes, so that a run that was stopped goes on where it stood."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evaluation.record import Stratum

#: `edited`: the LLM with the pack; `llm`: the LLM alone; `plugin`: the plug-in alone; `context`: the LLM
#: alone that reads the edit before the question; `finetuned`: the LLM that was trained on the edits itself;
#: `eq16` and `deepen`: the LLM with the pack as the paper has it, over these relative maps.
Arm = Literal["edited", "llm", "plugin", "context", "finetuned", "eq16", "deepen"]


@dataclass(frozen=True)
class Key:
    """Which answer: of a record, the question at a place among its questions, from one arm."""

    record: str
    stratum: Stratum
    index: int
    arm: Arm


class Said(NamedTuple):
    """An answer.

    Attributes:
        text: Without special tokens.
        ids: In the arm's tokens, up to and with its end of sequence; under teacher forcing the winners.
        prompt: The prompt's name in the log of decisions; empty from the plug-in alone.
    """

    text: str
    ids: list[int]
    prompt: str = ""


class AnswersFile:
    """A JSONL file: the settings first, then one answer a line.

    Args:
        path: The file; made when missing.
        settings: What the answers depend on.

    Attributes:
        is_empty: Nothing had been answered when it was opened.

    Raises:
        BadInputError: The file holds answers to other settings, or is something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._answers: dict[Key, Said] = {}
        self.is_empty = True
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        # What stands behind the last newline was cut off.
        whole = lines[:-1]
        if whole:
            self._check(whole[0], settings)
            self._answers = dict(_parse(line, path) for line in whole[1:])
            self.is_empty = not self._answers
            os.truncate(path, sum(len(line) + 1 for line in whole))
        else:
            path.write_text(json.dumps({"settings": dict(settings)}) + "\n", encoding="utf-8")

    def __contains__(self, key: Key) -> bool:
        return key in self._answers

    def __getitem__(self, key: Key) -> Said:
        return self._answers[key]

    def get(self, key: Key) -> Said | None:
        """An answer, None where there is none."""
        return self._answers.get(key)

    def add(self, answers: Iterable[tuple[Key, Said]]) -> None:
        """Append answers; they are on the disk when this returns."""
        new = list(answers)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(key) | said._asdict()) + "\n" for key, said in new)
            file.flush()
            os.fsync(file.fileno())
        self._answers.update(new)

    def _check(self, line: bytes, settings: Mapping[str, Any]) -> None:
        try:
            known = json.loads(line)["settings"]
        except (ValueError, KeyError, TypeError):
            raise BadInputError(
                f"{self._path}: holds no answers; move it away, or give another --json"
            ) from None
        wanted = json.loads(json.dumps(dict(settings)))
        changed = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
        if changed:
            listed = "; ".join(f"{key}: {known.get(key)} there, {wanted.get(key)} now" for key in changed)
            raise BadInputError(
                f"{self._path}: holds answers to other settings ({listed}). Remove it to ask anew, or give "
                "another --json."
            )


def _parse(line: bytes, path: Path) -> tuple[Key, Said]:
    try:
        entry = json.loads(line)
        key = Key(**{field.name: entry[field.name] for field in fields(Key)})
        return key, Said(*(entry[field] for field in Said._fields))
    except (ValueError, KeyError, TypeError):
        raise BadInputError(f"{path}: a line in it is damaged; remove the file to ask anew") from None
