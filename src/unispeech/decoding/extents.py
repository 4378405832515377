"""Spans of a CTC path -> how long each symbol lasts: honest starts and ends, finer than a frame.

CTC names a symbol where it is surest and is silent, blank, for the rest of it. What the network thinks of a
blank frame is still to be seen in what it leaves to the other symbols. So the frames between two spans are
shared out: each goes to the symbol on the left, to silence, or to the symbol on the right, wherever the sum
of the evidence is the greatest. The evidence for a symbol is its log-probability among the symbols other than
the blank, less its mean over all blank frames (a label prior); the evidence for silence is that nothing is
likely and the recording quiet; a boundary is likely where the spectrum changes.

Shapes in this file: T frames, N vocabulary, L spans, U distinct symbols, P points (four to a frame).
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """What speaks for an end before each point; within a gap between two spans only differences count."""

    to_silence: Floats
    """(P + 1,) for the symbol on the left before it, silence behind it."""
    from_silence: Floats
    """(P + 1,) for silence before it, the symbol on the right behind it."""
    to_symbol: Floats
    """(P + 1,) for the symbol on the left before it, the one on the right behind it."""


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
    firsts = np.array([_centre_of(span.end_frame - 1) for span in spans])
    lasts = np.array([_centre_of(span.start_frame) for span in spans])
    evidence = _weigh(np.asarray(log_probs), blank, spans, firsts, lasts, acoustics)
    # What is before the first symbol and behind the last one is silence.
    ends = [int(evidence.from_silence[: lasts[0]].argmax())]
    for first, last in zip(firsts[:-1].tolist(), lasts[1:].tolist(), strict=True):
        ends += _between(evidence, first, last)
    ends.append(int(firsts[-1]) + 1 + int(evidence.to_silence[firsts[-1] + 1 :].argmax()))
    # The beginning of point p, in frames: the centre of frame 0 lies in the middle of points 0 to 3.
    times = [max(frame_to_seconds(end / POINTS - 0.5, kernels, strides), 0.0) for end in ends]
    return list(zip(times[::2], times[1::2], strict=True))


def _weigh(
    log_probs: npt.NDArray[np.floating],
    blank: int,
    spans: Sequence[TokenSpan],
    firsts: npt.NDArray[np.int64],
    lasts: npt.NDArray[np.int64],
    acoustics: Acoustics | None,
) -> _Evidence:
    """Turn log-probabilities and acoustics into evidence.

    Behind `firsts`, (L,), each span's symbol is the one on the left, until `lasts`, (L,), it is the one on
    the right.
    """
    is_blank = log_probs[:, blank] > np.log(0.5)
    if is_blank.sum() < 2:
        is_blank = np.ones(len(log_probs), np.bool_)
    mass = _mass_beside(log_probs, blank)
    points = np.arange(len(log_probs) * POINTS)
    spread = float(mass[is_blank].std())
    unlikely = (mass[is_blank].mean() - mass) / spread if spread > 0 else np.zeros(len(mass))
    silence = SILENCE_EVIDENCE + BLANK_WEIGHT * _at_points(unlikely[:, None], np.zeros_like(points))
    changes = np.zeros(len(points) + 1)
    if acoustics is not None:
        silence += LEVEL_WEIGHT * _quietness(acoustics.levels)
        changes = CHANGE_WEIGHT * acoustics.changes
    symbols, columns = _symbols(log_probs, mass, is_blank, [span.token for span in spans])
    left = columns[np.maximum(np.searchsorted(firsts, points, side="right") - 1, 0)]
    right = columns[np.minimum(np.searchsorted(lasts, points, side="right"), len(spans) - 1)]
    silent, before, behind = (
        np.concatenate([[0.0], np.cumsum(values / POINTS)])
        for values in (silence, _at_points(symbols, left), _at_points(symbols, right))
    )
    return _Evidence(
        to_silence=before - silent + changes,
        from_silence=silent - behind + changes,
        to_symbol=before - behind + changes,
    )


def _symbols(
    log_probs: npt.NDArray[np.floating],
    mass: npt.NDArray[np.float32],
    is_blank: npt.NDArray[np.bool_],
    said: Sequence[int],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(T, U) evidence for each distinct symbol, also what cannot be spelled; (L,) the column of each span."""
    tokens = sorted(set(said))
    rows = np.maximum(log_probs[:, tokens], FLOOR).astype(np.float32)
    rows -= mass[:, None]
    rows -= rows[is_blank].mean(axis=0)
    np.clip(rows, -LIMIT, LIMIT, out=rows)
    rows[:, [column for column, token in enumerate(tokens) if token < 0]] = WILDCARD_EVIDENCE
    return rows, np.searchsorted(tokens, said)


def _at_points(rows: npt.NDArray[np.floating], columns: npt.NDArray[np.int64]) -> Floats:
    """(T, U) values at the centres of frames -> (P,) between them, of the column (P,) that each wants."""
    points = np.arange(len(columns))
    frames = points // POINTS
    away = (points % POINTS - (POINTS - 1) / 2) / POINTS
    beside = np.clip(frames + np.sign(away).astype(np.int64), 0, len(rows) - 1)
    near = rows[frames, columns].astype(np.float64)
    values: Floats = near + np.abs(away) * (rows[beside, columns] - near)
    return values


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


def _centre_of(frame: int) -> int:
    """The boundary in the middle of a frame."""
    return frame * POINTS + POINTS // 2


def _between(evidence: _Evidence, first: int, last: int) -> tuple[int, int]:
    """Where the left symbol ends and the right one begins: apart if silence is between, else the same."""
    # One point at least stays with either symbol.
    inside = slice(first + 1, last)
    ends, together = evidence.to_silence[inside], evidence.to_symbol[inside]
    cut = int(together.argmax())
    apart = np.maximum.accumulate(ends) + evidence.from_silence[inside]
    begin = int(apart.argmax())
    if apart[begin] - PAUSE_COST > together[cut]:
        return first + 1 + int(ends[: begin + 1].argmax()), first + 1 + begin
    return first + 1 + cut, first + 1 + cut
