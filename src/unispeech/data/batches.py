"""The batches of one process: read ahead by workers, resumable behind any batch."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from unispeech.data.augmentation import Augmentation
from unispeech.data.collation import Batch, CutBatches
from unispeech.data.cuts import CutFiles
from unispeech.data.sampling import BatchPlan, DrawnBatch, Position
from unispeech.data.targets import TargetCheck
from unispeech.errors import ManifestError
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, Seconds
from unispeech.text import Vocabulary

_logger = logging.getLogger(__name__)

_MAX_UNREADABLE = 100
"""Utterances of a stream that may be unreadable one after the other."""


class Plan(Protocol):
    """The endless sequence of batches that all processes share."""

    @property
    def fingerprint(self) -> int:
        """A number that changes with the data and with every setting that changes the batches."""
        ...

    @property
    def num_utterances(self) -> int:
        """Utterances of an epoch."""
        ...

    @property
    def duration(self) -> Seconds:
        """Audio of an epoch."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Utterances of each stream that are not left out."""
        ...

    def share(
        self, position: Position, rank: int, world_size: int
    ) -> Iterator[tuple[Position, DrawnBatch | None]]:
        """Draw what one process gets of the rest of an epoch, as `BatchPlan.share` does."""
        ...


class BatchLoader:
    """The batches of one process, resumable behind any of them.

    With `shuffle`, an iteration gives the rest of the current epoch, and the next one the next epoch; the
    position moves when a batch is handed out, not when a worker reads ahead. Without it, every iteration is
    the same pass over all utterances from the beginning, for validation.

    Utterances whose audio cannot be read are left out of their batch, counted and named in a warning; a batch
    of which nothing is left is passed over.

    Args:
        plan: The sequence of batches.
        batches: Reads them: its item of a `DrawnBatch` is what `CutBatches` gives.
        rank: Number of this process, from 0.
        world_size: How many processes share the sequence.
        shuffle: As above; the plan's own.
        num_workers: Processes that read ahead; 0 reads when a batch is asked for.

    Raises:
        ValueError: If `rank` does not lie in [0, `world_size`), or `num_workers` is negative.
    """

    def __init__(
        self,
        plan: Plan,
        batches: Dataset[dict[str, Any]],
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        num_workers: int = 0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must lie in [0, {world_size}), but is {rank}.")
        if num_workers < 0:
            raise ValueError(f"`num_workers` must be at least 0, but is {num_workers}.")
        self.plan = plan
        self.unreadable: dict[str, str] = {}
        """Utterances that could not be read so far, and why."""
        self.num_unreadable = 0
        """How often an utterance was left out because it could not be read."""
        self._silent: dict[int, set[str]] = {}
        self._shuffle = shuffle
        self._draws = _Draws(plan, rank, world_size)
        self._loader = DataLoader(
            _Arrays(batches) if num_workers else batches,
            batch_size=None,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_group,
            sampler=self._draws,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            # A loader without a generator of its own draws from torch's and so changes what a model draws.
            generator=torch.Generator(),
        )

    @property
    def epoch(self) -> int:
        """The pass over the data that the last batch belongs to, from 0."""
        return self._draws.position.epoch

    def __iter__(self) -> Iterator[Batch]:
        """Give the rest of the epoch (with `shuffle`), or all batches.

        Yields:
            Batches.

        Raises:
            ManifestError: If not one recording of a whole epoch can be read, or none of 100 of a stream.
        """
        draws = self._draws
        if not self._shuffle:
            draws.position = Position()
        num_drawn = 0
        # The rest of an epoch may be empty, and so may a small epoch's share of one process of many.
        while not num_drawn:
            is_whole, num_read = draws.position.batch == 0, 0
            for item in map(_as_tensors, self._loader):
                draws.position, stream = draws.behind.popleft()
                self._note(stream, item.pop("unreadable"), is_silent=not item)
                num_drawn += 1
                if item:
                    num_read += 1
                    yield item
            draws.position = draws.next_epoch
            if num_drawn and is_whole and not num_read:
                name, reason = next(iter(self.unreadable.items()))
                raise ManifestError(f"{name}: a recording must be readable, but none is; this one: {reason}")
            if not self._shuffle:
                return

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands behind the batch that was handed out last.

        Returns:
            Plain values. Each process has its own; that of the first serves another number of processes too,
            which then repeat at most one batch each.
        """
        return {**self._draws.position.state(), "fingerprint": self.plan.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch at which a state was taken.

        Args:
            state: From `state_dict` of a loader of the same cuts and settings; `num_workers` may differ.

        Raises:
            ValueError: If the loader it was taken from had other cuts or other settings of batches.
        """
        if state["fingerprint"] != self.plan.fingerprint:
            raise ValueError(
                f"`state` must come from a loader of the same cuts, seed and batch settings, but comes from "
                f"another ({state['fingerprint']:08x}, here {self.plan.fingerprint:08x})."
            )
        self._draws.position = Position.from_state(state)

    def _note(self, stream: int, unreadable: Iterable[tuple[str, str]], *, is_silent: bool) -> None:
        """Count what could not be read of a batch, perhaps all of it."""
        silent = self._silent.setdefault(stream, set())
        for name, reason in unreadable:
            silent.add(name)
            self.num_unreadable += 1
            if name not in self.unreadable:
                _logger.warning("%s: left out, its audio cannot be read: %s", name, reason)
            self.unreadable[name] = reason
        if not is_silent:
            silent.clear()
        # A whole stream that is gone, on a disk that is not mounted, is not an utterance here and there.
        if len(silent) >= min(_MAX_UNREADABLE, self.plan.sizes[stream]):
            raise ManifestError(
                f"{name}: one recording of {len(silent)} must be readable, but none is; this one: {reason}"
            )


class _Arrays(Dataset[dict[str, Any]]):
    """Batches as they go from a worker to this process: through a pipe.

    Tensors would go by shared memory. Where that is full or limited (containers, `ulimit -f`), the thread of
    the worker that sends them fails, and whoever waits for them waits for ever.
    """

    def __init__(self, batches: Dataset[dict[str, Any]]) -> None:
        self._batches = batches

    def __getitem__(self, drawn: DrawnBatch) -> dict[str, Any]:
        batch = self._batches[drawn]
        return {key: item.numpy() if isinstance(item, Tensor) else item for key, item in batch.items()}


def _as_tensors(item: dict[str, Any]) -> Any:
    """A batch as the model takes it."""
    return {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in item.items()}


def _as_it_is(item: Any) -> Any:
    """What the dataset gives is a batch already."""
    return item


def _leave_group(worker: int) -> None:
    """Take a worker out of the group of processes that a terminal, or a supervisor, sends its signals to.

    This process decides what a signal means, and needs its workers until it has saved. When it is gone
    they end; each would else wait for ever for somebody to take its batch.
    """
    os.setpgrp()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process soon after its parent has ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class _Draws(Sampler[DrawnBatch]):
    """Chooses the cuts of the batches to come, ahead of what is handed out, and remembers their places.

    It knows nothing of its loader: in a circle of references a loader would outlive its use, and its end
    would fall into the workers of the next.
    """

    def __init__(self, plan: Plan, rank: int, world_size: int) -> None:
        self._plan, self._rank, self._world_size = plan, rank, world_size
        self.position = Position()
        """Behind the batch that was handed out last; draws begin here."""
        self.next_epoch = Position()
        """Where the next epoch begins, once this one is drawn to its end."""
        self.behind: deque[tuple[Position, int]] = deque()
        """The places behind the batches that are drawn and not yet handed out, and the batches' streams."""

    def __iter__(self) -> Iterator[DrawnBatch]:
        self.behind.clear()
        for position, drawn in self._plan.share(self.position, self._rank, self._world_size):
            if drawn is None:
                self.next_epoch = position
                return
            self.behind.append((position, drawn.stream))
            yield drawn


def make_loader(
    cuts: str | Path | Sequence[str | Path],
    *,
    vocabulary: Vocabulary | None = None,
    label2id: Mapping[str, int] | None = None,
    allow_unlabelled: bool = False,
    batch_seconds: Seconds = 40.0,
    batch_utterances: int | None = None,
    min_seconds: Seconds = 0.0,
    max_seconds: Seconds | None = None,
    num_buckets: int | None = None,
    crop: bool = False,
    augmentation: Augmentation | None = None,
    language_exponent: float | None = None,
    shuffle: bool = True,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    do_normalize: bool = True,
    kernels: Sequence[int] = CONV_KERNEL,
    strides: Sequence[int] = CONV_STRIDE,
) -> BatchLoader:
    """Make the batches of prepared cuts. All cuts are looked at once; what is left out is listed and logged.

    Args:
        cuts: Files, or folders with a `cuts.jsonl.gz`.
        vocabulary: Symbols of a CTC head; None with `label2id` None gives batches without targets.
        label2id: Classes of a classifier.
        allow_unlabelled: Whether utterances without a target are read, with -100 for labels.
        batch_seconds: Limit of the padded audio of a batch: utterances times the longest of them.
        batch_utterances: Limit of the number of utterances in a batch; None sets none.
        min_seconds: Shorter utterances are left out.
        max_seconds: Longer utterances are left out; None leaves out what is longer than `batch_seconds`.
        num_buckets: Groups of like length from which batches are drawn; None chooses by the amount of data.
        crop: For speech without targets: utterances that are too long are cropped instead of left out, and
            all of a batch, each at a random place, to the shortest of them, so that there is no padding.
            Labels are -100.
        augmentation: How the recordings are changed; None leaves them as they are.
        language_exponent: In [0, 1]: how far each language keeps its share of the speech in an epoch, from 0
            (all the same) to 1 (its own); None takes every utterance once.
        shuffle: Whether each epoch has an order of its own (training); else every iteration is the same pass
            over all utterances (validation).
        seed: Where every draw comes from.
        rank: Number of this process, from 0.
        world_size: How many processes share the batches.
        num_workers: Processes that read ahead; they change nothing in the batches.
        do_normalize: Whether each waveform gets zero mean and unit variance over its own samples.
        kernels: Kernel sizes of the feature encoder, `config.conv_kernel`.
        strides: Strides of the feature encoder, `config.conv_stride`.

    Returns:
        The batches of this process.

    Raises:
        FileNotFoundError: If there is no such file of cuts.
        ManifestError: If a cut has no target that can be learnt, or no utterance is left.
        ValueError: If a setting lies out of its range.
    """
    batches = CutBatches(
        vocabulary=vocabulary,
        label2id=label2id,
        allow_unlabelled=allow_unlabelled,
        has_targets=not crop,
        augmentation=augmentation,
        do_normalize=do_normalize,
        kernels=kernels,
        strides=strides,
    )
    files, check = CutFiles(cuts), TargetCheck(vocabulary)
    plan = BatchPlan(
        files,
        batch_seconds=batch_seconds,
        batch_utterances=batch_utterances,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        num_buckets=num_buckets,
        crop=crop,
        shuffle=shuffle,
        seed=seed,
        augmentation=augmentation,
        language_exponent=language_exponent,
        check=check.of(batches, files),
    )
    check.finish()
    log_left_out(plan)
    return BatchLoader(
        plan, batches, rank=rank, world_size=world_size, shuffle=shuffle, num_workers=num_workers
    )


def log_left_out(plan: BatchPlan) -> None:
    """Warn of the utterances that are too short or too long.

    Args:
        plan: What leaves them out.
    """
    for names, limit in ((plan.too_short, "short"), (plan.too_long, "long")):
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            _logger.warning(
                "%d utterances are left out because they are too %s: %s", len(names), limit, shown
            )
