"""Small CTC cases: made-up log-probabilities and the answers of going through all paths."""

from collections import defaultdict
from itertools import groupby, product

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def small_cases(max_frames: int = 5, max_symbols: int = 4):
    shapes = st.tuples(st.integers(1, max_frames), st.integers(2, max_symbols))
    return hnp.arrays(np.float64, shapes, elements=st.floats(-6, 6, allow_nan=False)).map(log_softmax)


def collapse(path, blank: int) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(path) if token != blank)


def all_paths(log_probs: np.ndarray, blank: int):
    """Transcript -> its paths with their log-probabilities."""
    paths = defaultdict(list)
    for path in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        log_prob = sum(log_probs[t, token] for t, token in enumerate(path))
        paths[collapse(path, blank)].append((log_prob, path))
    return paths


def transcript_log_probs(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """Transcript -> log of the probability of all its paths."""
    return {
        tokens: float(np.logaddexp.reduce([log_prob for log_prob, _ in paths]))
        for tokens, paths in all_paths(log_probs, blank).items()
    }


def spoken_like(num_frames: int, num_symbols: int, *, seed: int = 0, every: int = 5, sharpness: float = 9.0):
    """Log-probabilities as of a trained network: mostly blank, a symbol in every few frames; blank is 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_frames, num_symbols)) * 1.5
    logits[:, 0] += sharpness
    places = np.arange(every // 2, num_frames, every)
    logits[places, rng.integers(1, num_symbols, len(places))] += sharpness + rng.normal(size=len(places)) * 2
    return log_softmax(logits).astype(np.float32)
