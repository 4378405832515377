"""Several streams of cuts -> one sequence of batches: labelled and not, synthetic and real, by shares."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from unispeech.data.augmentation import Augmentation
from unispeech.data.batches import BatchLoader, log_left_out
from unispeech.data.collation import CutBatches
from unispeech.data.cuts import CutFiles
from unispeech.data.sampling import BatchPlan, DrawnBatch, Position
from unispeech.data.targets import TargetCheck
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, Seconds
from unispeech.text import Vocabulary

# Streams draw from seeds far apart: neighbouring seeds give neighbouring epochs the same order.
_SEED_STEP = 0x9E3779B1


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A part of the training data that gets a share of the batches.

    Raises:
        ValueError: If `share` is not positive.
    """

    cuts: str | Path | Sequence[str | Path]
    """Files, or folders with a `cuts.jsonl.gz`."""
    share: float
    """Its part of the micro-batches, relative to the sum over all streams."""
    is_labelled: bool
    """Whether it has targets; what has none is cropped, and its labels are -100."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share < float("inf"):
            raise ValueError(f"`share` must be positive, but is {self.share:g}.")


class MixedPlan:
    """The endless sequence of batches of several streams, each of which runs through epochs of its own.

    After n batches, a stream with the share s has had n * s of them, less than one more or less. An epoch
    ends with that of the first stream.

    Args:
        plans: The sequence of each stream.
        shares: Of each stream, positive; relative to their sum.
    """

    def __init__(self, plans: Sequence[BatchPlan], shares: Sequence[float]) -> None:
        self.plans = tuple(plans)
        """The sequence of each stream."""
        self._shares = [share / sum(shares) for share in shares]
        self.num_utterances = sum(plan.num_utterances for plan in plans)
        """Utterances of an epoch of each stream."""
        self.duration = sum(plan.duration for plan in plans)
        """Seconds of audio of an epoch of each stream."""
        self.sizes = tuple(plan.sizes[0] for plan in plans)
        """Utterances of each stream that are not left out."""
        parts = ([plan.fingerprint for plan in plans], self._shares)
        self.fingerprint = zlib.crc32(repr(parts).encode())
        """A number that changes with the data and with every setting that changes the batches."""
        self._open: dict[int, tuple[Position, Iterator[DrawnBatch]]] = {}

    def share(
        self, position: Position, rank: int, world_size: int
    ) -> Iterator[tuple[Position, DrawnBatch | None]]:
        """Draw what one process gets of the rest of an epoch of the first stream.

        Args:
            position: Where to begin.
            rank: Number of the process, from 0.
            world_size: How many processes there are.

        Yields:
            The position behind each batch, and the batch; at last the beginning of the next epoch, and None.
        """
        others = position.others or (Position(),) * (len(self.plans) - 1)
        places = [replace(position, others=()), *others]
        while True:
            stream = next_stream(self._shares, [place.index for place in places])
            place, drawn = self._next(stream, places[stream])
            if drawn is None:
                places[stream] = place.next_epoch()
                if stream == 0:
                    yield _together(places), None
                    return
                continue
            places[stream] = place
            position = _together(places)
            if (position.index - 1) % world_size == rank:
                yield position, replace(drawn, stream=stream)

    def _next(self, stream: int, place: Position) -> tuple[Position, DrawnBatch | None]:
        """The next batch of a stream and the place behind it, or the place itself at the end of an epoch."""
        # A stream is drawn on over the epochs of the first: to begin at a place, all before it is drawn.
        known, batches = self._open.pop(stream, (None, iter(())))
        if known != place:
            batches = self.plans[stream].epoch(place.epoch, start=place.batch)
        drawn = next(batches, None)
        if drawn is None:
            return place, None
        place = place.next_batch()
        self._open[stream] = (place, batches)
        return place, drawn


def _together(places: Sequence[Position]) -> Position:
    return replace(places[0], others=tuple(places[1:]))


def next_stream(shares: Sequence[float], counts: Sequence[int]) -> int:
    """Which stream the next batch comes from, so that all keep to their shares as closely as possible.

    Args:
        shares: Of each stream, positive, with a sum of 1.
        counts: Batches that each stream has had.

    Returns:
        The number of the stream. Followed from the beginning, a stream never has one batch more or less than
        its share of them.

    Source:
        Tijdeman 1980, The chairman assignment problem.
    """
    if len(shares) == 1:
        return 0
    slack = 1 / (2 * len(shares) - 2)
    number = sum(counts) + 1
    due = [share * number - count for share, count in zip(shares, counts, strict=True)]
    # Of those that are owed something, the one that would be owed too much first.
    urgency = [
        (1 - slack - owed) / share if owed >= slack - 1e-9 else float("inf")
        for owed, share in zip(due, shares, strict=True)
    ]
    return urgency.index(min(urgency))


class MixedBatches(Dataset[dict[str, Any]]):
    """Reads the batches of several streams, each in its own way.

    Args:
        readers: What reads each stream.
    """

    def __init__(self, readers: Sequence[CutBatches]) -> None:
        self._readers = tuple(readers)

    def __getitem__(self, drawn: DrawnBatch) -> dict[str, Any]:
        """Read a batch.

        Args:
            drawn: The utterances.

        Returns:
            What `CutBatches` gives.
        """
        return self._readers[drawn.stream][drawn]


def make_mixed_loader(
    streams: Sequence[Stream],
    *,
    vocabulary: Vocabulary | None = None,
    label2id: Mapping[str, int] | None = None,
    allow_unlabelled: bool = False,
    batch_seconds: Seconds = 40.0,
    batch_utterances: int | None = None,
    min_seconds: Seconds = 0.0,
    max_seconds: Seconds | None = None,
    num_buckets: int | None = None,
    augmentation: Augmentation | None = None,
    language_exponent: float | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    do_normalize: bool = True,
    kernels: Sequence[int] = CONV_KERNEL,
    strides: Sequence[int] = CONV_STRIDE,
) -> BatchLoader:
    """Make one sequence of training batches of several streams. A batch comes from one of them.

    Settings are those of `make_loader` and hold for every stream. Streams without labels are cropped, and
    their labels are -100 where there is a `vocabulary` or there are classes, so that every process sees the
    same kinds of tensors.

    Args:
        streams: At least one; an epoch ends with that of the first.
        vocabulary: Symbols of a CTC head; None with `label2id` None gives batches without targets.
        label2id: Classes of a classifier.
        allow_unlabelled: Whether utterances without a target are read in labelled streams, with -100 for
            labels.
        batch_seconds: Limit of the padded audio of a batch: utterances times the longest of them.
        batch_utterances: Limit of the number of utterances in a batch; None sets none.
        min_seconds: Shorter utterances are left out.
        max_seconds: Longer utterances are left out, or cropped; None means `batch_seconds`.
        num_buckets: Groups of like length in each stream; None chooses by the amount of data.
        augmentation: How the recordings are changed; None leaves them as they are.
        language_exponent: In [0, 1]: how far each language keeps its share of a stream, from 0 (all the same)
            to 1 (its own); None takes every utterance once.
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
        ManifestError: If a labelled cut has no target that can be learnt, or a stream has no utterance.
        ValueError: If `streams` is empty, or a setting lies out of its range.
    """
    if not streams:
        raise ValueError("`streams` must hold at least one stream, but is empty.")
    check = TargetCheck(vocabulary)
    plans, readers = [], []
    for number, stream in enumerate(streams):
        reader = CutBatches(
            vocabulary=vocabulary,
            label2id=label2id,
            allow_unlabelled=allow_unlabelled,
            has_targets=stream.is_labelled,
            augmentation=augmentation,
            do_normalize=do_normalize,
            kernels=kernels,
            strides=strides,
        )
        files = CutFiles(stream.cuts)
        plan = BatchPlan(
            files,
            batch_seconds=batch_seconds,
            batch_utterances=batch_utterances,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            num_buckets=num_buckets,
            crop=not stream.is_labelled,
            seed=seed + number * _SEED_STEP,
            augmentation=augmentation,
            language_exponent=language_exponent,
            check=check.of(reader, files),
        )
        plans.append(plan)
        readers.append(reader)
    check.finish()
    for plan in plans:
        log_left_out(plan)
    mixed = MixedPlan(plans, [stream.share for stream in streams])
    return BatchLoader(
        mixed, MixedBatches(readers), rank=rank, world_size=world_size, num_workers=num_workers
    )
