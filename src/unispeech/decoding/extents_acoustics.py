"""What the waveform itself says about boundaries: loudness and change of the spectrum, four times a frame.

Shapes in this file: S samples, T frames, P points (four to a frame), F bins, M bands.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, SAMPLE_RATE, hop, receptive_field

Floats = npt.NDArray[np.float64]

POINTS = 4
"""Points to a frame: 5 ms apart with the published convolutions."""

WINDOW = 256
"""Samples under the window of a spectrum, 16 ms."""

NUM_BANDS = 24
"""Bands of equal width on the mel scale, from 0 to 8 kHz."""

REACH = 2
"""Points on either side of a boundary whose spectra are compared: 10 ms, a pair of points."""

FLOOR = 1e-7
"""Added to the power of a band, as a share of the mean power: what is 70 dB below is no change."""

CHUNK = 4096
"""Points whose spectra are computed at once."""


@dataclass(frozen=True, kw_only=True)
class Acoustics:
    """Loudness and change along a recording. Point p of frame t has number 4 t + p."""

    levels: Floats
    """(P,) power in dB, on any scale."""
    changes: Floats
    """(P + 1,) how far the spectra differ before and behind each point's beginning; 1 on the average."""


def measure(
    waveform: Waveform,
    num_frames: int,
    kernels: Sequence[int] = CONV_KERNEL,
    strides: Sequence[int] = CONV_STRIDE,
) -> Acoustics:
    """Measure a recording where a network has its frames.

    Args:
        waveform: (S,) samples at 16 kHz.
        num_frames: T, as the network makes of them.
        kernels: Kernel size of each of its convolutions.
        strides: Stride of each.

    Returns:
        Acoustics of 4 T points.
    """
    mean_square = float(np.square(waveform).mean()) if len(waveform) else 0.0
    return measure_blocks([waveform], num_frames, mean_square, kernels, strides)


def measure_blocks(
    blocks: Iterable[Waveform],
    num_frames: int,
    mean_square: float,
    kernels: Sequence[int] = CONV_KERNEL,
    strides: Sequence[int] = CONV_STRIDE,
) -> Acoustics:
    """Measure a long recording block by block, in 80 MB an hour; the same as `measure` in one.

    Args:
        blocks: (S_i,) samples at 16 kHz that follow one another.
        num_frames: T of all of them.
        mean_square: Of the samples of the whole recording.
        kernels: As for `measure`.
        strides: As for `measure`.

    Returns:
        Acoustics of 4 T points.
    """
    num_points = num_frames * POINTS
    levels = np.zeros(num_points)
    spectra = np.zeros((num_points, NUM_BANDS), np.float32)
    window, bands = np.hanning(WINDOW).astype(np.float32), _mel_bands().astype(np.float32)
    # The mean power under a window, by Parseval.
    floor = FLOOR * mean_square * float(np.square(window).sum()) * WINDOW / 2 + 1e-20
    done = 0
    for frames in _windows(blocks, num_points, kernels, strides):
        powers = np.square(np.abs(np.fft.rfft(frames * window, axis=1))) @ bands  # (p, F) -> (p, M)
        levels[done : done + len(powers)] = 10 * np.log10(powers.sum(axis=1) + floor)
        spectra[done : done + len(powers)] = np.log(powers + floor / NUM_BANDS)
        done += len(powers)
    changes = np.zeros(num_points + 1)
    for start in range(0, num_points, CHUNK):
        stop = min(start + CHUNK, num_points)
        before = max(start - REACH, 0)
        near = _distances(spectra[before : stop + REACH])
        changes[start:stop] = near[start - before : stop - before]
    mean = changes.mean()
    # In digital silence there is nothing but rounding.
    return Acoustics(levels=levels, changes=changes / mean if mean > 1e-6 else np.zeros_like(changes))


def _windows(
    blocks: Iterable[Waveform], num_points: int, kernels: Sequence[int], strides: Sequence[int]
) -> Iterator[Waveform]:
    """Cut out what lies under the window of every point; before and behind the recording are zeros.

    Yields:
        (p, `WINDOW`) samples of points that follow one another, `CHUNK` of them at most.
    """
    step = hop(strides) / POINTS
    first = receptive_field(kernels, strides) / 2 - (POINTS - 1) / 2 * step - WINDOW / 2
    # Counted from `WINDOW` zeros before the recording, as no window begins earlier.
    starts = np.round(first + WINDOW + np.arange(num_points) * step).astype(np.int64)
    end = np.zeros(WINDOW + int(2 * step), np.float32)
    held, gone, point = np.zeros(WINDOW, np.float32), 0, 0
    for block in chain(blocks, [end]):
        held = np.concatenate([held, block])
        while True:
            last = min(point + CHUNK, int(np.searchsorted(starts, gone + len(held) - WINDOW, side="right")))
            if last <= point:
                break
            views = np.lib.stride_tricks.sliding_window_view(held, WINDOW)
            yield views[starts[point:last] - gone]
            point = last
        drop = min(int(starts[point]) - gone, len(held)) if point < num_points else len(held)
        held, gone = held[drop:], gone + drop


def _mel_bands() -> Floats:
    """(F, M) triangles of equal width on the mel scale."""
    mels = 2595 * np.log10(1 + np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE) / 700)
    edges = np.linspace(mels[1], mels[-1], NUM_BANDS + 2)
    rising = (mels[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mels[:, None]) / np.diff(edges)[1:]
    triangles: Floats = np.maximum(np.minimum(rising, falling), 0.0)
    return triangles


def _distances(spectra: npt.NDArray[np.float32]) -> Floats:
    """(P, M) log spectra -> (P,) distances between the means of the two before each and the two from it."""
    padded = np.pad(spectra, ((REACH - 1, REACH - 1), (0, 0)), mode="edge")
    means = (padded[1:] + padded[:-1]) / 2
    distances = np.zeros(len(spectra))
    distances[1:] = np.sqrt(np.square(means[REACH:] - means[:-REACH]).mean(axis=1))
    return distances
