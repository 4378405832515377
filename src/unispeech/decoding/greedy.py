"""Greedy CTC decoding: frame log-probabilities -> the best path, collapsed to spans of frames.

Shapes in this file: T frames, N vocabulary.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOG_PROB = 1e-3
"""Rounding that a log-probability may lie above 0 before it is taken for a logit."""


@dataclass(frozen=True)
class TokenSpan:
    """A run of frames in which the best path stays on one token."""

    token: int
    """Vocabulary id, never the blank."""
    start_frame: int
    """First frame of the run."""
    end_frame: int
    """First frame behind the run."""
    score: float
    """Mean probability of the token over the run, in [0, 1]."""


def greedy(log_probs: "np.ndarray | Tensor", blank: int) -> list[TokenSpan]:
    """Take the best token of every frame, join repeats, drop blanks.

    The result is the collapse of the single most probable path; the most probable transcript, summed over
    its paths, may be another one. A token that comes twice is two spans only where a blank or another
    token stands between. CTC puts a token where the evidence is strongest, often on one frame: a span is a
    place, not a duration.

    Args:
        log_probs: (T, N) log-probabilities of one utterance without padding; T may be 0.
        blank: Id of the CTC blank, in [0, N).

    Returns:
        Spans in the order of time; they do not overlap and lie within [0, T).

    Raises:
        ValueError: If `log_probs` does not have two axes, holds NaN or values above 0, or `blank` is not in
            [0, N).

    Source:
        Graves et al. 2006, Connectionist Temporal Classification, section 3.2, best path decoding.
    """
    rows = log_probs if isinstance(log_probs, np.ndarray) else log_probs.detach().float().cpu().numpy()
    if rows.ndim != 2:
        raise ValueError(f"`log_probs` must have shape (T, N), but has {tuple(rows.shape)}.")
    if not 0 <= blank < rows.shape[1]:
        raise ValueError(f"`blank` must lie in [0, {rows.shape[1]}), but is {blank}.")
    if len(rows) == 0:
        return []
    best = rows.argmax(axis=1)
    best_log_probs = np.take_along_axis(rows, best[:, None], axis=1)[:, 0].astype(np.float64)
    if not (best_log_probs <= MAX_LOG_PROB).all():  # written so that NaN fails too
        raise ValueError(
            f"`log_probs` must be at most 0 and not NaN, but has {best_log_probs.max():.4g};"
            " apply log_softmax to logits."
        )
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(starts[1:], len(best))
    scores = np.add.reduceat(np.exp(np.minimum(best_log_probs, 0.0)), starts) / (ends - starts)
    return [
        TokenSpan(int(best[start]), int(start), int(end), float(score))
        for start, end, score in zip(starts, ends, scores, strict=True)
        if best[start] != blank
    ]
