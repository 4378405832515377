"""Clean recordings -> what a microphone far away, a noisy street or a telephone would have given.

Of lhotse's transforms none is used. `Narrowband`, its mu-law codec and its fast room generator need
torchaudio, which does not import beside a CPU build of torch. `Speed` works without it, but makes and keeps
a filter for every new factor: 16 ms per second of audio for factors from a range, where soxr takes 0.3 ms.

Everything is drawn from generators that the caller gives, so the same generator gives the same samples
in whatever process.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from unispeech.data.acoustics import Waveform, add_noise, add_reverb
from unispeech.frames import SAMPLE_RATE, Seconds

_DECAY: tuple[Seconds, Seconds] = (0.1, 0.7)
_DIRECT_DB = (0.0, 12.0)
_TILT_DB = 6.0
_RIPPLE_DB = 4.0
_BANDS = np.array([125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
_TELEPHONE_BAND = (300.0, 3400.0)
_TELEPHONE_RATE = 8000
_BAND_EDGE = 100.0
_MU = 255.0
_RING: Seconds = 0.1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How recordings are changed in training; the default changes nothing.

    Raises:
        ValueError: If a setting lies out of its range.
    """

    speed: tuple[float, float] | None = None
    """Range of the factor of speed and pitch, one factor for a batch: 0.9 to 1.1 is usual; None leaves it."""
    noise_prob: float = 0.0
    """Share of the utterances that get noise of a random colour."""
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    """Range of the mean power of the utterance over that of the noise."""
    reverb_prob: float = 0.0
    """Share of the utterances that sound in a room of 0.1 to 0.7 s."""
    microphone_prob: float = 0.0
    """Share of the utterances that another microphone hears: a tilt of up to 6 dB per octave between 250 and
    4000 Hz, on it ripples of up to 4 dB."""
    telephone_prob: float = 0.0
    """Share of the utterances that go through a telephone: 300 to 3400 Hz, 8 bits of mu-law."""

    def __post_init__(self) -> None:
        if self.speed is not None:
            low, high = self.speed
            if not 0.5 <= low <= high <= 2.0:
                raise ValueError(f"`speed` must be a range in [0.5, 2], but is {low:g} to {high:g}.")
        low, high = self.noise_snr_db
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"`noise_snr_db` must be a range of decibels, but is {low:g} to {high:g}.")
        for name in ("noise_prob", "reverb_prob", "microphone_prob", "telephone_prob"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`{name}` must lie in [0, 1], but is {value:g}.")

    def draw_speed(self, rng: np.random.Generator) -> float:
        """Draw the factor of a batch.

        Args:
            rng: Where the draw comes from.

        Returns:
            A factor of `speed`; 1 without.
        """
        return 1.0 if self.speed is None else float(rng.uniform(*self.speed))


def augment(waveform: Waveform, augmentation: Augmentation, rng: np.random.Generator) -> Waveform:
    """Lead an utterance through room, noise, microphone and telephone, each or none; no phone moves in time.

    Args:
        waveform: (S,) samples at 16 kHz.
        augmentation: What may happen how often; `speed` is left to `change_speed`.
        rng: Where every draw comes from.

    Returns:
        (S,) samples, which may exceed [-1, 1]; the argument itself where nothing happens.
    """
    is_reverberant, is_noisy, is_telephone = rng.random(3) < (
        augmentation.reverb_prob,
        augmentation.noise_prob,
        augmentation.telephone_prob,
    )
    if not waveform.size:
        return waveform
    if is_reverberant:
        decay, direct_db = rng.uniform(*_DECAY), rng.uniform(*_DIRECT_DB)
        waveform = add_reverb(waveform, decay=decay, direct_db=direct_db, sample_rate=SAMPLE_RATE, rng=rng)
    if is_noisy:
        snr_db = rng.uniform(*augmentation.noise_snr_db)
        waveform = add_noise(waveform, snr_db=snr_db, speech=slice(None), sample_rate=SAMPLE_RATE, rng=rng)
    # Drawn last, and only where it is asked for: older recipes keep their samples.
    if augmentation.microphone_prob and rng.random() < augmentation.microphone_prob:
        tilt_db = rng.uniform(-_TILT_DB, _TILT_DB)
        waveform = through_microphone(waveform, tilt_db, rng.uniform(-_RIPPLE_DB, _RIPPLE_DB, len(_BANDS)))
    return through_telephone(waveform) if is_telephone else waveform


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Let an utterance go by faster or slower, its pitch with it.

    Args:
        waveform: (S,) samples.
        factor: 1.1 is a tenth faster; times divide by it.

    Returns:
        (S / factor,) samples, rounded; the argument itself for a factor of 1.
    """
    if factor == 1.0 or not waveform.size:
        return waveform
    changed = soxr.resample(waveform, SAMPLE_RATE * factor, SAMPLE_RATE)
    # soxr rounds the length in its own way, and a batch shall not become longer than its plan.
    num_samples = max(math.floor(waveform.size / factor), 1)
    return np.pad(changed[:num_samples], (0, max(num_samples - len(changed), 0))).astype(np.float32)


def through_microphone(waveform: Waveform, tilt_db: float, ripple_db: npt.NDArray[np.float64]) -> Waveform:
    """Colour an utterance as another microphone would, without delay and at the power that it had.

    Args:
        waveform: (S,) samples at 16 kHz, at least one.
        tilt_db: How much louder each octave is than the one below it, between 250 and 4000 Hz.
        ripple_db: (7,) added at 125, 250, ..., 8000 Hz and, in proportion, between them (in octaves).

    Returns:
        (S,) samples.
    """
    size = 4096 * _smooth_at_least(-(-(waveform.size + round(2 * _RING * SAMPLE_RATE)) // 4096))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0))
    bands = np.log2(_BANDS)
    gain_db = np.interp(octaves, bands, tilt_db * np.clip(bands - bands[3], -2, 2) + ripple_db)
    coloured = np.fft.irfft(np.fft.rfft(waveform, size) * 10 ** (gain_db / 20), size)[: waveform.size]
    power = float(np.mean(np.square(coloured)))
    scale = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64))) / power) if power else 1.0
    return (coloured * scale).astype(np.float32)


def through_telephone(waveform: Waveform) -> Waveform:
    """Limit an utterance to the telephone band and quantise it with 8 bits of mu-law at 8 kHz.

    The filters have no delay, so phone times hold. The level is kept: the loudest sample uses the whole
    scale of the line.

    Args:
        waveform: (S,) samples at 16 kHz, at least one.

    Returns:
        (S,) samples at 16 kHz.
    """
    # Behind the end lies room for what the filter leaves ringing before the start and after the end.
    blocks = -(-(waveform.size + round(2 * _RING * SAMPLE_RATE)) // 4096)
    size = 4096 * _smooth_at_least(blocks)
    spectrum = np.fft.rfft(waveform, size)
    half = size * _TELEPHONE_RATE // SAMPLE_RATE
    frequencies = np.arange(half // 2 + 1) * (SAMPLE_RATE / size)
    low, high = _TELEPHONE_BAND
    distance = np.minimum(frequencies - low, high - frequencies)
    gain = np.clip(0.5 + distance / (2 * _BAND_EDGE), 0.0, 1.0).astype(np.float32)
    narrow = np.fft.irfft(spectrum[: half // 2 + 1] * gain, half).astype(np.float32)
    peak = float(np.abs(narrow).max())
    if peak == 0.0:
        return waveform
    wide = np.fft.irfft(np.fft.rfft(_mu_law(narrow / np.float32(peak))), size)
    return (wide[: waveform.size] * np.float32(peak)).astype(np.float32)


def _mu_law(samples: Waveform) -> Waveform:
    """Encode samples in [-1, 1] with 8 bits and decode them."""
    codes = np.rint(np.log1p(_MU * np.abs(samples)) * np.float32(127 / math.log1p(_MU))).astype(np.int64)
    return _MU_LAW_VALUES[codes] * np.sign(samples)


def _smooth_at_least(number: int) -> int:
    """The smallest product of 2, 3 and 5 that is not smaller: transforms of such sizes are fast."""
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


_MU_LAW_VALUES = (np.expm1(np.arange(128) / 127 * math.log1p(_MU)) / _MU).astype(np.float32)
