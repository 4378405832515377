"""The training loop: one step, one shape, for every stage.

An update is schedule -> fetch -> step -> log -> validate -> save. Losses are sums: the gradient of the sum
over all micro-batches and processes is divided, once, by the number of targets of all of them, so one process
with a large batch, two with halves and any number of accumulated micro-batches make the same update.

What a stage learns is in a `Stage`: which parameters move, the losses of a batch, what validation measures.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from unispeech.data.collation import Batch
from unispeech.engines.compilation import compile_layers
from unispeech.frames import SAMPLE_RATE
from unispeech.training.monitor import Meters, Monitor, average, total_counts
from unispeech.training.processes import Interruption
from unispeech.training.schedules import learning_rate
from unispeech.training.sections import OptimSettings, RuntimeSettings, ScheduleSettings
from unispeech.training.sharding import gathered, shard_model, shared_out, whole
from unispeech.training.stage import Batches, Losses, Stage, Step
from unispeech.training.state import (
    BEST,
    LAST,
    STOPPED,
    TrainingState,
    evaluating,
    save_checkpoint,
    seed_update,
)

Weights = Mapping[str, Tensor]
"""Name -> whole tensor on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    update: int
    """Updates made."""
    signal: int
    """Number of the signal that ended it before its last update (SIGINT where another process got one); 0:
    none did."""
    best: float | None
    """Best validated value, if there was a validation."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over all micro-batches and processes of an update."""

    loss: float
    """The loss."""
    targets: float
    """What it is divided by."""
    audio_seconds: float
    """Audio without padding."""
    interruptions: float
    """Processes that were told to stop."""


class TrainingLoop:
    """Runs a stage from where its state stands to its last update.

    Args:
        model: The bare model, on the CPU, in the weights that the state belongs to.
        stage: What is learned.
        train_batches: Micro-batches of this process.
        dev_batches: Makes the validation batches of this process, each utterance in one process only; None
            never validates.
        optim: Settings of the optimiser.
        schedule: Length of the run and learning rates.
        runtime: How it is carried out.
        run: The run directory, which exists.
        state: Where the run stands; a fresh one for a new run.
        save_model: Writes the model and its vocabulary into a directory; gets the weights along where the
            model itself holds only a share of them, else None.
        recipe: The resolved recipe as YAML, for the checkpoints.
        accelerator: The processes and the device; its own gradient accumulation stays at 1.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        stage: Stage,
        train_batches: Batches,
        dev_batches: Callable[[], Iterator[Batch]] | None,
        optim: OptimSettings,
        schedule: ScheduleSettings,
        runtime: RuntimeSettings,
        run: Path,
        state: TrainingState,
        save_model: Callable[[Path, Weights | None], None],
        recipe: str,
        accelerator: Accelerator,
    ) -> None:
        self.accelerator, self.stage, self.state = accelerator, stage, state
        self.optim, self.schedule, self.runtime, self.directory = optim, schedule, runtime, run
        self.train_batches, self.dev_batches = train_batches, dev_batches
        self._save_model, self._recipe = save_model, recipe
        self.bare_model = model.to(accelerator.device)
        self._is_sharded = runtime.shard and accelerator.num_processes > 1
        if self._is_sharded:
            shard_model(self.bare_model, accelerator.device, accelerator.num_processes)
        if runtime.compile:
            compile_layers(self.bare_model)
        self._frozen = stage.frozen(state.update)
        self.model = self._wrap()
        self.optimizer = make_optimizer(list(self.bare_model.parameters()), optim, accelerator.device)
        self.meters = Meters()
        if state.ranks:
            self._restore(state)
        self._stream = _endless(train_batches)
        self._monitor: Monitor | None = None

    def run(self) -> Outcome:
        """Make the remaining updates.

        Returns:
            How the run ended.

        Raises:
            ValueError: If a loss or a gradient is not finite, the run has collapsed, or there are no batches.
            OSError: If a checkpoint cannot be written.
        """
        self._interruption = Interruption()
        with self._interruption, self._open_monitor() as self._monitor:
            was_validated = self.state.validated_update == self.state.update
            # A run may have been stopped between an update and its validation.
            if self._is_due(self.runtime.validate_every) and not was_validated and not self._validate():
                self._save(LAST)
            is_stopping = any(self._gather([self._interruption.is_wanted]))
            while self.state.update < self.schedule.num_updates and not is_stopping:
                values = self._schedule()
                batches = self._fetch()
                totals = self._step(batches)
                self._log(values)
                is_stopping = totals.interruptions > 0
                if not is_stopping and self._is_due(self.runtime.validate_every):
                    is_stopping = self._validate()
                if is_stopping or self._is_due(self.runtime.save_every):
                    self._save(LAST)
            self._monitor = None
        number = (self._interruption.number or signal.SIGINT) if is_stopping else 0
        return Outcome(update=self.state.update, signal=number, best=self.state.best)

    # ---- the paragraphs of an update

    def _schedule(self) -> dict[str, float]:
        """Learning rate and frozen parts of the update to come."""
        update = self.state.update
        frozen = self.stage.frozen(update)
        if frozen != self._frozen:
            self._frozen = frozen
            self.model = self._wrap()
        rate = learning_rate(self.schedule, self.optim.learning_rate, update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return {"lr": rate, **self.stage.start_update(self.bare_model, update)}

    def _fetch(self) -> list[Batch]:
        """The micro-batches of the update, loaded under random numbers of their own."""
        started = time.monotonic()
        seed_update(self.runtime.seed, self.accelerator.process_index, self.state.update, "data")
        batches = [next(self._stream) for _ in range(self.runtime.accumulate)]
        seed_update(self.runtime.seed, self.accelerator.process_index, self.state.update, "model")
        seconds = time.monotonic() - started
        self.meters.add("waiting_fraction", seconds, seconds)
        self.meters.add("audio_seconds_per_second", 0.0, seconds)
        return batches

    def _step(self, batches: list[Batch]) -> Totals:
        """Sum the gradients, scale them once, and update the weights if all is finite."""
        started = time.monotonic()
        self.model.train()
        sums = torch.zeros(4, dtype=torch.float64)
        losses_of_batches = []
        step = Step(update=self.state.update, shared=_shared_generator(self.runtime.seed, self.state.update))
        for number, batch in enumerate(batches, start=1):
            is_last = number == len(batches)
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                losses = self.stage.losses(self.model, _to_device(batch, self.accelerator.device), step)
                self.accelerator.backward(losses.loss_sum)
            losses_of_batches.append(float(losses.loss_sum.detach()))
            audio_seconds = float(batch["num_samples"].sum()) / SAMPLE_RATE
            sums += torch.tensor([losses_of_batches[-1], float(losses.num_targets), audio_seconds, 0.0])
            self._meter(batch, losses, audio_seconds)
        sums[3] = float(self._interruption.is_wanted)
        loss, targets, audio_seconds, interruptions = self._sum_over_processes(sums)
        grad_norm = self._scale_gradients(targets)
        if not torch.isfinite(torch.tensor([loss, grad_norm])).all():
            self._stop_at_non_finite(batches, losses_of_batches, loss, grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.update += 1
        self.state.audio_seconds += audio_seconds
        self.meters.add("loss", loss, targets)
        self.meters.add("grad_norm", grad_norm, 1.0)
        seconds = time.monotonic() - started
        self.meters.add("waiting_fraction", 0.0, seconds)
        self.meters.add("audio_seconds_per_second", audio_seconds, seconds)
        return Totals(loss=loss, targets=targets, audio_seconds=audio_seconds, interruptions=interruptions)

    def _log(self, values: dict[str, float]) -> None:
        """Write the averages since the last line."""
        if self._monitor is not None:
            self._monitor.advance(self.state.update, self.state.audio_seconds)
        if not self._is_due(self.runtime.log_every):
            return
        states = self._gather([self.meters.state_dict()])
        self.meters.clear()
        review = self.stage.review(self.state.update, average(states), total_counts(states))
        if self._monitor is not None:
            self._monitor.log(self.state.update, review.values | values)
        self.state.num_suspect = self.state.num_suspect + 1 if review.suspicion else 0
        if self.state.num_suspect >= self.stage.patience:
            # What was saved before is worth more than the weights of now.
            raise ValueError(
                f"{self.directory}: stopped at update {self.state.update}: {review.suspicion} Checkpoints "
                "stay as they are."
            )

    def _validate(self) -> bool:
        """Measure on the dev data and keep the best; returns whether a process was told to stop meanwhile."""
        if self.dev_batches is None:
            return False
        observations: list[Any] = []
        # Processes have different numbers of batches, so none may wait for the weights of another.
        with whole(self.bare_model), evaluating(self.bare_model):
            for batch in self.dev_batches():
                on_device = _to_device(batch, self.accelerator.device)
                observations += self.stage.observe(self.bare_model, on_device)
                if self._interruption.is_wanted:
                    break
        if any(self._gather([self._interruption.is_wanted])):
            return True
        values = self.stage.summarise(self._gather(observations))
        if self._monitor is not None:
            self._monitor.log(self.state.update, {f"dev/{name}": value for name, value in values.items()})
        self.state.validated_update = self.state.update
        value, best = values[self.stage.metric], self.state.best
        if best is None or (value > best if self.stage.is_higher_better else value < best):
            self.state.best = value
            self._save(BEST)
        return False

    def _save(self, name: str) -> None:
        """Write a checkpoint; only the main process touches the disk, but all learn of a failure."""
        self.state.optimizer = gathered(self.optimizer.state_dict())
        weights = gathered(dict(self.bare_model.state_dict())) if self._is_sharded else None
        own = {"batches": self.train_batches.state_dict(), "meters": self.meters.state_dict()}
        self.state.ranks = self._gather([own])
        self.state.micro_batches = self.accelerator.num_processes * self.runtime.accumulate
        failure: list[str | None] = [None]
        if self.accelerator.is_main_process:
            try:
                save_checkpoint(
                    self.directory / name,
                    self.state,
                    save_model=lambda place: self._save_model(place, weights),
                    recipe=self._recipe,
                )
                if name == LAST:  # what a stop left has been gone on from
                    shutil.rmtree(self.directory / STOPPED, ignore_errors=True)
            except OSError as error:
                failure = [str(error)]
        message = next((text for text in self._gather(failure) if text), None)
        if message:
            raise OSError(message)

    # ---- the parts of the paragraphs

    def _restore(self, state: TrainingState) -> None:
        """Go on where a checkpoint stands."""
        num_processes, accumulate = self.accelerator.num_processes, self.runtime.accumulate
        if state.micro_batches != num_processes * accumulate:
            raise ValueError(
                f"processes times `runtime.accumulate` must be {state.micro_batches} as in the checkpoint, "
                f"but are {num_processes} times {accumulate}."
            )
        self.optimizer.load_state_dict(shared_out(state.optimizer, self.optimizer))
        # Processes share one sequence of batches; the last of them stands furthest.
        is_same = len(state.ranks) == num_processes
        own = state.ranks[self.accelerator.process_index if is_same else -1]
        try:
            self.train_batches.load_state_dict(own["batches"])
        except ValueError:
            raise ValueError(
                f"{self.directory}: training data and `runtime.seed` must be those of the checkpoint, but "
                "have changed; put them back, or start a new run with this one as `model.init`."
            ) from None
        if is_same:
            self.meters.load_state_dict(own["meters"])

    def _wrap(self) -> nn.Module:
        """Freeze and thaw parameters, then wrap the model: DDP asks at wrapping time which ones learn."""
        self.model = None  # type: ignore[assignment]
        self.accelerator.unwrap_model(self.bare_model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        for name, parameter in self.bare_model.named_parameters():
            parameter.requires_grad_(not name.startswith(self._frozen))
            parameter.grad = None
        # What is sharded needs no DDP around it, only the number format.
        wrapped: nn.Module = self.accelerator.prepare_model(
            self.bare_model, device_placement=not self._is_sharded, evaluation_mode=self._is_sharded
        )
        return wrapped

    def _scale_gradients(self, targets: float) -> float:
        """Divide by the number of targets, shorten to the largest norm; returns the norm before that."""
        # DDP and FSDP have averaged over the processes what should be a sum.
        factor = self.accelerator.num_processes / max(targets, 1.0)
        gradients = [p.grad for p in self.bare_model.parameters() if p.grad is not None]
        if not gradients:
            return 0.0
        torch._foreach_mul_(gradients, factor)
        largest = self.optim.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(
            self.model.parameters(), float("inf") if largest is None else largest
        )
        return float(gathered(norm))

    def _meter(self, batch: Batch, losses: Losses, audio_seconds: float) -> None:
        """Count what a micro-batch says."""
        for name, (total, count) in losses.logs.items():
            self.meters.add(name, float(total), float(count))
        for name, counts in losses.counts.items():
            self.meters.count(name, counts)
        computed = batch["input_values"].numel() / SAMPLE_RATE
        self.meters.add("padding_fraction", computed - audio_seconds, computed)

    def _stop_at_non_finite(
        self, batches: list[Batch], losses: list[float], loss: float, grad_norm: float
    ) -> None:
        """Write down which utterances the update had, save what was learned before it, and stop.

        Every process comes here together. The data stand behind the update, so a resumption leaves its
        utterances out; `last` stays, for weights that are past saving.
        """
        update = self.state.update + 1
        path = self.directory / f"non-finite-update-{update}.txt"
        own = [
            f"{name}\t{value}\n"
            for batch, value in zip(batches, losses, strict=True)
            for name in batch["ids"]
        ]
        lines = self._gather(own)
        if self.accelerator.is_main_process:
            path.write_text("utterance\tloss of its batch\n" + "".join(lines), encoding="utf-8")
        self.meters.clear()  # they have counted what is not finite
        try:
            self._save(STOPPED)
            way = (
                f"--resume goes on after update {update - 1} without them, best with a lower "
                f"`optim.learning_rate`; without {self.directory / STOPPED}, from the checkpoint before."
            )
        except OSError as error:
            way = f"--resume goes on from the checkpoint before, for {error}"
        raise ValueError(
            f"update {update}: loss and gradient norm must be finite, but are {loss:g} and {grad_norm:g}; "
            f"{path} lists the {len(lines)} utterances; {way}"
        )

    def _is_due(self, interval: int) -> bool:
        update = self.state.update
        return update > 0 and (update % interval == 0 or update == self.schedule.num_updates)

    def _open_monitor(self) -> AbstractContextManager[Monitor | None]:
        if not self.accelerator.is_main_process:
            return nullcontext()
        return Monitor(
            self.directory,
            update=self.state.update,
            num_updates=self.schedule.num_updates,
            audio_seconds=self.state.audio_seconds,
        )

    def _gather(self, items: list[Any]) -> list[Any]:
        """Join lists of plain values of all processes, in the order of the processes."""
        gathered: list[Any] = gather_object(items)
        return gathered

    def _sum_over_processes(self, sums: Tensor) -> tuple[float, ...]:
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.accelerator.device), reduction="sum").cpu()
        return tuple(sums.tolist())


def make_optimizer(
    parameters: list[nn.Parameter], settings: OptimSettings, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay, in one fused kernel where torch has one.

    Args:
        parameters: What learns, now or later.
        settings: Its settings.
        device: Where the parameters are.

    Returns:
        The optimiser; the loop sets its learning rate before every update.
    """
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=device.type in {"cpu", "cuda"},
    )


def _shared_generator(seed: int, update: int) -> torch.Generator:
    """Random numbers of an update that do not depend on the process."""
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence([seed, update]).generate_state(1)[0]))
    return generator


def _endless(batches: Batches) -> Iterator[Batch]:
    """Epoch after epoch.

    Yields:
        Batches, for ever.
    """
    num_empty = 0
    while True:
        num_batches = 0
        for batch in batches:
            num_batches += 1
            yield batch
        # The rest of an epoch may be empty after a resumption, a whole epoch may not.
        num_empty = 0 if num_batches else num_empty + 1
        if num_empty == 2:
            raise ValueError("`data.train` must give at least one batch per process, but gives none.")


def _to_device(batch: Batch, device: torch.device) -> Batch:
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    return cast(Batch, moved)
