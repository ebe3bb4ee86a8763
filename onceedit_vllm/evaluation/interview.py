"""Asks whatever has not been answered yet, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn

from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.evaluation.answers import AnswersFile, Arm, Key, Said
from onceedit_vllm.evaluation.plan import Item, Plan, batches_of
from onceedit_vllm.evaluation.plugin_alone import PlugInAlone
from onceedit_vllm.runner.asking import AskingEngine
from onceedit_vllm.terminal import progress_bar

if TYPE_CHECKING:
    from onceedit_vllm.runner.offline import Answer

#: Those that meet the plug-in, and what the engines of the others are called.
_WITH_EDITS = frozenset({"edited", "eq16", "deepen"})
_ENGINES: dict[Arm, str] = {
    "finetuned": "the fine-tuned LLM",
    "eq16": "the LLM, the paper's way over maps of Eq. 16",
    "deepen": "the LLM, the paper's way over DeePEn's maps",
}


class Interview:
    """One run over the questions.

    Args:
        items: All questions.
        plan: Makes prompts of them.
        answers: What is known, and where new answers go.
        config: Batches, protocol and baselines.
        visible: Show a progress bar.
    """

    def __init__(
        self,
        items: Sequence[Item],
        plan: Plan,
        answers: AnswersFile,
        config: EvaluationConfig,
        *,
        visible: bool,
    ) -> None:
        self._items = items
        self._plan = plan
        self._answers = answers
        self._config = config
        self._visible = visible

    def ask_engine(
        self, opened: Callable[[], AbstractContextManager[AskingEngine]], decided: Container[str]
    ) -> int:
        """Ask the LLM with the edits and alone, and alone with the edit in its context if that is wanted.

        Both passes over a batch have the same shapes: kernels round differently at others, and "unchanged"
        could not be told from "rounded". So a question that lacks one of the two is asked both.

        Args:
            opened: Starts the engine; not called where nothing is missing.
            decided: Names of the prompts whose decision was logged; an answer without one is asked anew.

        Returns:
            How many questions were asked.
        """
        missing = [item for item in self._items if not self._is_answered(item, decided)]
        in_context = [item for item in self._items if item.key("context") not in self._answers]
        in_context = in_context if "context" in self._config.baselines else []
        if not missing and not in_context:
            return 0
        with opened() as engine, progress_bar(*_columns(), shown=self._visible) as bar:
            task = bar.add_task("asking the LLM", total=len(missing) + len(in_context))
            for batch in batches_of(missing, self._config.batch_size):
                self._answers.add(self._ask(engine, batch, "edited") + self._ask(engine, batch, "llm"))
                bar.advance(task, len(batch))
            for batch in batches_of(in_context, self._config.batch_size):
                self._answers.add(self._ask(engine, batch, "context"))
                bar.advance(task, len(batch))
        return len(missing) + len(in_context)

    def ask_other(self, arm: Arm, opened: Callable[[], AbstractContextManager[AskingEngine]]) -> int:
        """Ask an engine of a baseline's own; returns how many questions."""
        missing = [item for item in self._items if item.key(arm) not in self._answers]
        if not missing:
            return 0
        with opened() as engine, progress_bar(*_columns(), shown=self._visible) as bar:
            task = bar.add_task(f"asking {_ENGINES[arm]}", total=len(missing))
            for batch in batches_of(missing, self._config.batch_size):
                self._answers.add(self._ask(engine, batch, arm))
                bar.advance(task, len(batch))
        return len(missing)

    def ask_plugin(self, opened: Callable[[], PlugInAlone]) -> int:
        """Ask the plug-in alone what the edits are about; returns how many questions."""
        missing = [
            item for item in self._items if item.is_plugins and item.key("plugin") not in self._answers
        ]
        if not missing:
            return 0
        plugin = opened()
        # Of like length, because the shorter are padded.
        missing.sort(key=lambda item: len(item.question.prompt))
        with progress_bar(*_columns(), shown=self._visible) as bar:
            task = bar.add_task("asking the plug-in alone", total=len(missing))
            for batch in batches_of(missing, self._config.batch_size):
                said = self._ask_alone(plugin, batch)
                self._answers.add([(item.key("plugin"), one) for item, one in zip(batch, said, strict=True)])
                bar.advance(task, len(batch))
        return len(missing)

    def _is_answered(self, item: Item, decided: Container[str]) -> bool:
        edited = self._answers.get(item.key("edited"))
        return edited is not None and edited.prompt in decided and item.key("llm") in self._answers

    def _ask(self, engine: AskingEngine, batch: Sequence[Item], arm: Arm) -> list[tuple[Key, Said]]:
        prompts = [self._plan.prompt_of(item, arm) for item in batch]
        answers = engine.ask(prompts, edits=arm in _WITH_EDITS)
        return [(item.key(arm), _said(answer)) for item, answer in zip(batch, answers, strict=True)]

    def _ask_alone(self, plugin: PlugInAlone, batch: Sequence[Item]) -> list[Said]:
        prompts = [item.question.prompt for item in batch]
        if self._config.protocol != "teacher-forced":
            return plugin.ask(prompts, self._config.answer_tokens)
        texts = [plugin.text_of(prompt) for prompt in prompts]
        targets = [item.question.answer or "" for item in batch]
        golds = [plugin.tokens.of_target(text, target) for text, target in zip(texts, targets, strict=True)]
        return plugin.force(prompts, golds)


def _columns() -> tuple[ProgressColumn, ...]:
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()


def _said(answer: Answer) -> Said:
    return Said(answer.text, answer.token_ids, answer.key)
