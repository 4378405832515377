"""Where to look for an alignment: bands around stretches that network and transcript have in common.

Shapes in this file: T frames, L tokens, U distinct tokens, A anchors.
"""

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from unispeech.decoding.alignment_trellis import Band, Graph, Integers, whole

MAX_EXACT_CELLS = 10_000_000
"""Frames times tokens up to which everything is searched: a fifth of a second, 4 MB."""

MAX_CELLS = 1_000_000_000
"""Columns over all frames beyond which a wider band is not tried: 375 MB."""

MARGINS = (64, 256, 1024)
"""Tokens that a band is wider than its anchors on either side: 5, 20 and 80 s of speech."""

RUN_LENGTH = 5
"""Tokens in a row that make an anchor, if they stand so once in the transcript and once in what was heard."""

MAX_BETWEEN = 1024
"""Tokens between two anchors; where they are more, a straight line gives further ones."""


def anchored_bands(graph: Graph) -> Iterator[tuple[Band, int]]:
    """Propose bands, each one wider than the one before.

    Args:
        graph: What to align.

    Yields:
        A band, and how many columns the best path must keep from its edges to be believed.
    """
    num_frames, num_tokens = len(graph.gaps), len(graph.columns)
    if num_frames * (num_tokens + 1) > MAX_EXACT_CELLS:
        frames, columns = _thicken(*find_anchors(graph), num_frames, num_tokens)
        for margin in MARGINS:
            band = _band_around(frames, columns, margin, num_frames, num_tokens)
            if band.num_cells <= MAX_CELLS:
                yield band, margin // 2
        if num_frames * (num_tokens + 1) > MAX_CELLS:
            return
    yield whole(num_frames, num_tokens), 0


def find_anchors(graph: Graph) -> tuple[Integers, Integers]:
    """Find where the network surely is in the transcript.

    Runs of tokens that occur once in the transcript and once in the greedy transcription are paired; of the
    pairs the longest sequence that ascends in both is kept, so that a chance match cannot lead far astray.

    Args:
        graph: What to align.

    Returns:
        (A,) frames and (A,) columns, both strictly ascending; A may be 0.

    Source:
        The order of unique matches is that of patience diff (Bram Cohen) and of MUMmer (Delcher et al. 1999).
    """
    heard, frames = _hear(graph)
    said_runs, said_places = _unique_runs(graph.columns, graph.emissions.shape[1])
    heard_runs, heard_places = _unique_runs(heard, graph.emissions.shape[1])
    _, in_said, in_heard = np.intersect1d(said_runs, heard_runs, assume_unique=True, return_indices=True)
    columns, places = said_places[in_said], heard_places[in_heard]
    order = np.argsort(places)
    kept = order[longest_ascent(columns[order])]
    return frames[places[kept]], columns[kept]


def longest_ascent(values: Integers) -> Integers:
    """Find the longest strictly ascending subsequence.

    Args:
        values: (A,) numbers.

    Returns:
        Its indices in ascending order.
    """
    tails: list[int] = []
    ends: list[int] = []  # the index at which the best sequence of each length ends
    previous = np.full(len(values), -1)
    for index, value in enumerate(values.tolist()):
        length = bisect_left(tails, value)
        previous[index] = ends[length - 1] if length else -1
        tails[length : length + 1] = [value]
        ends[length : length + 1] = [index]
    chain = [ends[-1]] if ends else []
    while chain and previous[chain[-1]] >= 0:
        chain.append(int(previous[chain[-1]]))
    return np.array(chain[::-1], np.int64)


def _hear(graph: Graph) -> tuple[Integers, Integers]:
    """The tokens of the best path without a transcript, and the first frame of each."""
    # Where gaps are the likeliest nothing is heard; a wildcard's column never wins against what it copies.
    best = np.where(graph.gaps > graph.emissions.max(axis=1), -1, graph.emissions.argmax(axis=1))
    starts = np.flatnonzero((np.diff(best, prepend=-1) != 0) & (best >= 0))
    return best[starts], starts


def _unique_runs(tokens: Integers, num_distinct: int) -> tuple[Integers, Integers]:
    """The runs of `RUN_LENGTH` tokens that occur once, as keys, and where they begin."""
    if len(tokens) < RUN_LENGTH:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows = np.lib.stride_tricks.sliding_window_view(tokens, RUN_LENGTH)
    keys = rows @ (np.int64(num_distinct) ** np.arange(RUN_LENGTH))
    unique, places, counts = np.unique(keys, return_index=True, return_counts=True)
    return unique[counts == 1], places[counts == 1]


def _thicken(
    frames: Integers, columns: Integers, num_frames: int, num_tokens: int
) -> tuple[Integers, Integers]:
    """Put anchors at both ends, and on a straight line where the next one is far."""
    frames = np.concatenate([[0], frames, [num_frames]])
    columns = np.concatenate([[0], columns, [num_tokens]])
    parts = -(-np.diff(columns) // MAX_BETWEEN)
    places = np.concatenate(
        [left + np.arange(max(count, 1)) / max(count, 1) for left, count in enumerate(parts)]
        + [[len(columns) - 1]]
    )
    index = np.arange(len(columns))
    return (
        np.interp(places, index, frames).astype(np.int64),
        np.interp(places, index, columns).astype(np.int64),
    )


def _band_around(frames: Integers, columns: Integers, margin: int, num_frames: int, num_tokens: int) -> Band:
    """From a margin below the last anchor to a margin above the next one."""
    last = np.searchsorted(frames, np.arange(num_frames), side="right") - 1
    behind = np.minimum(last + 1, len(columns) - 1)
    return Band(
        low=np.maximum(columns[last] - margin, 0),
        high=np.minimum(columns[behind] + margin, num_tokens) + 1,
    )
