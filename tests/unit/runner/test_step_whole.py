"""What the host is told of lists that must not be cut."""

from __future__ import annotations

from typing import Any

import pytest

from onceedit_vllm.plugin.packets import Open
from onceedit_vllm.runner.row import Row
from tests.unit.plugin.fakes import EDITED, FakeRuntime
from tests.unit.runner.fakes import some_step


@pytest.mark.parametrize("greedy", [False, True])
def test_only_the_lists_of_greedy_rows_are_cut(greedy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    step = some_step(FakeRuntime())
    told: list[Any] = []
    monkeypatch.setattr(step._plugin, "send", told.extend)
    step.begin([Row([EDITED], want_search=greedy)])
    assert told == [Open(0, [EDITED], [], epoch=None, whole=not greedy)]
