"""Spans of a CTC path -> how long each symbol lasts: honest starts and ends, finer than a frame.

CTC names a symbol where it is surest and is silent, blank, for the rest of it. What the network thinks of a
blank frame is still to be seen in what it leaves to the other symbols. So the frames between two spans are
shared out: each goes to the symbol on the left, to silence, or to the symbol on the right, wherever the sum
of the evidence is the greatest. The evidence for a symbol is its log-probability among the symbols other than
the blank, less its mean over all blank frames (a label prior); the evidence for silence is that nothing is
likely and the recording quiet; a boundary is likely where the spectrum changes.

Shapes in this file: T frames, N vocabulary, L spans, P points (four to a frame).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unispeech.decoding.extents_acoustics import CHUNK, POINTS, Acoustics
from unispeech.decoding.greedy import TokenSpan
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, Seconds, frame_to_seconds

Floats = npt.NDArray[np.float64]

LIMIT = 4.0
"""Most evidence that one frame can give, in nats: a boundary is not for one frame to decide."""

FLOOR = -30.0
"""Log-probabilities below are taken for this."""

WILDCARD_EVIDENCE = 1.5
"""Evidence per frame for what cannot be spelled: more than a wrong symbol gets, less than the right one."""

SILENCE_EVIDENCE = 2.5
"""Evidence per frame for silence where blank and level are of the usual kind."""

BLANK_WEIGHT = 1.0
"""Evidence for silence per standard deviation by which all other symbols are less likely than usual."""

LEVEL_WEIGHT = 5.0
"""Evidence for silence in the quietest frames over that in the loudest ones."""

QUIET = 0.25
"""Where between the quietest (0) and the loudest (1) level speaks neither for silence nor against it."""

LEVEL_PERCENTILES = (3.0, 90.0)
"""What counts as the quietest and the loudest level of a recording."""

MIN_LEVEL_RANGE = 6.0
"""Decibels between the two below which the level says nothing."""

PAUSE_COST = 12.0
"""Evidence that a silence between two symbols needs: a closure is no pause."""

CHANGE_WEIGHT = 1.0
"""Evidence for a boundary where the spectrum changes as it does on the average."""


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What is known of every frame and point."""

    symbols: npt.NDArray[np.float32]
    """(T, U) for each distinct symbol that is said."""
    columns: dict[int, int]
    """Id of a symbol -> its column."""
    silence: Floats
    """(P,) for silence, per point."""
    changes: Floats
    """(P + 1,) for a boundary before each point."""


def extents(
    spans: Sequence[TokenSpan],
    log_probs: npt.NDArray[np.floating],
    blank: int,
    *,
    acoustics: Acoustics | None = None,
    kernels: Sequence[int] = CONV_KERNEL,
    strides: Sequence[int] = CONV_STRIDE,
) -> list[tuple[Seconds, Seconds]]:
    """Find when each symbol begins and ends.

    A boundary lies between the last frame of the span before and the first frame of the span behind it, on
    a grid of a quarter of a frame (5 ms). Where two ends differ, there is silence between them.

    Args:
        spans: L spans of `align` or `greedy`, in order and without overlap.
        log_probs: (T, N) log-probabilities from which they came.
        blank: Id of the CTC blank.
        acoustics: What `extents_acoustics.measure` says of the recording; None goes by the network alone.
        kernels: Kernel size of each of the network's convolutions.
        strides: Stride of each.

    Returns:
        (start, end) of each span in seconds from the start of the recording: in order, without overlap, each
        at least half a frame long.

    Raises:
        ValueError: If the acoustics are not of T frames.

    Source:
        The label prior is that of Huang et al. 2024, Less peaky and more accurate CTC forced alignment by
        label priors (arXiv:2406.02560), here estimated from the recording and used after training.
    """
    num_frames = len(log_probs)
    if acoustics is not None and len(acoustics.levels) != num_frames * POINTS:
        raise ValueError(
            f"`acoustics` must have {num_frames * POINTS} points for {num_frames} frames, "
            f"but have {len(acoustics.levels)}."
        )
    if not spans:
        return []
    evidence = _weigh(np.asarray(log_probs), blank, {span.token for span in spans}, acoustics)
    ends = [_before_all(evidence, spans[0])]
    for left, right in pairwise(spans):
        ends += _between(evidence, left, right)
    ends.append(_behind_all(evidence, spans[-1], num_frames))
    # The beginning of point p, in frames: the centre of frame 0 lies in the middle of points 0 to 3.
    times = [max(frame_to_seconds(end / POINTS - 0.5, kernels, strides), 0.0) for end in ends]
    return list(zip(times[::2], times[1::2], strict=True))


def _weigh(
    log_probs: npt.NDArray[np.floating], blank: int, said: set[int], acoustics: Acoustics | None
) -> _Evidence:
    """Turn log-probabilities and acoustics into evidence."""
    is_blank = log_probs[:, blank] > np.log(0.5)
    if is_blank.sum() < 2:
        is_blank = np.ones(len(log_probs), np.bool_)
    mass = _mass_beside(log_probs, blank)
    tokens = sorted(token for token in said if token >= 0)
    rows = np.maximum(log_probs[:, tokens], FLOOR).astype(np.float32)
    rows -= mass[:, None]
    rows -= rows[is_blank].mean(axis=0)
    np.clip(rows, -LIMIT, LIMIT, out=rows)
    spread = float(mass[is_blank].std())
    unlikely = (mass[is_blank].mean() - mass) / spread if spread > 0 else np.zeros(len(mass))
    places = _centres(0, len(rows) * POINTS)
    silence = SILENCE_EVIDENCE + BLANK_WEIGHT * np.interp(places, np.arange(len(rows)), unlikely)
    changes = np.zeros(len(places) + 1)
    if acoustics is not None:
        silence += LEVEL_WEIGHT * _quietness(acoustics.levels)
        changes = CHANGE_WEIGHT * acoustics.changes
    columns = {token: column for column, token in enumerate(tokens)}
    return _Evidence(symbols=rows, columns=columns, silence=silence / POINTS, changes=changes)


def _mass_beside(log_probs: npt.NDArray[np.floating], blank: int) -> npt.NDArray[np.float32]:
    """(T,) log of what blank leaves to the other symbols; 1 - p would round to 0 where blank is sure."""
    mass = np.zeros(len(log_probs), np.float32)
    # In parts, for the sums take several times the memory of what they add up.
    for start in range(0, len(log_probs), CHUNK):
        rows = np.maximum(log_probs[start : start + CHUNK], FLOOR).astype(np.float32)
        rows[:, blank] = FLOOR
        highest = rows.max(axis=1, keepdims=True)
        mass[start : start + CHUNK] = highest[:, 0] + np.log(np.exp(rows - highest).sum(axis=1))
    return mass


def _quietness(levels: Floats) -> Floats:
    """(P,) from `QUIET` where it is quietest down to `QUIET` - 1 where it is loudest."""
    low, high = np.percentile(levels, LEVEL_PERCENTILES)
    if high - low < MIN_LEVEL_RANGE:
        return np.zeros(len(levels))
    quietness: Floats = QUIET - np.clip((levels - low) / (high - low), 0.0, 1.0)
    return quietness


def _centres(first: int, last: int) -> Floats:
    """The centres of points, in frames."""
    centres: Floats = (np.arange(first, last) - (POINTS - 1) / 2) / POINTS
    return centres


def _sums(values: Floats) -> Floats:
    """Sums up to every boundary, the first one included."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _symbol(evidence: _Evidence, token: int, first: int, last: int) -> Floats:
    """The evidence for a token summed up over points, from `first` to every boundary up to `last`."""
    if token < 0:
        return _sums(np.full(last - first, WILDCARD_EVIDENCE / POINTS))
    start, stop = max(first // POINTS - 1, 0), last // POINTS + 2
    frames = evidence.symbols[start:stop, evidence.columns[token]]
    return _sums(np.interp(_centres(first, last) - start, np.arange(len(frames)), frames) / POINTS)


def _centre_of(frame: int) -> int:
    """The boundary in the middle of a frame."""
    return frame * POINTS + POINTS // 2


def _between(evidence: _Evidence, left: TokenSpan, right: TokenSpan) -> tuple[int, int]:
    """Where the left symbol ends and the right one begins: apart if silence is between, else the same."""
    first, last = _centre_of(left.end_frame - 1), _centre_of(right.start_frame)
    changes = evidence.changes[first : last + 1]
    to_left, to_right = (_symbol(evidence, span.token, first, last) for span in (left, right))
    silent = _sums(evidence.silence[first:last])
    # One point at least stays with either symbol.
    inside = slice(1, last - first)
    ends = (to_left - silent + changes)[inside]
    starts = (silent - to_right + changes)[inside]
    together = (to_left - to_right + changes)[inside]
    cut = int(together.argmax())
    apart = np.maximum.accumulate(ends) + starts
    begin = int(apart.argmax())
    if apart[begin] - PAUSE_COST > together[cut]:
        return first + 1 + int(ends[: begin + 1].argmax()), first + 1 + begin
    return first + 1 + cut, first + 1 + cut


def _before_all(evidence: _Evidence, span: TokenSpan) -> int:
    """Where the first symbol begins; what is before it is silence."""
    last = _centre_of(span.start_frame)
    silent, symbol = _sums(evidence.silence[:last]), _symbol(evidence, span.token, 0, last)
    return int((silent - symbol + evidence.changes[: last + 1])[:-1].argmax())


def _behind_all(evidence: _Evidence, span: TokenSpan, num_frames: int) -> int:
    """Where the last symbol ends; what is behind it is silence."""
    first, last = _centre_of(span.end_frame - 1), num_frames * POINTS
    silent, symbol = _sums(evidence.silence[first:]), _symbol(evidence, span.token, first, last)
    return first + 1 + int((symbol - silent + evidence.changes[first:])[1:].argmax())
