"""The training loop: rounds of generated examples, and a look at the plug-in between them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import torch
from torch import nn

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.batches import Encoded, encode_example, make_batches
from onceedit_vllm.editing.checkpoint import Checkpoint, Progress
from onceedit_vllm.editing.judge import Judge, Verdict
from onceedit_vllm.editing.objective import Losses, joint_loss, run_forward
from onceedit_vllm.editing.plugin_model import EditablePlugIn, to_tensors
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.evidence import first_tokens

#: Share of the planned steps over which the learning rate rises.
WARM_UP = 0.06
#: Rounds before the first judgement, and from one to the next: each takes a tenth of a round's time.
FIRST_JUDGED_ROUND, JUDGED_EVERY = 4, 2
_LARGEST_GRADIENT_NORM = 1.0


@dataclass
class Course:
    """What happened in a training, for the manifest; `requeued` were learnt and then not any more."""

    rounds: int = 0
    steps: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    learnt: frozenset[int] = frozenset()
    requeued: frozenset[int] = frozenset()


class EditingLoop:
    """AdamW over rounds of examples until every edit is learnt or the rounds are used up."""

    def __init__(
        self,
        plugin: EditablePlugIn,
        augmenter: Augmenter,
        judge: Judge,
        config: EditingConfig,
        checkpoint: Checkpoint,
        progress: TrainingProgress,
        learnt: frozenset[int] = frozenset(),
    ) -> None:
        """`learnt` are edits that the plug-in knows before the first step."""
        self._plugin = plugin
        self._augmenter = augmenter
        self._judge = judge
        self._config = config
        self._checkpoint = checkpoint
        self._progress = progress
        self.course = Course(learnt=learnt)
        targets = (scope.record.target for scope in augmenter.scopes)
        self._beginnings = [first_tokens(target, plugin.tokenizer) for target in targets]
        self._weights = plugin.trained()
        # No weight decay, as the paper has none.
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self._planned_steps = config.epochs * len(self._batches(0))
        self._saved_at = self._started = time.monotonic()

    def run(self, *, resume: bool) -> Verdict:
        """Train, and judge the outcome.

        Raises:
            BadInputError: There is a checkpoint to resume, but of another training.
        """
        found = self._checkpoint.load() if resume else None
        if found is None:
            self._checkpoint.discard()
            if resume:
                self._progress.say("There is no checkpoint to resume: starting from the beginning.")
        else:
            self._restore(*found)
        self._started = time.monotonic() - self.course.seconds
        with self._progress.started(self._planned_steps, self.course.steps):
            verdict = self._train()
        self.course.seconds = time.monotonic() - self._started
        return verdict

    def _train(self) -> Verdict:
        verdict = None
        while self.course.rounds < self._config.epochs:
            self._plugin.model.train()
            for batch in self._batches(self.course.rounds):
                self._step(batch)
            self.course.rounds += 1
            verdict = self._look()
            if verdict is not None and verdict.is_done:
                self.course.stopped_early = self.course.rounds < self._config.epochs
                break
            self._save_if_due()
        return verdict or self._judge.look(self._plugin)

    def _step(self, examples: list[Encoded]) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * self._schedule(self.course.steps)
        losses = self._losses(examples)
        losses.total.backward()
        nn.utils.clip_grad_norm_(self._weights.values(), _LARGEST_GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.course.steps += 1
        self._progress.step(losses.generation.item(), losses.gate.item(), len(self.course.learnt))

    def _losses(self, examples: list[Encoded]) -> Losses:
        batch = to_tensors(examples, self._plugin)
        return joint_loss(run_forward(self._plugin, batch), batch, self._config.weight_lambda)

    def _schedule(self, step: int) -> float:
        """Linear warm-up and decay over the planned steps, as a share of the learning rate."""
        warm_up = max(1, round(WARM_UP * self._planned_steps))
        falling = (self._planned_steps - step) / max(1, self._planned_steps - warm_up)
        return max(0.0, min(1.0, (step + 1) / warm_up, falling))

    def _look(self) -> Verdict | None:
        """Find out which edits are learnt, where it is worth it."""
        since = self.course.rounds - FIRST_JUDGED_ROUND
        if self.course.rounds < self._config.epochs and (since < 0 or since % JUDGED_EVERY):
            return None
        verdict = self._judge.look(self._plugin)
        self.course.requeued |= self.course.learnt - verdict.learnt
        self.course.learnt = verdict.learnt
        return verdict

    def _batches(self, number: int) -> list[list[Encoded]]:
        rng = random.Random(f"batches {self._config.seed} {number}")
        examples = self._augmenter.examples(number, self.course.learnt)
        encoded = [
            encode_example(example, self._plugin.tokenizer)._replace(
                beginning=self._beginnings[example.edit] if example.edit >= 0 else ()
            )
            for example in examples
        ]
        return make_batches(encoded, self._config.batch_size, rng)

    # --- checkpoints -------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at < self._config.checkpoint_seconds:
            return
        progress = Progress(
            fingerprint=self._checkpoint.fingerprint,
            next_round=self.course.rounds,
            step=self.course.steps,
            learnt=tuple(sorted(self.course.learnt)),
            requeued=tuple(sorted(self.course.requeued)),
            seconds=time.monotonic() - self._started,
        )
        self._checkpoint.save(progress, self._tensors())
        self._saved_at = time.monotonic()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Everything that a checkpoint must hold: weights and moments, by name."""
        found = {f"weight.{name}": weight.detach() for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            found |= {f"{key}.{name}": value for key, value in self._optimizer.state[weight].items()}
        return found

    @torch.no_grad()
    def _restore(self, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(tensors[f"weight.{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            self._optimizer.state[weight].update(
                {key: tensors[f"{key}.{name}"].to(weight.device, copy=True) for key in keys}
            )
        self.course = Course(
            progress.next_round,
            progress.step,
            progress.seconds,
            learnt=frozenset(progress.learnt),
            requeued=frozenset(progress.requeued),
        )
