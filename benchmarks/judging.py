"""What becomes of prompts behind a pack's scope and gate, and what its plug-in says, without an LLM.

What the plug-in says behind an open gate is what served LLMs say: over four public sets none of it was lost
behind a real LLM (`transport_loss` in `results/paper`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from onceedit_vllm import EditPack, EditRecord
from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.plugin_model import load_edited
from onceedit_vllm.editing.probe import read_examples
from onceedit_vllm.edits import TEMPLATES, normalise
from onceedit_vllm.evaluation.contamination import find_contaminated
from onceedit_vllm.evaluation.record import ASKING, Asked, EvalRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import Named, SubjectMatcher
from onceedit_vllm.runner.leads import find_lead
from onceedit_vllm.runner.own_names import by_own_names

#: Thresholds beside the pack's own that the figures are given for.
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Judged(NamedTuple):
    """One prompt.

    Attributes:
        named: It names an edit's subject.
        may_ask: By its words it may be asking for one.
        evidence: What the gate compares with its threshold; 0.0 where the plug-in is not asked.
        says: Asked or not, the plug-in decodes the target greedily, and stops; False without a target.
    """

    named: bool
    may_ask: bool
    evidence: float
    says: bool

    def opens(self, threshold: float) -> bool:
        """Whether the gate opens."""
        return self.may_ask and self.evidence >= threshold


def judge(pack: EditPack, asked: Sequence[tuple[str, str | None]]) -> list[Judged]:
    """Judge prompts, each with the answer that is wanted, if any.

    The texts are read as they are served: without their leads, by the edits' own names, in the template.
    """
    matcher, template = SubjectMatcher(pack.edits), TEMPLATES[pack.manifest.template]
    doubts = Doubts(pack.edits, matcher)
    named = [matcher.find(prompt) for prompt, _ in asked]
    may_ask = [doubts.asked(prompt) if edits else () for (prompt, _), edits in zip(asked, named, strict=True)]
    texts = [template.wrap(_read(prompt, matcher, pack.edits)) for prompt, _ in asked]
    examples = [
        Example(text, target, 0.0, edit)
        for text, (_, target), edits in zip(texts, asked, may_ask, strict=True)
        for edit in edits or (-1,)
    ]
    plugin = load_edited(pack, torch.float32, 1.0)
    readings = iter(read_examples(plugin, examples, [edit.target for edit in pack.edits]))
    found = []
    for (_, target), subjects, edits in zip(asked, named, may_ask, strict=True):
        read = [next(readings) for _ in edits or (-1,)]
        evidence = max(reading.evidence for reading in read) if edits else 0.0
        says = target is not None and read[0].greedy
        found.append(Judged(bool(subjects), bool(edits), evidence, says))
    return found


def _read(prompt: str, matcher: SubjectMatcher, edits: Sequence[EditRecord]) -> str:
    """The prompt without what somebody says before the question, by the edits' own names."""
    text, (named, forms) = prompt.encode(), matcher.look(prompt)
    lead = find_lead(text, lambda left: matcher.find(left.decode(errors="replace"), forms) == named)
    asked = prompt if lead is None or not named else (text[: lead.start] + text[lead.end :]).decode()
    return by_own_names(asked, Named(named, forms), edits)


def figures(pack: EditPack, records: Sequence[EvalRecord]) -> dict[str, Any]:
    """What became of each kind of question."""
    prompts = {normalise(edit.prompt) for edit in pack.edits}
    records = [record.beside(prompts) for record in records]
    known = find_contaminated(records, pack)
    kinds: dict[str, list[tuple[Asked, Judged]]] = defaultdict(list)
    contaminated: dict[str, int] = defaultdict(int)
    asked = [(record, at, question) for record in records for at, question in enumerate(record.questions)]
    wanted = [(q.prompt, record.target if q.stratum in ASKING else None) for record, _, q in asked]
    for (record, at, question), judged in zip(asked, judge(pack, wanted), strict=True):
        if (record.id, at) in known:
            contaminated[question.stratum] += 1
        else:
            kinds[question.stratum].append((question, judged))
    return {
        kind: {"contaminated": contaminated[kind], **counts(kind, [one for _, one in found], pack)}
        for kind, found in kinds.items()
    }


def counts(kind: str, judged: Sequence[Judged], pack: EditPack) -> dict[str, Any]:
    """Of one kind: how many name a subject, may ask, are right; and right at other thresholds."""
    right = {cut: num_right(kind, judged, cut) for cut in (pack.manifest.threshold, *THRESHOLDS)}
    return {
        "n": len(judged),
        "named": sum(one.named for one in judged),
        "may_ask": sum(one.may_ask for one in judged),
        "plugin_right": sum(one.says for one in judged) if kind in ASKING else None,
        "right": right[pack.manifest.threshold],
        "right_at": [right[cut] for cut in THRESHOLDS],
    }


def num_right(kind: str, judged: Sequence[Judged], threshold: float) -> int:
    if kind in ASKING:
        return sum(one.says and one.opens(threshold) for one in judged)
    return sum(not one.opens(threshold) for one in judged)
