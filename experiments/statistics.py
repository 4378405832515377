"""Errors of utterances -> phone error rates over seeds, relative reductions, and their intervals.

An interval is a percentile bootstrap over the test utterances, the same draws for all systems of a target,
so that systems are compared on the same utterances. Seeds are not drawn: one to three are too few to draw
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A system on a target."""

    target: str
    """Name of the target."""
    errors: dict[int, list[int]]
    """Seed -> errors of each test utterance, (U,)."""
    lengths: list[int]
    """Phones of each test utterance, (U,)."""

    def only(self, seeds: Sequence[int]) -> "Scored":
        """The same with some of the seeds.

        Args:
            seeds: Which.
        """
        return Scored(
            target=self.target, errors={seed: self.errors[seed] for seed in seeds}, lengths=self.lengths
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    """The figure."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


def per(scored: Sequence[Scored]) -> Estimate:
    """Phone error rate, averaged over seeds, then over targets.

    Args:
        scored: One system on at least one target, with at least one seed each.

    Returns:
        The rate.
    """
    return _estimate(_mean(scored))


def reduction(system: Sequence[Scored], reference: Sequence[Scored]) -> Estimate:
    """By which share a system lowers the average phone error rate of another.

    Args:
        system: The system on some targets.
        reference: The other on the same targets, in the same order and with the same seeds.

    Returns:
        0.1 for a tenth fewer errors; negative for more.
    """
    return _estimate(1 - _mean(system) / np.maximum(_mean(reference), 1e-12))


def _mean(scored: Sequence[Scored]) -> Floats:
    """(1 + D,) the average as measured, then that of each draw."""
    means: Floats = np.stack([_rates(one) for one in scored]).mean(axis=0)
    return means


def _rates(scored: Scored) -> Floats:
    lengths = np.array(scored.lengths, dtype=np.float64)
    rng = np.random.default_rng(crc32(scored.target.encode()))
    draws = rng.multinomial(len(lengths), np.full(len(lengths), 1 / len(lengths)), NUM_DRAWS)
    weights = np.concatenate([np.ones((1, len(lengths))), draws])  # (1 + D, U)
    errors = np.array(list(scored.errors.values()), dtype=np.float64).mean(axis=0)
    rates: Floats = (weights @ errors) / np.maximum(weights @ lengths, 1.0)
    return rates


def _estimate(values: Floats) -> Estimate:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(value=float(values[0]), low=float(low), high=float(high))
