"""The training loop: transformers' Trainer over rounds of generated examples."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter, Example, Heldout
from onceedit_vllm.editing.batches import Batch, collate, encode_example, make_batches
from onceedit_vllm.editing.checkpoint import Checkpoint, Progress
from onceedit_vllm.editing.objective import Losses, joint_loss, run_forward
from onceedit_vllm.editing.optimizer import MasterAdamW
from onceedit_vllm.editing.plugin_model import EditablePlugIn
from onceedit_vllm.editing.probe import Reading, read_examples
from onceedit_vllm.editing.progress import TrainingProgress

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LambdaLR

#: Share of the planned steps over which the learning rate rises.
WARM_UP = 0.06
#: Alpha by which the gate counts as open or shut when a round is judged.
OPEN, SHUT = 0.8, 0.2
#: Rounds before the first judgement; earlier it would only cost time.
FIRST_JUDGED_ROUND = 2


@dataclass
class Course:
    """What happened in a training, for the manifest."""

    rounds: int = 0
    steps: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    learnt: set[int] = field(default_factory=set)
    generation_loss: float = float("nan")
    gate_loss: float = float("nan")


class EditingLoop:
    """Feeds the Trainer round after round, and judges the plug-in between them."""

    def __init__(
        self,
        plugin: EditablePlugIn,
        augmenter: Augmenter,
        config: EditingConfig,
        checkpoint: Checkpoint,
        progress: TrainingProgress,
    ) -> None:
        self.plugin = plugin
        self.augmenter = augmenter
        self.config = config
        self.checkpoint = checkpoint
        self.progress = progress
        self.course = Course()
        self.heldout: Heldout = augmenter.heldout()
        self.optimizer = MasterAdamW(plugin.model, lr=config.learning_rate)
        self._planned_steps = config.epochs * len(self._batches(0))
        self._saved_at = time.monotonic()

    def run(self, *, resume: bool) -> Course:
        """Train until every edit is learnt or the rounds are used up.

        Raises:
            BadInputError: There is a checkpoint to resume, but of another training.
        """
        found = self.checkpoint.load() if resume else None
        if found is None:
            self.checkpoint.discard()
        else:
            self._restore(*found)
        started = time.monotonic() - self.course.seconds
        self._started = started
        with self.progress.started(self._planned_steps, self.course.steps), _calm_trainer():
            _make_trainer(self, self._remaining_steps()).train()
        self.course.seconds = time.monotonic() - started
        return self.course

    # --- what the Trainer takes --------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Batches of all rounds.

        The Trainer asks for one when the step before it is done, so a round is judged on weights
        that have seen all of it.
        """
        for number in range(self.course.rounds, self.config.epochs):
            batches = self._batches(number)
            for at, batch in enumerate(batches):
                if at == len(batches) - 1:  # after the last one nobody may ask again
                    self.course.rounds = number + 1
                yield collate(batch, self.plugin.tokenizer.pad_token_id or 0)
            if number + 1 < self.config.epochs and self._judge():
                self.course.stopped_early = True
                return
            self._save_if_due()

    def make_schedule(self) -> LambdaLR:
        """Linear warm-up and decay over the planned steps, from where the training stands."""
        warm_up = max(1, round(WARM_UP * self._planned_steps))
        offset = self.course.steps

        def factor(step: int) -> float:
            at = step + offset
            rising = (at + 1) / warm_up
            falling = (self._planned_steps - at) / max(1, self._planned_steps - warm_up)
            return max(0.0, min(1.0, rising, falling))

        return torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def compute(self, model: Any, batch: Batch) -> Losses:
        """The losses of one batch."""
        batch = Batch(*(tensor.to(model.device) for tensor in batch))
        losses = joint_loss(
            run_forward(model, batch, self.plugin.weight_token_id), batch, self.config.weight_lambda
        )
        self.course.generation_loss = float(losses.generation.detach())
        self.course.gate_loss = float(losses.gate.detach())
        return losses

    def on_step(self) -> None:
        """After each optimizer step."""
        self.course.steps += 1
        course = self.course
        self.progress.step(course.generation_loss, course.gate_loss, len(course.learnt))

    # --- between rounds ----------------------------------------------------------------------

    def _judge(self) -> bool:
        """Find out which edits are learnt; true when all are and the gate is right everywhere."""
        if self.course.rounds < FIRST_JUDGED_ROUND:
            return False
        prompts = self.augmenter.prompts()
        negatives = self.heldout.negatives
        examples: list[Example] = [*prompts, *self.heldout.positives, *negatives]
        readings = read_examples(
            self.plugin.model, self.plugin.tokenizer, examples, self.plugin.weight_token_id
        )
        cut = len(prompts) + len(self.heldout.positives)
        asked, answers, sure = examples[:cut], readings[:cut], self.config.learnt_probability
        self.course.learnt = find_learnt(asked, answers, sure, threshold=OPEN)
        missed = sum(not right for right in is_right(answers, sure / 2, OPEN)[len(prompts) :])
        opened = sum(reading.alpha > SHUT for reading in readings[cut:])
        finished = len(self.course.learnt) == len(prompts)
        return finished and missed <= 0.05 * (cut - len(prompts)) and opened <= 0.02 * len(negatives)

    def _batches(self, number: int) -> list[Any]:
        rng = random.Random(f"batches {self.config.seed} {number}")
        examples = self.augmenter.examples(number, self.course.learnt)
        encoded = [encode_example(example, self.plugin.tokenizer) for example in examples]
        return make_batches(encoded, self.config.batch_size, rng)

    def _remaining_steps(self) -> int:
        return max(1, self._planned_steps - self.course.steps)

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at < self.config.checkpoint_seconds:
            return
        progress = Progress(
            fingerprint=self.checkpoint.fingerprint,
            next_round=self.course.rounds,
            step=self.course.steps,
            learnt=tuple(sorted(self.course.learnt)),
            seconds=time.monotonic() - self._started,
        )
        self.checkpoint.save(progress, self.optimizer.tensors())
        self._saved_at = time.monotonic()

    def _restore(self, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
        self.optimizer.load_tensors(tensors)
        self.course.rounds = progress.next_round
        self.course.steps = progress.step
        self.course.learnt = set(progress.learnt)
        self.course.seconds = progress.seconds


def is_right(readings: Sequence[Reading], probability: float, threshold: float) -> list[bool]:
    """Whether each text gets its answer, surely enough, and an open gate."""
    return [
        reading.greedy and reading.probability >= probability and reading.alpha >= threshold
        for reading in readings
    ]


def find_learnt(
    examples: Sequence[Example], readings: Sequence[Reading], probability: float, threshold: float
) -> set[int]:
    """Edits whose prompt and at least half of whose other wordings are right.

    The prompt is the first text of its edit and must reach the full probability; the other
    wordings half of it.
    """
    prompts: dict[int, bool] = {}
    others: dict[int, list[bool]] = {}
    surely, rightly = (is_right(readings, needed, threshold) for needed in (probability, probability / 2))
    for example, sure, right in zip(examples, surely, rightly, strict=True):
        if example.edit in prompts:
            others.setdefault(example.edit, []).append(right)
        prompts.setdefault(example.edit, sure)
    found = ((edit, others.get(edit, [])) for edit, sure in prompts.items() if sure)
    return {edit for edit, rights in found if 2 * sum(rights) >= len(rights)}


@contextmanager
def _calm_trainer() -> Iterator[None]:
    """Keep the Trainer from warning that an early stop left it without samples: it is meant."""
    logger = logging.getLogger("transformers.trainer")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _make_trainer(loop: EditingLoop, max_steps: int) -> Any:
    """A Trainer whose data, loss, optimizer and schedule are the loop's.

    Checkpoints are ours too (safetensors, one at a time), because the Trainer's are pickles.
    """
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    class Steps(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            loop.on_step()

    class JointTrainer(Trainer):
        def get_train_dataloader(self) -> Any:
            return loop

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            losses = loop.compute(model, inputs)
            return (losses.total, {}) if return_outputs else losses.total

        def _prepare_inputs(self, inputs: Any) -> Any:
            return inputs

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written: saving and reporting are off
        max_steps=max_steps,
        per_device_train_batch_size=loop.config.batch_size,
        max_grad_norm=1.0,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=loop.config.seed,
        use_cpu=loop.plugin.model.device.type == "cpu",
    )
    trainer = JointTrainer(
        model=loop.plugin.model,
        args=arguments,
        optimizers=(loop.optimizer, loop.make_schedule()),
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
