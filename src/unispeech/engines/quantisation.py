"""Which places of a recogniser are narrowed to 8 bits, and within which limits: what some speech shows.

With group norm, convolutions follow one another without a norm between them, and their channels differ by an
order of magnitude: each channel is scaled to the same peak first, in the pass that rounds it, and the weights
behind take the scale back.
"""

from collections.abc import Iterable, Mapping
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import soundfile

from unispeech.audio import Waveform, normalise_waveform
from unispeech.engines.network import Limits, limits_of

WIDE_PLACES = frozenset({"position", "head"})
"""Places that stay wide: narrowing them gains no time."""

NUM_SENTENCES = 6
"""In the carried speech, all of one length."""

Seen = Mapping[str, npt.NDArray[np.float32]]
"""Name of each place -> what comes to it: (B, C, T) at convolutions, (B, T, C) elsewhere."""


def speech() -> list[Waveform]:
    """Read the speech that is carried for this: sentences that espeak-ng spoke.

    Returns:
        (S_i,) samples at 16 kHz of each, of zero mean and unit variance.
    """
    with (files("unispeech.engines") / "speech.ogg").open("rb") as stream:
        samples, _ = soundfile.read(stream, dtype="float32")
    return [normalise_waveform(part) for part in np.array_split(samples, NUM_SENTENCES)]


def find_limits(passes: Iterable[Seen], *, is_uneven: bool) -> dict[str, Limits]:
    """Find what is narrowed.

    Args:
        passes: What came to the places in some passes without narrowing.
        is_uneven: Whether the convolutions have no norm between them.

    Returns:
        Name of each place that is narrowed -> its limits.
    """
    lows: dict[str, npt.NDArray[np.float32]] = {}
    highs: dict[str, npt.NDArray[np.float32]] = {}
    for seen in passes:
        for place, values in seen.items():
            axes = (0, 2) if place.startswith("conv.") and is_uneven else None
            low, high = values.min(axis=axes), values.max(axis=axes)
            lows[place] = np.minimum(low, lows.get(place, low))
            highs[place] = np.maximum(high, highs.get(place, high))
    found = {}
    for place in lows.keys() - WIDE_PLACES:
        low, high, scale = lows[place], highs[place], None
        if low.ndim:
            peak = np.maximum(np.maximum(-low, high), 1e-3)
            scale = peak / peak.mean()
            low, high = low / scale, high / scale
        found[place] = limits_of(float(low.min()), float(high.max()), scale)
    return found
