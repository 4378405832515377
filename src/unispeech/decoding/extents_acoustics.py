"""What the waveform itself says about boundaries: loudness and change of the spectrum, four times a frame.

Shapes in this file: S samples, T frames, P points (four to a frame), F bins, M bands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
"""Points on either side of a boundary whose spectra are compared: 10 ms."""

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
    num_points = num_frames * POINTS
    levels, changes = np.zeros(num_points), np.zeros(num_points + 1)
    # The mean power under a window, by Parseval.
    window = np.hanning(WINDOW).astype(np.float32)
    mean_power = float(np.square(waveform).mean()) * float(np.square(window).sum()) * WINDOW / 2
    floor = FLOOR * mean_power + 1e-20
    step = hop(strides) / POINTS
    first = receptive_field(kernels, strides) / 2 - (POINTS - 1) / 2 * step - WINDOW / 2
    padded = np.pad(waveform, (WINDOW, WINDOW + int(2 * step)))
    views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    bands = _mel_bands()
    for start in range(0, num_points, CHUNK):
        stop = min(start + CHUNK, num_points)
        before, behind = max(start - REACH, 0), min(stop + REACH, num_points)
        places = np.round(first + WINDOW + np.arange(before, behind) * step).astype(np.int64)
        frames = views[np.clip(places, 0, len(views) - 1)] * window
        powers = np.square(np.abs(np.fft.rfft(frames, axis=1))) @ bands  # (CHUNK, F) -> (CHUNK, M)
        levels[start:stop] = 10 * np.log10(powers[start - before : stop - before].sum(axis=1) + floor)
        distances = _distances(np.log(powers + floor / NUM_BANDS))
        changes[start:stop] = distances[start - before : stop - before]
    mean = changes.mean()
    # In digital silence there is nothing but rounding.
    return Acoustics(levels=levels, changes=changes / mean if mean > 1e-6 else np.zeros_like(changes))


def _mel_bands() -> Floats:
    """(F, M) triangles of equal width on the mel scale."""
    mels = 2595 * np.log10(1 + np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE) / 700)
    edges = np.linspace(mels[1], mels[-1], NUM_BANDS + 2)
    rising = (mels[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mels[:, None]) / np.diff(edges)[1:]
    triangles: Floats = np.maximum(np.minimum(rising, falling), 0.0)
    return triangles


def _distances(spectra: Floats) -> Floats:
    """(P, M) log spectra -> (P,) distances between the means of those before each point and those from it."""
    num_points = len(spectra)
    sums = np.concatenate([np.zeros((1, NUM_BANDS)), np.cumsum(spectra, axis=0)])
    places = np.arange(1, num_points)
    before, behind = np.maximum(places - REACH, 0), np.minimum(places + REACH, num_points)
    left = (sums[places] - sums[before]) / (places - before)[:, None]
    right = (sums[behind] - sums[places]) / (behind - places)[:, None]
    distances = np.zeros(num_points)
    distances[1:] = np.sqrt(np.square(left - right).mean(axis=1))
    return distances
