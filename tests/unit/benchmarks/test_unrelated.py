"""Which prompts count as unrelated to a pack."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unrelated import unrelated_prompts

from onceedit_vllm.edits import EditRecord


def test_prompts_of_the_packs_own_subjects_are_none(tmp_path: Path) -> None:
    said = [
        ("Velcorp is from", "Velcorp"), ("Yorbel is from", "Yorbel"), ("Yorbel is from", "Yorbel"),
        ("U.N. is from", "U.N."), ("Ann Lee is from", "Ann Lee"), ("Bo Lee is from", "Bo Lee"),
    ]  # fmt: skip
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"prompt": prompt, "subject": subject} for prompt, subject in said]))
    edits = (
        EditRecord(id="a", prompt="Velcorp makes", target="tea", subject="velcorp"),
        EditRecord(id="b", prompt="The head of the United Nations is", target="Bo", subject="United Nations"),
    )
    pack: Any = SimpleNamespace(edits=edits)
    assert unrelated_prompts(file, pack, 2) == ["Yorbel is from", "Ann Lee is from"]
    assert unrelated_prompts(file, pack, 9) == ["Yorbel is from", "Ann Lee is from", "Bo Lee is from"]
