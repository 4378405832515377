"""What else may have been said: the symbols that compete with each one of a transcript.

Shapes in this file: T frames, N vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unispeech.decoding.greedy import TokenSpan


@dataclass(frozen=True)
class Alternative:
    """A symbol that may have been said in a span of frames."""

    token: int
    """Vocabulary id, never the blank."""
    prob: float
    """Its mean probability over the span, in [0, 1], as the span's own score."""


def alternatives(
    log_probs: np.ndarray, spans: Sequence[TokenSpan], blank: int, *, top: int = 5, min_prob: float = 0.01
) -> list[list[Alternative]]:
    """List what else may have been said in each span, by the probabilities of its frames.

    Args:
        log_probs: (T, N) log-probabilities.
        spans: Spans of a transcript.
        blank: Id of the blank.
        top: Symbols to list at most for each span.
        min_prob: What is less probable is left out, in (0, 1].

    Returns:
        For each span its symbols, the most probable first; the span's own is always among them.
    """
    found = []
    for span in spans:
        mean = np.exp(log_probs[span.start_frame : span.end_frame].astype(np.float64)).mean(axis=0)
        mean[blank] = 0.0
        best = [int(token) for token in np.argsort(-mean, kind="stable")[:top] if mean[token] >= min_prob]
        if span.token not in best:
            best = [*best[: top - 1], span.token]
        found.append([Alternative(token=token, prob=min(float(mean[token]), 1.0)) for token in best])
    return found
