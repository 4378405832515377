"""Which places of a recogniser are narrowed to 8 bits, and within which limits: what some speech shows.

With group norm, convolutions follow one another without a norm between them, and their channels differ by an
order of magnitude: each channel is scaled to the same peak first, and the weights behind take the scale back.

Shapes in this file: B batch, T frames, C channels, N vocabulary.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files

import numpy as np
import soundfile

from unispeech.audio import Waveform, normalise_waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.narrowing import Array, Limits, limits_of, rounded

WIDE_PLACES = frozenset({"head"})
"""Places that stay wide: narrowing them gains no time."""

MOST_CHANGED = 0.01
"""Share of the frames of the carried speech that may name another symbol."""

NUM_SENTENCES = 6
"""In the carried speech, all of one length."""

Seen = Mapping[str, Array]
"""Name of each place -> what comes to it, (B, T, C)."""


def speech() -> list[Waveform]:
    """Read the speech that is carried for this: sentences that espeak-ng spoke.

    Returns:
        (S_i,) samples at 16 kHz of each, of zero mean and unit variance.
    """
    with (files("unispeech.engines") / "speech.ogg").open("rb") as stream:
        samples, _ = soundfile.read(stream, dtype="float32")
    return [normalise_waveform(part) for part in np.array_split(samples, NUM_SENTENCES)]


def find_limits(passes: Iterable[Seen], *, is_uneven: bool) -> dict[str, Limits]:
    """Find within which limits each place could be narrowed.

    Args:
        passes: What came to the places in some passes without narrowing.
        is_uneven: Whether the convolutions have no norm between them.

    Returns:
        Name of each place that can be narrowed -> its limits.
    """
    lows: dict[str, Array] = {}
    highs: dict[str, Array] = {}
    convolved: dict[str, list[Array]] = {}
    for seen in passes:
        for place, values in seen.items():
            is_conv = place.startswith("conv.")
            axes = (0, 1) if is_conv and is_uneven else None
            low, high = values.min(axis=axes), values.max(axis=axes)
            lows[place] = np.minimum(low, lows.get(place, low))
            highs[place] = np.maximum(high, highs.get(place, high))
            if is_conv:
                convolved.setdefault(place, []).append(values.reshape(-1, values.shape[-1]))
    found = {}
    for place in sorted(lows.keys() - WIDE_PLACES):
        low, high, scale = lows[place], highs[place], None
        if low.ndim:
            peak = np.maximum(np.maximum(-low, high), 1e-3)
            scale = peak / peak.mean()
            low, high = low / scale, high / scale
        found[place] = limits_of(float(low.min()), float(high.max()), scale)
        if place in convolved:
            values = np.concatenate(convolved.pop(place))
            means = values.mean(axis=0), rounded(values, found[place]).mean(axis=0)
            found[place] = replace(found[place], means=means)
    return found


def choose_narrow(
    limits: Mapping[str, Limits],
    run: Callable[[Mapping[str, Limits]], Sequence[LogProbs]],
    expected: Sequence[LogProbs],
) -> dict[str, Limits]:
    """Widen what hurts most, until at most `MOST_CHANGED` of the frames name another symbol.

    Only places before the Transformer are widened, each of which is tried alone to see how much it hurts.

    Args:
        limits: Of all places that can be narrowed.
        run: Runs the carried speech with some places narrowed.
        expected: (T_i, N) of each sentence, with all places wide.

    Returns:
        The limits of the places that are narrowed.
    """
    exact = np.concatenate(expected)

    def is_close(found: Mapping[str, Limits]) -> bool:
        names = np.concatenate(run(found)).argmax(axis=1)
        return bool((names != exact.argmax(axis=1)).mean() <= MOST_CHANGED)

    def error(place: str) -> float:
        return float(np.square(np.concatenate(run({place: limits[place]})) - exact).mean())

    found = dict(limits)
    if is_close(found):
        return found
    outer = [place for place in limits if not place.startswith("encoder.layers.")]
    for place in sorted(outer, key=error, reverse=True):
        del found[place]
        if is_close(found):
            break
    return found
