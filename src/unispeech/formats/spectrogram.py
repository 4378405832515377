"""Waveform -> wide-band spectrogram in decibels, as many columns as a picture has room for."""

import numpy as np

from unispeech.frames import SAMPLE_RATE

WINDOW_MS = 8
"""Short enough to show single glottal pulses and bursts, as wide-band spectrograms do."""
NUM_FFT = 512
"""Points of the transform, zero-padded from the window: a bin every 31 Hz."""
PRE_EMPHASIS = 0.97
"""Share of the previous sample that is taken off, which lifts speech by 6 dB an octave."""
RANGE_DB = 60.0
"""Decibels below the loudest bin that are still shown."""


def spectrogram(waveform: np.ndarray, *, num_columns: int) -> tuple[np.ndarray, int, int]:
    """Compute the energy of a waveform over time and frequency.

    Args:
        waveform: (S,) float samples at 16 kHz.
        num_columns: Columns that the picture has room for; the hop is chosen to come near, and is at least
            one sample.

    Returns:
        (columns, 257) decibels in [-60, 0] relative to the loudest bin, frequencies 0 to 8 kHz; the hop and
        the window in samples. Column i is centred on sample i * hop + window / 2. No columns where the
        waveform is shorter than the window.
    """
    window_samples = SAMPLE_RATE * WINDOW_MS // 1000
    hop_samples = max((len(waveform) - window_samples) // max(num_columns, 1), 1)
    if len(waveform) < window_samples:
        return np.zeros((0, NUM_FFT // 2 + 1)), hop_samples, window_samples
    emphasised = np.append(waveform[:1], waveform[1:] - PRE_EMPHASIS * waveform[:-1])
    # (columns, window): a view, one row every hop
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, window_samples)[::hop_samples]
    power = np.abs(np.fft.rfft(windows * np.hanning(window_samples), NUM_FFT)) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-20))
    return np.clip(decibels - decibels.max(), -RANGE_DB, 0.0), hop_samples, window_samples
