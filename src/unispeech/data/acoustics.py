"""Rooms and noise for clean synthetic speech, from an explicit generator, no phone moved in time."""

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]
"""(S,) mono samples in [-1, 1]."""


def coloured_noise(num_samples: int, *, tilt: float, rng: np.random.Generator) -> Waveform:
    """Draw Gaussian noise whose power falls with frequency f as f ** -tilt.

    Args:
        num_samples: Length S, at least 1.
        tilt: 0 is white, 1 pink, 2 brown.
        rng: Where the draw comes from.

    Returns:
        (S,) noise with a mean square of 1.
    """
    size = 1 << (num_samples - 1).bit_length()  # a power of two is many times faster than a prime
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** (-tilt / 2)
    noise = np.fft.irfft(spectrum, size)[:num_samples]
    return (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)).astype(np.float32)


def add_noise(
    waveform: Waveform, *, snr_db: float, speech: slice, sample_rate: int, rng: np.random.Generator
) -> Waveform:
    """Lay noise of a random colour and a slow swell over an utterance.

    Args:
        waveform: (S,) samples.
        snr_db: Power of the speech over that of the noise.
        speech: Where there is speech: its mean power counts.
        sample_rate: In Hz.
        rng: Where tilt (0 to 2), swell and noise come from.

    Returns:
        (S,) samples with noise; they may exceed [-1, 1].
    """
    noise = coloured_noise(len(waveform), tilt=rng.uniform(0, 2), rng=rng)
    swells_per_second, depth, phase = rng.uniform(0.2, 4), rng.uniform(0, 0.6), rng.uniform(0, 2 * np.pi)
    seconds = np.arange(len(waveform)) / sample_rate
    swell = 1 + depth * np.sin(2 * np.pi * swells_per_second * seconds + phase)
    noise = (noise * swell).astype(np.float32)
    power = float(np.mean(waveform[speech].astype(np.float64) ** 2))
    scale = float(np.sqrt(power * 10 ** (-snr_db / 10) / float(np.mean(noise**2))))
    return waveform + np.float32(scale) * noise


def add_reverb(
    waveform: Waveform, *, decay: float, direct_db: float, sample_rate: int, rng: np.random.Generator
) -> Waveform:
    """Let an utterance sound in a room: the direct sound, then an exponentially dying tail of noise.

    The direct sound stays where it was, so phone times hold.

    Args:
        waveform: (S,) samples.
        decay: Seconds until the tail has fallen by 60 dB.
        direct_db: Energy of the direct sound over that of the tail.
        sample_rate: In Hz.
        rng: Where delay (2 to 15 ms) and tail come from.

    Returns:
        (S,) samples; the tail is cut where the utterance ends.
    """
    delay = int(rng.uniform(0.002, 0.015) * sample_rate)
    seconds = np.arange(max(int(decay * sample_rate), 1)) / sample_rate
    tail = rng.standard_normal(len(seconds)) * 10 ** (-3 * seconds / decay)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    response = np.concatenate([[1.0], np.zeros(delay), tail])
    size = 1 << (len(waveform) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)
    return wet[: len(waveform)].astype(np.float32)


def set_level(waveform: Waveform, *, level_db: float, speech: slice) -> Waveform:
    """Scale an utterance to a level, but never into clipping.

    Args:
        waveform: (S,) samples.
        level_db: Wanted root mean square of the speech, in dB below full scale: -20 or so.
        speech: Where there is speech.

    Returns:
        (S,) samples whose greatest magnitude is at most 0.99.
    """
    rms = float(np.sqrt(np.mean(waveform[speech].astype(np.float64) ** 2)))
    peak = float(np.max(np.abs(waveform)))
    if rms == 0.0 or peak == 0.0:
        return waveform
    return (waveform * min(10 ** (level_db / 20) / rms, 0.99 / peak)).astype(np.float32)
