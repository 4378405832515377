"""Seconds and memory of forced alignment after the network: Viterbi in a band, and extents.

    python benchmarks/alignment.py [--phones 3000] [--symbols 50] [--noise 0.2]

Log-probabilities are made up: a phone every five frames, of which a share `noise` is heard as another one.
Prints processor seconds of `align`, its peak of memory, and how many phones lie in their true frame.
"""

import argparse
import time
import tracemalloc

import numpy as np

from unispeech.decoding.alignment import align
from unispeech.decoding.extents import extents


def spoken(num_phones: int, num_symbols: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(L,) tokens, (L,) their true frames, (T, N) log-probabilities."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, num_symbols, size=num_phones)
    frames = np.cumsum(rng.integers(2, 9, size=num_phones))
    heard = np.where(rng.random(num_phones) < noise, rng.integers(1, num_symbols, num_phones), tokens)
    logits = rng.normal(size=(frames[-1] + 5, num_symbols)).astype(np.float32)
    logits[:, 0] += 6.0
    logits[frames, 0] -= 6.0
    logits[frames, heard] += 6.0
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return tokens, frames, logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--phones", type=int, default=3000)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--noise", type=float, default=0.2)
    arguments = parser.parse_args()
    tokens, frames, log_probs = spoken(arguments.phones, arguments.symbols, arguments.noise)
    marks = [time.process_time()]
    spans = align(log_probs, tokens.tolist(), 0)
    marks.append(time.process_time())
    extents(spans, log_probs, 0)
    marks.append(time.process_time())
    tracemalloc.start()
    align(log_probs, tokens.tolist(), 0)
    peak = tracemalloc.get_traced_memory()[1]
    right = np.mean(np.array([span.start_frame for span in spans]) == frames)
    print(
        f"| {arguments.phones} | {len(log_probs)} | {arguments.symbols} | {arguments.noise:.0%} "
        f"| {marks[1] - marks[0]:.2f} | {marks[2] - marks[1]:.2f} | {peak / 1e6:.0f} | {right:.1%} |"
    )


if __name__ == "__main__":
    main()
