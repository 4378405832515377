"""What a stage of training is to the loop: what moves, the losses of a batch, what validation measures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unispeech.data.collation import Batch


class Batches(Protocol):
    """One epoch of batches per iteration, resumable; `data.batches.make_loader` gives one."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the rest of the current epoch, or over the next."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position behind the batch that was handed out last, in plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind that batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What a stage computes of one micro-batch."""

    loss_sum: Tensor
    """Scalar: the loss summed over its targets, with a graph."""
    num_targets: Tensor
    """Scalar: what the sum over all micro-batches is divided by."""
    logs: Mapping[str, tuple[Tensor | float, Tensor | float]] = field(default_factory=dict)
    """Logged name -> sum and count, so that values average rightly over batches and processes."""
    counts: Mapping[str, Tensor] = field(default_factory=dict)
    """What is counted -> counts that add up over batches and processes until the next line of the log."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a stage makes of the values since the last line of the log."""

    values: dict[str, float]
    """What is logged."""
    suspicion: str | None = None
    """Why the run should not go on, and what to do; None: it may."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Which update a stage computes, and the random numbers that all processes share in it."""

    update: int
    """Number of updates made before this one."""
    shared: torch.Generator
    """On the CPU, in the same state in every process: what it decides (LayerDrop) is in step."""


class Stage(Protocol):
    """What differs between fine-tuning and the stages of pre-training."""

    metric: str
    """Name of the validated value that decides which checkpoint is best."""
    is_higher_better: bool
    """Whether that value should grow."""
    patience: int
    """Reviews in a row that must be suspicious for the run to be given up."""

    def frozen(self, update: int) -> tuple[str, ...]:
        """Prefixes of the names of the parameters that do not learn in an update."""
        ...

    def start_update(self, model: nn.Module, update: int) -> dict[str, float]:
        """Set what moves with the updates (a temperature) on the bare model; returns it for the log."""
        ...

    def losses(self, model: nn.Module, batch: Batch, step: Step) -> Losses:
        """Run the model, wrapped for distributed training, on a micro-batch."""
        ...

    def review(self, update: int, values: dict[str, float], counts: dict[str, Tensor]) -> Review:
        """Judge what came in since the last line of the log, over all processes; the same in each of them."""
        ...

    def observe(self, model: nn.Module, batch: Batch) -> list[Any]:
        """Run the bare model on a validation batch; the observations of all processes are put together."""
        ...

    def summarise(self, observations: list[Any]) -> dict[str, float]:
        """Turn all observations into the values that are logged, `metric` among them."""
        ...


class Steady:
    """The part of a stage in which nothing moves with the updates and no run is given up."""

    patience = 1

    def start_update(self, model: nn.Module, update: int) -> dict[str, float]:
        """Nothing moves.

        Args:
            model: The bare model.
            update: Number of updates made before.

        Returns:
            Nothing for the log.
        """
        return {}

    def review(self, update: int, values: dict[str, float], counts: dict[str, Tensor]) -> Review:
        """Every value is fine.

        Args:
            update: Number of updates made.
            values: Averages since the last line of the log.
            counts: Counts since then.

        Returns:
            The values.
        """
        return Review(values=values)
