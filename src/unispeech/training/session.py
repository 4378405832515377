"""What every run does around its stage: open the directory, join the processes, run the loop, report."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic

from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.console import Console
from torch import Tensor

from unispeech.checkpoints.huggingface import save_model
from unispeech.data.batches import BatchLoader, make_loader
from unispeech.data.cuts import CutFiles
from unispeech.decoding.inventory import write_inventories
from unispeech.models import UniSpeechPreTrainedModel
from unispeech.text import Vocabulary
from unispeech.training.loop import Outcome, TrainingLoop
from unispeech.training.processes import check_compiler, make_accelerator
from unispeech.training.recipe import R
from unispeech.training.run import Run, lock_run, open_run, write_recipe
from unispeech.training.settings import dump_settings
from unispeech.training.stage import Stage
from unispeech.training.state import BEST, TrainingState, load_state, seed_update, settle_checkpoints

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model with what its outputs mean."""

    model: UniSpeechPreTrainedModel
    """The bare model."""
    vocabulary: Vocabulary | None = None
    """Symbols of a CTC head."""
    label2id: dict[str, int] | None = None
    """Classes of a classifier."""
    do_normalize: bool = True
    """Whether it takes waveforms of zero mean and unit variance."""
    inventories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Phones of each language, written beside the model; empty where they are not told apart."""

    def loader_settings(self) -> dict[str, Any]:
        """What a loader of batches must know of the model."""
        return {
            "vocabulary": self.vocabulary,
            "label2id": self.label2id,
            "do_normalize": self.do_normalize,
            "kernels": self.model.config.conv_kernel,
            "strides": self.model.config.conv_stride,
        }

    def save(self, place: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the model directory of a checkpoint.

        Args:
            place: Where to.
            weights: Those of the model where it holds only a share of them itself; None: it holds them.
        """
        save_model(self.model, place, self.vocabulary, do_normalize=self.do_normalize, weights=weights)
        if self.inventories:
            write_inventories(place, self.inventories)


@dataclass(frozen=True, kw_only=True)
class Session(Generic[R]):
    """A run whose directory is open and whose processes have met."""

    run: Run[R]
    """The run."""
    accelerator: Accelerator
    """Its processes and their device."""
    report: Report
    """Prints a line, in the main process."""
    console: Console
    """Where it prints to."""

    @property
    def recipe(self) -> R:
        """What the run does."""
        return self.run.recipe

    @property
    def place(self) -> dict[str, Any]:
        """Which of the processes this one is, as a loader takes it."""
        return {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Show on a terminal that lists of utterances are read: a minute and a half for a million."""
        if not (self.accelerator.is_main_process and self.console.is_terminal):
            yield
            return
        with self.console.status("reading the lists of utterances"):
            yield

    def dev_batches(self, loader_settings: Mapping[str, Any]) -> BatchLoader | None:
        """Make the batches of validation, every utterance in one process.

        Args:
            loader_settings: What the loader must know of the model.

        Returns:
            The loader; None where the recipe names no dev data.
        """
        data = self.recipe.data
        if not data.dev:
            return None
        longest = max((cut.duration for cut in CutFiles(data.dev)), default=0.0)
        return make_loader(
            data.dev,
            batch_seconds=max(data.batch_seconds, longest),
            shuffle=False,
            num_workers=data.num_workers,
            **self.place,
            **loader_settings,
        )

    def carry_out(
        self, learner: Learner, stage: Stage, train_batches: BatchLoader, dev_batches: BatchLoader | None
    ) -> Outcome:
        """Run the loop from where the run stands.

        Args:
            learner: The model, in the weights of the checkpoint where there is one.
            stage: What is learned.
            train_batches: Micro-batches of this process.
            dev_batches: Validation batches of this process; None never validates.

        Returns:
            How it ended.

        Raises:
            ValueError: If another run is at work in the directory.
        """
        run, recipe, report = self.run, self.recipe, self.report
        if recipe.model.gradient_checkpointing:
            learner.model.activation_checkpointing_enable({"use_reentrant": False})
        _report_data(train_batches, dev_batches, report)
        state = load_state(run.checkpoint) if run.checkpoint else TrainingState()
        if run.checkpoint:
            report(f"{run.checkpoint}: going on after update {state.update}")
        loop = TrainingLoop(
            model=learner.model,
            stage=stage,
            train_batches=train_batches,
            dev_batches=None if dev_batches is None else dev_batches.__iter__,
            optim=recipe.optim,
            schedule=recipe.schedule,
            runtime=recipe.runtime,
            run=run.directory,
            state=state,
            save_model=learner.save,
            recipe=dump_settings(recipe),
            accelerator=self.accelerator,
        )
        self.accelerator.wait_for_everyone()  # all have read the checkpoint
        with self._locked():
            # Not before: a resumption that is refused leaves the recipe of the run as it was.
            if self.accelerator.is_main_process:
                write_recipe(run)
                settle_checkpoints(run.directory)
            outcome = loop.run()
        unreadable = set(gather_object(list(train_batches.unreadable)))
        if unreadable:
            report(f"{len(unreadable)} utterances were left out because they cannot be read")
        _report_outcome(run.directory, stage.metric, outcome, report)
        return outcome

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the run directory, or end all processes where another run holds it."""
        failure, lock = None, None
        if self.accelerator.is_main_process:
            try:
                lock = lock_run(self.run.directory)
            except ValueError as error:
                failure = str(error)
        if message := next(filter(None, gather_object([failure])), None):
            raise ValueError(message)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()


def open_session(
    recipe_path: Path | None,
    directory: Path,
    overrides: Sequence[str],
    schema: type[R],
    *,
    resume: bool,
) -> Session[R]:
    """Read the recipe, look where the run stands, and let the processes meet.

    Args:
        recipe_path: The recipe; a resumption takes that of the run.
        directory: The run directory.
        overrides: "section.key=value" strings that win over the recipe.
        schema: The recipe class of the stage.
        resume: Whether to go on with the run in the directory.

    Returns:
        The session; random numbers are those that all processes start from.

    Raises:
        ValueError: If the recipe cannot be used, or the directory does not fit `resume`.
        OSError: If a file is missing, or the directory cannot be written to.
    """
    console = Console(file=sys.stderr)
    report: Report = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    run = open_run(directory, recipe_path, overrides, schema, resume=resume, report=report)
    accelerator = make_accelerator(run.recipe.runtime.precision)
    if run.recipe.runtime.compile:
        check_compiler(accelerator.device)
    if not accelerator.is_main_process:
        report = _say_nothing
    accelerator.wait_for_everyone()  # all have read the directory before one writes to it
    # All processes start from the same weights; what they draw later, every update seeds.
    seed_update(run.recipe.runtime.seed, 0, 0, "model")
    return Session(run=run, accelerator=accelerator, report=report, console=console)


def _report_data(train_batches: BatchLoader, dev_batches: BatchLoader | None, report: Report) -> None:
    """Say how much there is to learn from."""
    for name, batches in (("train", train_batches), ("dev", dev_batches)):
        if batches is not None:
            plan = batches.plan
            report(f"{name}: {plan.num_utterances} utterances, {plan.duration / 60:.1f} min")
    if dev_batches is None:
        report("dev: no data, so there will be no validation and no best/")


def _report_outcome(directory: Path, metric: str, outcome: Outcome, report: Report) -> None:
    """Say what came out."""
    if outcome.best is not None:
        report(f"{directory / BEST}: {metric} {outcome.best:.4f}")
    if outcome.signal:
        report(f"{directory}: stopped after update {outcome.update}; --resume goes on")


def _say_nothing(line: str) -> None:
    """The report of every process but the first."""
