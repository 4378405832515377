"""Scores of phones -> probabilities that they are right: a map of two numbers, kept beside the model.

A phone's score is the mean probability of its symbol over the frames in which the network names it. That is
not how often phones with such a score are right. Platt's map makes it so: logit(p) = slope * logit(score) +
bias. A slope alone is the inverse of a temperature; it leaves a score of 0.5 as it is, so that it cannot mend
a network that is right more often than it says on the whole, as those with peaky CTC outputs are.

A phone is right if the alignment of the recognised phones to the spoken ones with the fewest errors
(Levenshtein: substitutions, insertions and deletions count 1) pairs it with the same phone. A phone that is
paired with another one, or with none, is wrong. Phones that were left out have no score and do not count.

Shape in this file: P phones.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import kaldialign
import numpy as np
import numpy.typing as npt

from unispeech.errors import CheckpointError

CALIBRATION = "calibration.json"
"""File beside a model."""

VERSION = 1
"""Version of that file."""

NUM_DRAWS = 200
"""Draws that `chance_calibration_error` averages over."""

NUM_BINS = 15
"""Bins of equal width over [0, 1] in which the expected calibration error is measured."""

MARGIN = 1e-6
"""Scores are kept this far from 0 and 1, whose logits are infinite."""

MAX_STEPS = 100
"""Of Newton's method, which takes about ten."""

_GAP = "\0"
"""Stands opposite an insertion or a deletion in an alignment; no corpus holds it as a unit."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What makes of a score the probability that the phone is right."""

    slope: float = 1.0
    """Factor of the score's logit, positive: order stays, and so does what is recognised."""
    bias: float = 0.0
    """Added to it."""

    def apply(self, score: float) -> float:
        """Calibrate the score of a phone.

        Args:
            score: In [0, 1], as the network gives it.

        Returns:
            A probability; the same score where slope and bias change nothing.
        """
        if self == Calibration():
            return score
        inside = min(max(score, MARGIN), 1 - MARGIN)
        logit = self.slope * (math.log(inside) - math.log1p(-inside)) + self.bias
        # The logistic function, written so that nothing overflows.
        return 0.5 + 0.5 * math.tanh(logit / 2)


def is_right(reference: Sequence[str], recognised: Sequence[str]) -> list[bool]:
    """Tell of every phone that was recognised whether it was said.

    Args:
        reference: What was said.
        recognised: What was recognised.

    Returns:
        A value for each phone recognised, by the alignment with the fewest errors.
    """
    pairs = kaldialign.align(list(reference), list(recognised), _GAP)
    return [said == heard for said, heard in pairs if heard != _GAP]


def expected_calibration_error(scores: npt.ArrayLike, rights: npt.ArrayLike) -> float:
    """Measure how far scores are from being probabilities.

    Args:
        scores: (P,) in [0, 1].
        rights: (P,) whether each phone is right.

    Returns:
        The difference between the mean score and the share of right phones, over `NUM_BINS` bins of equal
        width, weighed by the phones in each; 0 where there are none.

    Source:
        Guo et al. 2017, On calibration of modern neural networks (arXiv:1706.04599), section 2.
    """
    values, is_hit = np.asarray(scores, np.float64), np.asarray(rights, np.float64)
    if not len(values):
        return 0.0
    places = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return float(np.abs(np.bincount(places, values - is_hit)).sum() / len(values))


def chance_calibration_error(scores: npt.ArrayLike) -> float:
    """Measure what the expected calibration error would be if every score were the probability.

    A bin with few phones is off by chance, and the error never counts that as 0: of some hundred phones it is
    5 to 10 % for perfect scores. An error near this one cannot be told from none.

    Args:
        scores: (P,) in [0, 1].

    Returns:
        The mean error of `NUM_DRAWS` draws, each phone right or wrong by its score and independent of the
        others; the same at every call.
    """
    values, rng = np.asarray(scores, np.float64), np.random.default_rng(0)
    draws = (rng.random(len(values)) < values for _ in range(NUM_DRAWS))
    return float(np.mean([expected_calibration_error(values, rights) for rights in draws]))


def fit_calibration(scores: npt.ArrayLike, rights: npt.ArrayLike) -> Calibration:
    """Find the slope and the bias with the highest likelihood.

    Args:
        scores: (P,) in [0, 1], as the network gives them.
        rights: (P,) whether each phone is right.

    Returns:
        The calibration.

    Raises:
        ValueError: If no phone is right or none is wrong, or scores are no higher where phones are right.

    Source:
        Platt 1999, Probabilistic outputs for support vector machines: logistic regression on targets that
        are a little less than 1 and more than 0, by Newton's method.
    """
    inside = np.clip(np.asarray(scores, np.float64), MARGIN, 1 - MARGIN)
    logits, is_hit = np.log(inside) - np.log1p(-inside), np.asarray(rights, np.bool_)
    num_right, num_wrong = int(is_hit.sum()), int((~is_hit).sum())
    if not num_right or not num_wrong:
        raise ValueError(
            f"`rights` must hold phones that are right and phones that are wrong, but hold {num_right} and "
            f"{num_wrong}; calibrate on more speech."
        )
    targets = np.where(is_hit, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))
    inputs = np.stack([logits, np.ones_like(logits)])  # (2, P)
    found = np.zeros(2)
    for _ in range(MAX_STEPS):
        probs = 0.5 + 0.5 * np.tanh(found @ inputs / 2)
        # The small number keeps the matrix regular where all scores are the same.
        curvature = (inputs * (probs * (1 - probs))) @ inputs.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, inputs @ (targets - probs))
        found += step
        if np.abs(step).max() < 1e-9:
            break
    if not found[0] > 0:
        raise ValueError(
            "`scores` must be higher where phones are right than where they are wrong, but are not; "
            "calibrate on other speech."
        )
    return Calibration(slope=float(found[0]), bias=float(found[1]))


def write_calibration(directory: str | Path, calibration: Calibration) -> None:
    """Write a calibration beside its model, in one step.

    Args:
        directory: The model's directory.
        calibration: What to write.

    Raises:
        OSError: If the file cannot be written, with its path; what stood there before stands.
    """
    path = Path(directory) / CALIBRATION
    beside = path.with_name(f".{CALIBRATION}.{os.getpid()}.part")
    try:
        beside.write_text(json.dumps({"version": VERSION, **asdict(calibration)}, indent=1) + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def read_calibration(directory: str | Path) -> Calibration:
    """Read the calibration beside a model.

    Args:
        directory: The model's directory.

    Returns:
        The calibration; one that changes nothing where there is none.

    Raises:
        CheckpointError: If the file is broken or of another version.
    """
    path = Path(directory) / CALIBRATION
    if not path.is_file():
        return Calibration()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        slope, bias = float(content["slope"]), float(content["bias"])
        is_sound = content["version"] == VERSION and 0 < slope < math.inf and math.isfinite(bias)
    except (ValueError, KeyError, TypeError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(
            f"{path}: must be an object with version {VERSION}, a positive slope and a bias, but is not; "
            "fit it again by unispeech evaluate --calibrate, or remove it."
        )
    return Calibration(slope=slope, bias=bias)
