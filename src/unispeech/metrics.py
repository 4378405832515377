"""The score: error rates with confidence intervals, confusions, accuracy.

PER, WER and CER are one function on different units: phones, `text.split()`, `list(text)`. All references are
weighed together (errors over reference units), never averaged utterance by utterance.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import kaldialign
import numpy as np
import numpy.typing as npt

NUM_DRAWS = 2000
"""Bootstrap draws: enough for the second digit of a 95 % interval."""

_GAP = "\0"
"""Stands opposite an insertion or a deletion in an alignment; no corpus holds it as a unit."""


@dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """An error rate over a set of utterances."""

    rate: float
    """Errors divided by reference units; can exceed 1. Where the references hold nothing: the insertions."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""
    substitutions: int
    """Reference units that were recognised as another."""
    insertions: int
    """Hypothesis units that stand for nothing."""
    deletions: int
    """Reference units that were left out."""
    num_reference: int
    """Units in the references."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """One kind of error and how often it happened."""

    reference: str | None
    """What was said, or None for an insertion."""
    hypothesis: str | None
    """What was recognised, or None for a deletion."""
    count: int
    """Number of times."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of right answers."""

    rate: float
    """Right answers divided by all, in [0, 1]."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    """Upper end of the confidence interval."""
    num_correct: int
    """Right answers."""
    num_total: int
    """All answers."""


def error_rate(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[str]],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> ErrorRate:
    """Substitutions, insertions and deletions per reference unit, by Levenshtein alignment.

    The interval is a percentile bootstrap over utterances: it says how much the rate would vary with other
    utterances of the same kind, not with other training runs. With one utterance it has no width.

    Args:
        references: What was said, the units of each utterance.
        hypotheses: What was recognised, in the same order.
        confidence: Share of the draws inside the interval, in (0, 1).
        seed: Of the draws; the same seed gives the same interval.

    Returns:
        The rate with its interval and its parts.

    Raises:
        ValueError: If there are no utterances, the numbers differ, or `confidence` is out of range.

    Source:
        Bisani and Ney 2004, Bootstrap estimates for confidence intervals in ASR performance evaluation.
    """
    _check_pairs(references, hypotheses, confidence)
    counts = [kaldialign.edit_distance(*pair) for pair in zip(references, hypotheses, strict=True)]
    substitutions, insertions, deletions = (
        sum(count[name] for count in counts) for name in ("sub", "ins", "del")
    )
    errors = np.array([count["total"] for count in counts], dtype=np.float64)
    lengths = np.array([len(reference) for reference in references], dtype=np.float64)
    low, high = np.quantile(_resampled_rates(errors, lengths, seed), _tails(confidence))
    return ErrorRate(
        rate=float(errors.sum() / max(lengths.sum(), 1)),
        low=float(low),
        high=float(high),
        substitutions=substitutions,
        insertions=insertions,
        deletions=deletions,
        num_reference=int(lengths.sum()),
    )


def confusions(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], *, top: int = 20
) -> list[Confusion]:
    """The most frequent errors, insertions and deletions among them.

    Args:
        references: What was said, the units of each utterance.
        hypotheses: What was recognised, in the same order.
        top: How many kinds of error to give at most.

    Returns:
        Errors, the most frequent first; equally frequent ones in alphabetical order.

    Raises:
        ValueError: If the numbers of references and hypotheses differ, or there are none.
    """
    _check_pairs(references, hypotheses)
    pairs = Counter(
        pair
        for reference, hypothesis in zip(references, hypotheses, strict=True)
        for pair in kaldialign.align(reference, hypothesis, _GAP)
        if pair[0] != pair[1]
    )
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [
        Confusion(
            reference=None if said == _GAP else said, hypothesis=None if heard == _GAP else heard, count=count
        )
        for (said, heard), count in ranked[:top]
    ]


def accuracy(references: Sequence[str], predictions: Sequence[str], *, confidence: float = 0.95) -> Accuracy:
    """The share of right labels, with Wilson's interval.

    A bootstrap would give an interval of no width where all answers are right; this one stays honest there.

    Args:
        references: The right label of each utterance.
        predictions: The predicted one, in the same order.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The share with its interval.

    Raises:
        ValueError: If there are no utterances, the numbers differ, or `confidence` is out of range.

    Source:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    _check_pairs(references, predictions, confidence)
    num_total = len(references)
    num_correct = sum(right == given for right, given in zip(references, predictions, strict=True))
    rate = num_correct / num_total
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z**2 / num_total
    centre = (rate + z**2 / (2 * num_total)) / shrink
    spread = z / shrink * (rate * (1 - rate) / num_total + z**2 / (4 * num_total**2)) ** 0.5
    return Accuracy(
        rate=rate,
        low=max(0.0, centre - spread),
        high=min(1.0, centre + spread),
        num_correct=num_correct,
        num_total=num_total,
    )


def _check_pairs(references: Sequence[object], hypotheses: Sequence[object], confidence: float = 0.5) -> None:
    """Refuse what cannot be scored."""
    if len(references) != len(hypotheses):
        raise ValueError(
            f"`hypotheses` must be as many as the references ({len(references)}), but are {len(hypotheses)}."
        )
    if not references:
        raise ValueError("`references` must hold at least one utterance, but are empty.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1), but is {confidence}.")


def _tails(confidence: float) -> tuple[float, float]:
    """The two quantiles between which the interval lies."""
    return (1 - confidence) / 2, (1 + confidence) / 2


def _resampled_rates(
    errors: npt.NDArray[np.float64], lengths: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.float64]:
    """(NUM_DRAWS,) error rates of as many utterances drawn with replacement."""
    generator = np.random.default_rng(seed)
    rates = np.empty(NUM_DRAWS)
    # In blocks, so that memory stays at a few MB for any number of utterances.
    block = max(1, 1_000_000 // len(errors))
    for start in range(0, NUM_DRAWS, block):
        size = min(block, NUM_DRAWS - start)
        drawn = generator.integers(len(errors), size=(size, len(errors)))
        rates[start : start + size] = errors[drawn].sum(axis=1) / np.maximum(lengths[drawn].sum(axis=1), 1)
    return rates
