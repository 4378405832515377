"""Long recordings -> windows that a network can take: a survey of the whole, cuts where it is quiet.

A window has a part that is kept and, on both sides, context that is heard and thrown away. The kept parts lie
side by side and cover every frame once; windows begin on the grid of frames, so that a frame of a window sees
the same samples as the same frame of the whole recording.

Shapes in this file: S samples, T frames, K kernel of the first convolution.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.frames import hop, num_frames, receptive_field

SMOOTHING_FRAMES = 15
"""Width over which loudness is averaged before the quietest place is sought: 0.3 s, more than the closure of
a stop, less than a pause."""

SPEECH_DECIBELS = 200.0
"""How much louder speech counts than what is not speech: more than lies between any two sounds, so that a cut
is within speech only where there is nothing else."""

EARLIEST_CUT = 0.6
"""Share of the longest kept part from where on a cut is sought."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of a recording that goes through the network at once."""

    start_frame: int
    """First frame that is heard."""
    end_frame: int
    """First frame behind those that are heard."""
    kept_from: int
    """First frame that is kept."""
    kept_to: int
    """First frame behind those that are kept."""

    @property
    def kept(self) -> slice:
        """Which of its own frames are kept."""
        return slice(self.kept_from - self.start_frame, self.kept_to - self.start_frame)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a first pass over a recording finds, in memory of a few bytes a frame."""

    num_samples: int
    """S."""
    mean: float
    """Mean of the samples."""
    variance: float
    """Variance of the samples."""
    peak: float
    """Farthest that a sample lies from the mean."""
    loudness: npt.NDArray[np.float32]
    """(T,) energy of the change from sample to sample in each hop, in dB."""
    window_mean: npt.NDArray[np.float64]
    """(K,) mean of the windows that the first convolution sees."""
    window_covariance: npt.NDArray[np.float64]
    """(K, K) covariance of these windows."""
    speech: npt.NDArray[np.float32] | None = None
    """(T,) probability that somebody speaks in each frame; None where only loudness is known."""

    @property
    def activity(self) -> npt.NDArray[np.float32]:
        """(T,) what a cut avoids: loudness, and speech above all."""
        return self.loudness if self.speech is None else self.loudness + SPEECH_DECIBELS * self.speech


class _Sums:
    """Sums over windows of K samples that start every `stride` samples, whatever blocks they come in."""

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride, self.count = kernel, stride, 0
        self.total = np.zeros(kernel)
        self.products = np.zeros((kernel, kernel))
        self._rest = np.zeros(0)
        self._gap = 0

    def add(self, block: npt.NDArray[np.float64]) -> None:
        samples = np.concatenate([self._rest, block])[self._gap :]
        self._gap = max(self._gap - len(self._rest) - len(block), 0)
        count = max((len(samples) - self.kernel) // self.stride + 1, 0)
        if count:
            rows = np.lib.stride_tricks.sliding_window_view(samples, self.kernel)[:: self.stride][:count]
            self.count += count
            self.total += rows.sum(axis=0)
            self.products += rows.T @ rows
            self._gap += max(count * self.stride - len(samples), 0)
        self._rest = samples[count * self.stride :].copy()


def survey_blocks(blocks: Iterable[Waveform], kernels: Sequence[int], strides: Sequence[int]) -> Survey:
    """Go through a recording once, keeping sums only.

    Loudness is that of the change from sample to sample, which leaves out hum and offsets.

    Args:
        blocks: (S_i,) samples that follow one another.
        kernels: Kernel sizes of the feature encoder.
        strides: Strides of the feature encoder.

    Returns:
        The survey; sums are in float64.
    """
    step = hop(strides)
    sums = _Sums(kernels[0], strides[0])
    loudness: list[npt.NDArray[np.float32]] = []
    rest, last = np.zeros(0), None
    num_samples, total, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for block in blocks:
        samples = block.astype(np.float64)
        num_samples += len(samples)
        total, squares = total + float(samples.sum()), squares + float(samples @ samples)
        low, high = min(low, float(samples.min())), max(high, float(samples.max()))
        sums.add(samples)
        changes = np.diff(samples, prepend=samples[0] if last is None else last)
        last, rest = samples[-1], np.concatenate([rest, changes**2])
        num_hops = len(rest) // step
        energies = rest[: num_hops * step].reshape(num_hops, step).mean(axis=1)
        loudness.append((10 * np.log10(energies + 1e-10)).astype(np.float32))
        rest = rest[num_hops * step :]
    count = max(num_samples, 1)
    mean, window_mean = total / count, sums.total / max(sums.count, 1)
    covariance = sums.products / max(sums.count, 1) - np.outer(window_mean, window_mean)
    return Survey(
        num_samples=num_samples,
        mean=mean,
        variance=max(squares / count - mean**2, 0.0),
        peak=max(high - mean, mean - low) if num_samples else 0.0,
        loudness=np.concatenate([*loudness, np.zeros(0, np.float32)])[
            : num_frames(num_samples, kernels, strides)
        ],
        window_mean=window_mean,
        window_covariance=covariance,
    )


def plan_windows(activity: npt.NDArray[np.float32], *, max_frames: int, overlap_frames: int) -> list[Window]:
    """Choose windows whose seams lie where the recording is quietest.

    Args:
        activity: (T,) how loud each frame is, in dB.
        max_frames: Frames that a window hears at most, above twice `overlap_frames`.
        overlap_frames: Frames of context on either side of what is kept.

    Returns:
        Windows in the order of time whose kept parts cover all frames; one where all fit into one.
    """
    T = len(activity)
    if max_frames >= T:
        return [Window(start_frame=0, end_frame=T, kept_from=0, kept_to=T)] if T else []
    seams = [0]
    longest = max_frames - 2 * overlap_frames
    width = np.ones(SMOOTHING_FRAMES) / SMOOTHING_FRAMES
    while T - seams[-1] > longest:
        first, last = seams[-1] + max(int(longest * EARLIEST_CUT), 1), seams[-1] + longest
        # Frames around the range count in the averages at its ends.
        margin = SMOOTHING_FRAMES // 2
        around = np.pad(activity, margin, mode="edge")[first : last + 1 + 2 * margin]
        smoothed = np.convolve(around, width, mode="valid")
        # Of equally quiet places the last: fewer windows.
        seams.append(last - int(smoothed[::-1].argmin()))
    seams.append(T)
    return [
        Window(
            start_frame=max(start - overlap_frames, 0),
            end_frame=min(end + overlap_frames, T),
            kept_from=start,
            kept_to=end,
        )
        for start, end in pairwise(seams)
    ]


def cut_windows(
    blocks: Iterable[Waveform], windows: Iterable[Window], kernels: Sequence[int], strides: Sequence[int]
) -> Iterator[tuple[Window, Waveform]]:
    """Take the samples of windows from blocks, holding one window and one block at a time.

    Args:
        blocks: (S_i,) samples that follow one another.
        windows: In the order of time.
        kernels: Kernel sizes of the feature encoder.
        strides: Strides of the feature encoder.

    Yields:
        Each window with just the samples that its frames see.
    """
    remaining = iter(blocks)
    step, field = hop(strides), receptive_field(kernels, strides)
    held, offset = np.zeros(0, np.float32), 0
    for window in windows:
        start, end = window.start_frame * step, (window.end_frame - 1) * step + field
        pieces = [held[start - offset :]]
        num_held = offset + len(held)
        while num_held < end and (block := next(remaining, None)) is not None:
            pieces.append(block[max(start - num_held, 0) :])
            num_held += len(block)
        held, offset = np.concatenate(pieces), start
        yield window, held[: end - start]
