"""Viterbi over the CTC graph of a known transcript, within a band, with a bit and a half per state and frame.

Column j of the trellis is the gap before token j and the token j itself; column L is the gap behind the last
token. A gap may stay empty, except between two equal tokens. Within a column and frame three bits say where
the best path came from, so that a band of 1,000 columns over an hour takes 70 MB.

Shapes in this file: T frames, L tokens, U distinct tokens, W columns of a band.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

CHUNK = 256
"""Frames whose bits are packed at once."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What is said, and how likely every part of it is in every frame."""

    emissions: Floats
    """(T, U) log-probability of each distinct token."""
    gaps: Floats
    """(T,) log-probability of a frame between tokens."""
    columns: Integers
    """(L,) index into `emissions` of each token in order."""
    needs_gap: npt.NDArray[np.bool_]
    """(L,) whether the token can only follow its predecessor after a gap: it equals it."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The columns that are looked at in each frame; both ends never move back."""

    low: Integers
    """(T,) first column."""
    high: Integers
    """(T,) column behind the last, in [low + 1, L + 1]."""

    @property
    def num_cells(self) -> int:
        """Columns over all frames."""
        return int((self.high - self.low).sum())


@dataclass(frozen=True, kw_only=True)
class Path:
    """The best path through a trellis."""

    log_prob: float
    """The sum of its log-probabilities."""
    tokens: Integers
    """(T,) number of the token that each frame belongs to, -1 in gaps."""
    nearest_edge: int
    """Least number of columns between the path and an end of the band that is not the end of the tokens."""


def whole(num_frames: int, num_tokens: int) -> Band:
    """Make the band that leaves nothing out.

    Args:
        num_frames: T.
        num_tokens: L.
    """
    return Band(low=np.zeros(num_frames, np.int64), high=np.full(num_frames, num_tokens + 1))


def best_path(graph: Graph, band: Band) -> Path | None:
    """Find the most probable path that says every token once, in order.

    Args:
        graph: At least one frame and one token.
        band: Columns to look at; the first frame must hold column 0, the last one columns L - 1 and L.

    Returns:
        The path, or None where no path within the band has a probability above 0.
    """
    steps = _Steps(graph, band)
    marks = [_pack(chunk) for chunk in steps]
    log_prob, ends_in_token = steps.end()
    if log_prob == -np.inf:
        return None
    tokens = _trace(marks, band, len(graph.columns) - ends_in_token, ends_in_token)
    return Path(log_prob=log_prob, tokens=tokens, nearest_edge=_nearest_edge(tokens, band, graph))


class _Steps:
    """The forward pass: the best log-probability of every state of one frame, frame after frame."""

    def __init__(self, graph: Graph, band: Band) -> None:
        self.graph, self.band = graph, band
        num_tokens = len(graph.columns)
        # The last column has a gap and no token.
        self.columns = np.append(graph.columns, 0)
        self.penalties = np.append(np.where(graph.needs_gap, -np.inf, 0.0), -np.inf)
        # Entry j + 1 is column j: entry 0 stands for what is before the first token and is never reached.
        self.in_token = np.full((2, num_tokens + 2), -np.inf)
        self.in_gap = np.full((2, num_tokens + 2), -np.inf)
        self.in_gap[0, 1] = 0.0  # the path starts in the gap before the first token
        self.frame = 0

    def __iter__(self) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield (3, frames, W) bits: the gap came from a token, the token is new, it came without a gap."""
        num_frames, width = len(self.graph.gaps), int((self.band.high - self.band.low).max())
        low, high, gaps = self.band.low.tolist(), self.band.high.tolist(), self.graph.gaps.tolist()
        bits = np.zeros((3, min(CHUNK, num_frames), width), np.bool_)
        scratch = np.empty((2, width))
        emitted = np.empty(width, self.graph.emissions.dtype)
        last_column = len(self.columns) - 1
        for first in range(0, num_frames, CHUNK):
            last = min(first + CHUNK, num_frames)
            for frame in range(first, last):
                a, b = low[frame], high[frame]
                size = b - a
                old_token, new_token = self.in_token[frame % 2], self.in_token[1 - frame % 2]
                old_gap, new_gap = self.in_gap[frame % 2], self.in_gap[1 - frame % 2]
                skip, entry = scratch[0, :size], scratch[1, :size]
                from_token, is_new, is_skip = bits[:, frame - first, :size]
                before, here, gap = old_token[a:b], old_token[a + 1 : b + 1], old_gap[a + 1 : b + 1]
                gap_now, token_now = new_gap[a + 1 : b + 1], new_token[a + 1 : b + 1]
                np.greater(before, gap, out=from_token)
                np.add(before, self.penalties[a:b], out=skip)
                np.greater(skip, gap, out=is_skip)
                np.maximum(skip, gap, out=entry)
                np.greater(entry, here, out=is_new)
                np.maximum(before, gap, out=gap_now)
                gap_now += gaps[frame]
                np.maximum(entry, here, out=token_now)
                np.take(self.graph.emissions[frame], self.columns[a:b], out=emitted[:size], mode="clip")
                token_now += emitted[:size]
                if b > last_column:
                    new_token[last_column + 1] = -np.inf
                # The column that the band leaves behind must not be reached from the next frame.
                new_token[a] = -np.inf
            yield bits[:, : last - first]
        self.frame = num_frames

    def end(self) -> tuple[float, bool]:
        """The log-probability of the best path, and whether it ends in the last token rather than behind."""
        gap = self.in_gap[self.frame % 2, -1]
        token = self.in_token[self.frame % 2, -2]
        return float(max(gap, token)), bool(token > gap)


def _pack(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Eight columns a byte."""
    return np.packbits(bits, axis=2)


def _trace(
    marks: list[npt.NDArray[np.uint8]], band: Band, column: int, in_token: bool
) -> npt.NDArray[np.int64]:
    """Walk back from the last frame: (T,) the token of each frame, -1 in gaps."""
    low = band.low.tolist()
    tokens = np.full(len(low), -1)
    for chunk in range(len(marks) - 1, -1, -1):
        packed = marks[chunk]
        for row in range(packed.shape[1] - 1, -1, -1):
            frame = chunk * CHUNK + row
            place = column - low[frame]
            byte, mask = place >> 3, 128 >> (place & 7)
            if not in_token:
                if packed[0, row, byte] & mask:
                    column, in_token = column - 1, True
                continue
            tokens[frame] = column
            if packed[1, row, byte] & mask:
                if packed[2, row, byte] & mask:
                    column -= 1
                else:
                    in_token = False
    return tokens


def _nearest_edge(tokens: Integers, band: Band, graph: Graph) -> int:
    """How close the path comes to a column that the band left out."""
    num_tokens = len(graph.columns)
    # In a gap the path stands behind the last token that it said.
    said = np.maximum.accumulate(np.where(tokens < 0, -1, tokens))
    below = np.where(band.low > 0, said - band.low, num_tokens)
    above = np.where(band.high <= num_tokens, band.high - 1 - said, num_tokens)
    return int(min(below.min(), above.min()))
