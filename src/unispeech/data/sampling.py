"""Cuts -> batches of cuts: which utterances go together and in which order.

lhotse's bucketing sampler draws the batches of an epoch from a seed and the number of the epoch. Every
process draws the same sequence and takes every W-th batch of it, across the ends of epochs, so that W
processes see in one step what one process sees in W.
"""

import bisect
import heapq
import itertools
import math
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lhotse import MonoCut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.base import SamplingConstraint

from unispeech.data.augmentation import Augmentation
from unispeech.data.cuts import CutFiles
from unispeech.data.languages import Counts, LanguageResampling
from unispeech.errors import ManifestError
from unispeech.frames import SAMPLE_RATE, Seconds

_BUFFER_SIZE = 20_000
"""Utterances among which those of a batch are chosen."""


@dataclass(kw_only=True)
class PaddedConstraint(SamplingConstraint):
    """Closes a batch before its number of utterances times the upper end of its bucket passes the limit.

    lhotse's own constraint looks at the longest utterance so far, and a longer one that comes last carries a
    batch over the limit. The end of the bucket holds for all that may come.
    """

    bounds: list[Seconds]
    """Upper ends of the buckets, ascending; the last one is the longest utterance."""
    batch_seconds: Seconds
    """Limit of the padded audio of a batch."""
    batch_utterances: int | None = None
    """Limit of the number of utterances; None sets none."""
    num_cuts: int = 0
    """Utterances in the batch so far."""
    bound: Seconds = 0.0
    """Upper end of the bucket of the batch."""

    def add(self, example: MonoCut) -> None:
        """Count one more utterance."""
        self.num_cuts += 1
        self.bound = self.bounds[bisect.bisect_left(self.bounds, self.measure_length(example))]

    def exceeded(self) -> bool:
        """Whether the batch is over the limit."""
        return self.num_cuts * self.bound > self.batch_seconds

    def close_to_exceeding(self) -> bool:
        """Whether one more utterance of the bucket would not fit."""
        is_full = self.batch_utterances is not None and self.num_cuts >= self.batch_utterances
        return is_full or (self.num_cuts + 1) * self.bound > self.batch_seconds

    def reset(self) -> None:
        """Begin the next batch."""
        self.num_cuts, self.bound = 0, 0.0

    def measure_length(self, example: MonoCut) -> float:
        """The length by which utterances are sorted into buckets; what will be cropped goes into the last."""
        return float(min(example.duration, self.bounds[-1]))


@dataclass(frozen=True, kw_only=True)
class DrawnBatch:
    """The utterances of a batch, and where everything about it that is random comes from."""

    cuts: list[MonoCut]
    """The utterances, or the parts of them that are to be read."""
    key: tuple[int, int, int]
    """Seed, epoch and number of the batch in it, each in [0, 2 ** 32): no process or worker changes them."""
    speed: float = 1.0
    """Factor by which the utterances are to go faster."""
    is_cropped: bool = False
    """Whether all are equally long, and parts of utterances, of which targets say nothing."""
    stream: int = 0
    """Which of several mixed streams it comes from."""

    def generator(self, index: int) -> np.random.Generator:
        """What an utterance draws from, the same one whenever the batch is read.

        Args:
            index: Its place in the batch, from 0.

        Returns:
            A generator of its own.
        """
        return _generator(self.key, index + 1)


def _generator(key: tuple[int, int, int], number: int) -> np.random.Generator:
    # Always four words: numpy takes a shorter seed for one that ends in zeros.
    return np.random.default_rng((*key, number))


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in the endless sequence of batches that all processes share."""

    epoch: int = 0
    """Pass over the data, from 0."""
    batch: int = 0
    """Batches of the epoch that lie behind it."""
    offset: int = 0
    """Batches of all epochs before this one."""
    others: "tuple[Position, ...]" = ()
    """The places in the other streams, where several are mixed; then this is the place in the first."""

    @property
    def index(self) -> int:
        """Batches of all epochs and streams that lie behind it."""
        return self.offset + self.batch + sum(other.index for other in self.others)

    def next_batch(self) -> "Position":
        """The place one batch further."""
        return replace(self, batch=self.batch + 1)

    def next_epoch(self) -> "Position":
        """The beginning of the next epoch, for a place behind the last batch of one."""
        return replace(self, epoch=self.epoch + 1, batch=0, offset=self.offset + self.batch)

    def state(self) -> dict[str, Any]:
        """The place in plain values."""
        others = {"others": [other.state() for other in self.others]} if self.others else {}
        return {"epoch": self.epoch, "batch": self.batch, "offset": self.offset, **others}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Position":
        """Read what `state` gave.

        Args:
            state: Plain values; those that belong to no place are passed over.

        Returns:
            The place.
        """
        others = tuple(cls.from_state(other) for other in state.get("others", ()))
        return cls(epoch=state["epoch"], batch=state["batch"], offset=state["offset"], others=others)


class BatchPlan:
    """The endless sequence of batches of cuts.

    All cuts are looked at once here; the draws read them again from disk, so memory holds a buffer only. What
    does not fit into the buffer is read from all files in turn, so that languages and corpora are mixed.

    Args:
        cuts: Can be iterated over again and again, in the same order.
        batch_seconds: Limit of the padded audio of a batch: utterances times the longest of them.
        batch_utterances: Limit of the number of utterances in a batch; None sets none.
        min_seconds: Shorter utterances are left out.
        max_seconds: Longer utterances are left out; None leaves out what is longer than `batch_seconds`.
        num_buckets: Groups of like length from which batches are drawn; None chooses by the amount of data.
        crop: Whether utterances that are too long are cropped instead of left out, and all of a batch, each
            at a random place, to the shortest of them.
        shuffle: Whether each epoch has an order of its own; else all epochs are the same.
        seed: Where every draw comes from.
        augmentation: Its range of speeds; utterances and batches are kept so short that none passes its limit
            when it is slowed down. None changes no speed.
        language_exponent: In [0, 1]: how far each language keeps its share of the speech in an epoch, from 0
            (all the same) to 1 (its own); each epoch draws anew which utterances come how often. None takes
            every utterance once.
        check: Called with every cut that is not left out; raises a ValueError on one that cannot be used.

    Raises:
        ValueError: If `batch_seconds` or `num_buckets` is not positive, `language_exponent` lies out of its
            range, or it or an `augmentation` is given without `shuffle`.
        ManifestError: If a cut cannot be used, or none is left.
    """

    def __init__(
        self,
        cuts: Iterable[MonoCut],
        *,
        batch_seconds: Seconds,
        batch_utterances: int | None = None,
        min_seconds: Seconds = 0.0,
        max_seconds: Seconds | None = None,
        num_buckets: int | None = None,
        crop: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        language_exponent: float | None = None,
        check: Callable[[MonoCut], None] | None = None,
    ) -> None:
        _check_positive(
            batch_seconds=batch_seconds, batch_utterances=batch_utterances, num_buckets=num_buckets
        )
        for name, given in {"augmentation": augmentation, "language_exponent": language_exponent}.items():
            if given is not None and not shuffle:
                raise ValueError(f"`{name}` must be None without `shuffle`: validation takes all as it is.")
        speed = None if augmentation is None else augmentation.speed
        batch_seconds *= 1.0 if speed is None else min(speed[0], 1.0)
        self._places = ", ".join(map(str, cuts.paths)) + ": " if isinstance(cuts, CutFiles) else ""
        self._parts: list[Iterable[MonoCut]] = (
            [CutFiles(path) for path in cuts.paths] if isinstance(cuts, CutFiles) else [cuts]
        )
        self._shuffle = shuffle
        self._seed = seed
        self._crop = crop
        self._augmentation = augmentation
        self._min_seconds = min_seconds
        self._max_seconds = batch_seconds if max_seconds is None else min(max_seconds, batch_seconds)
        self.too_short: list[str] = []
        """Ids of the utterances that are left out because they are shorter than `min_seconds`."""
        self.too_long: list[str] = []
        """Ids of the utterances that are left out because they are longer than `max_seconds` or a batch."""
        durations, languages = self._scan(check)
        self.sizes = (durations.size,)
        """Utterances that are not left out, of one stream."""
        self._resampling = (
            None if language_exponent is None else LanguageResampling(languages, durations, language_exponent)
        )
        self.num_utterances = durations.size if self._resampling is None else self._resampling.num_utterances
        """Utterances of an epoch."""
        self.duration = float(durations.sum())
        """Seconds of audio of an epoch; about, where languages are drawn."""
        durations.sort()
        if num_buckets is None:
            # Every bucket costs half a batch at the end of an epoch, and saves padding in all others.
            num_buckets = min(1 + int(2 * math.sqrt(self.duration / batch_seconds)), 30)
        self._constraint = PaddedConstraint(
            bounds=bucket_bounds(durations, num_buckets),
            batch_seconds=batch_seconds,
            batch_utterances=batch_utterances,
        )
        self.fingerprint = self._fingerprint(language_exponent)
        """A number that changes with the data and with every setting that changes the batches."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[DrawnBatch]:
        """Draw the batches of an epoch.

        Args:
            epoch: Which one, from 0.
            start: Batches to pass over.

        Yields:
            Batches in order.
        """
        sampler = DynamicBucketingSampler(
            _Chosen(self._chosen_parts(epoch), is_interleaved=self._is_interleaved()),
            buffer_size=_BUFFER_SIZE,
            constraint=self._constraint.copy(),
            duration_bins=self._constraint.bounds[:-1],
            shuffle=self._shuffle,
            # Its other way of choosing buckets (lhotse 1.33) ends an epoch at the first empty bucket, with
            # utterances left in the others.
            sync_buckets=True,
            world_size=1,
            rank=0,
            seed=self._seed,
        )
        sampler.set_epoch(epoch if self._shuffle else 0)
        for number, cuts in enumerate(itertools.islice(sampler, start, None), start):
            yield self._draw(list(cuts), (self._seed % 2**32, epoch, number))

    def _draw(self, cuts: list[MonoCut], key: tuple[int, int, int]) -> DrawnBatch:
        """Decide what is random about a batch."""
        rng = _generator(key, 0)
        speed = 1.0 if self._augmentation is None else self._augmentation.draw_speed(rng)
        if not self._crop:
            return DrawnBatch(cuts=cuts, key=key, speed=speed)
        # Whole samples, so that equally long parts have equally many.
        lengths = [int(cut.duration * SAMPLE_RATE) for cut in cuts]
        length = min(*lengths, int(self._max_seconds * SAMPLE_RATE))
        starts = [int(rng.integers(own - length, endpoint=True)) for own in lengths]
        parts = [
            replace(cut, start=cut.start + start / SAMPLE_RATE, duration=length / SAMPLE_RATE)
            for cut, start in zip(cuts, starts, strict=True)
        ]
        return DrawnBatch(cuts=parts, key=key, speed=speed, is_cropped=True)

    def share(
        self, position: Position, rank: int, world_size: int
    ) -> Iterator[tuple[Position, DrawnBatch | None]]:
        """Draw what one process gets of the rest of an epoch.

        Args:
            position: Where to begin.
            rank: Number of the process, from 0.
            world_size: How many processes there are.

        Yields:
            The position behind each batch, and the batch; at last the beginning of the next epoch, and None.
        """
        for drawn in self.epoch(position.epoch, start=position.batch):
            position = position.next_batch()
            if (position.index - 1) % world_size == rank:
                yield position, drawn
        yield position.next_epoch(), None

    def _fits(self, cut: MonoCut) -> bool:
        return bool(self._min_seconds <= cut.duration and (self._crop or cut.duration <= self._max_seconds))

    def _fingerprint(self, language_exponent: float | None) -> int:
        """A checksum of what was scanned and of the settings."""
        limits, speed = self._constraint, None if self._augmentation is None else self._augmentation.speed
        settings: tuple[object, ...] = (
            *(limits.batch_seconds, limits.batch_utterances, limits.bounds, self._shuffle, self._seed),
            # What is not set changes no number: runs of older versions go on.
            *(["parts", self._sizes] if self._is_interleaved() else []),
            *(["crop", self._max_seconds] if self._crop else []),
            *([] if speed is None else ["speed", speed]),
            *([] if self._resampling is None else ["language", language_exponent, self._resampling.ratios]),
        )
        return zlib.crc32(repr(settings).encode(), self._checksum)

    def _is_interleaved(self) -> bool:
        return self._shuffle and len(self._parts) > 1 and sum(self._sizes) > _BUFFER_SIZE

    def _chosen_parts(self, epoch: int) -> "list[_Part]":
        """The utterances of each file that fit, each as often as it comes in an epoch."""
        sizes = self._sizes
        if self._resampling is None:
            counts: list[Counts] | list[None] = [None] * len(sizes)
        else:
            # No batch has this number.
            drawn = self._resampling.draw(_generator((self._seed % 2**32, epoch, 2**32 - 1), 0))
            counts = np.split(drawn, np.cumsum(sizes)[:-1])
            sizes = [int(own.sum()) for own in counts]
        return [
            _Part(part, self._fits, own, size)
            for part, own, size in zip(self._parts, counts, sizes, strict=True)
        ]

    def _scan(self, check: Callable[[MonoCut], None] | None) -> tuple[np.ndarray, list[str]]:
        """Durations and languages of the utterances that fit; the others are listed."""
        durations, languages = array("d"), []
        self._checksum = 0
        self._sizes: list[int] = []
        for part in self._parts:
            before = len(durations)
            for cut in part:
                if not self._fits(cut):
                    listed = self.too_short if cut.duration < self._min_seconds else self.too_long
                    listed.append(cut.id)
                    continue
                durations.append(min(cut.duration, self._max_seconds))
                languages.append(sys.intern(cut.supervisions[0].language or "") if cut.supervisions else "")
                self._checksum = zlib.crc32(f"{cut.id} {cut.duration}".encode(), self._checksum)
                try:
                    if check is not None:
                        check(cut)
                except ValueError as error:
                    raise ManifestError(f"{self._places}{cut.id}: {error}") from None
            self._sizes.append(len(durations) - before)
        if not durations:
            raise ManifestError(
                f"{self._places or '`cuts` '}must hold an utterance of {self._min_seconds:g} to "
                f"{self._max_seconds:g} s, but hold none; {len(self.too_short)} are shorter and "
                f"{len(self.too_long)} longer; see `min_seconds`, `max_seconds` and `batch_seconds`."
            )
        return np.array(durations), languages


class _Part:
    """The cuts of a file that fit, each as often as it is drawn."""

    def __init__(
        self,
        cuts: Iterable[MonoCut],
        fits: Callable[[MonoCut], bool],
        counts: Counts | None,
        size: int,
    ) -> None:
        self._cuts, self._fits, self._counts, self.size = cuts, fits, counts, size

    def __iter__(self) -> Iterator[MonoCut]:
        fitting = filter(self._fits, self._cuts)
        if self._counts is None:
            return fitting
        return itertools.chain.from_iterable(map(itertools.repeat, fitting, self._counts.tolist()))

    def ranked(self, number: int) -> Iterator[tuple[float, int, MonoCut]]:
        """Each cut behind the share of the part at which it comes, and the number of the part."""
        return (((index + 0.5) / self.size, number, cut) for index, cut in enumerate(self))


class _Chosen:
    """All cuts of an epoch, as often as they are iterated over.

    Args:
        parts: Where they are.
        is_interleaved: Whether all parts begin at once and end at once, instead of one after the other.
    """

    def __init__(self, parts: Sequence[_Part], *, is_interleaved: bool) -> None:
        self._parts, self._is_interleaved = parts, is_interleaved

    def __iter__(self) -> Iterator[MonoCut]:
        if not self._is_interleaved:
            return itertools.chain.from_iterable(self._parts)
        ranked = [part.ranked(number) for number, part in enumerate(self._parts)]
        return (cut for _, _, cut in heapq.merge(*ranked, key=lambda entry: entry[:2]))


def _check_positive(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and value <= 0:
            raise ValueError(f"`{name}` must be positive, but is {value}.")


def bucket_bounds(durations: np.ndarray, num_buckets: int) -> list[Seconds]:
    """Part utterances into buckets of like length and equal total length.

    Args:
        durations: (N,) seconds, ascending, at least one.
        num_buckets: How many buckets; fewer where too many utterances are equally long.

    Returns:
        Upper ends of the buckets, ascending; the last is the longest utterance.
    """
    total = np.cumsum(durations)
    targets = total[-1] * np.arange(1, num_buckets) / num_buckets
    return [float(bound) for bound in np.unique([*durations[np.searchsorted(total, targets)], durations[-1]])]
