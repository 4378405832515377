"""Which places of a recogniser are narrowed to 8 bits, and within which limits: what some speech shows.

With group norm, convolutions follow one another without a norm between them. Their channels differ by an
order of magnitude, and loud frames from quiet ones by two: each channel is scaled and shifted to levels of
its own, and the weights and the bias behind take that back.

Shapes in this file: B batch, T frames, C channels, N vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

import numpy as np
import soundfile

from unispeech.audio import Waveform, normalise_waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.graph_engine import Feed, GraphEngine
from unispeech.engines.narrowing import Array, Limits, even_limits, limits_of_channels, limits_of_tensor
from unispeech.frames import num_frames

WIDE_PLACES = frozenset({"head"})
"""Places that stay wide: narrowing them gains no time."""

EVEN_PLACES = ("position", ".query", ".key")
"""How places end where 0 has to be a level: padding adds zeros, or no weights follow."""

MOST_LOST = 0.003
"""Kullback-Leibler divergence, in nats a frame, from what the carried speech gives with all places wide. It
says more than the share of frames that name another symbol, which are a handful."""

NUM_SENTENCES = 6
"""In the carried speech, all of one length."""

Seen = Mapping[str, Array]
"""Name of each place -> what comes to it, (B, T, C)."""

Look = Callable[[Feed], Seen]
"""Inputs of a graph -> what comes to its places."""


def speech() -> list[Waveform]:
    """Read the speech that is carried for this: sentences that espeak-ng spoke.

    Returns:
        (S_i,) samples at 16 kHz of each, of zero mean and unit variance.
    """
    with (files("unispeech.engines") / "speech.ogg").open("rb") as stream:
        samples, _ = soundfile.read(stream, dtype="float32")
    return [normalise_waveform(part) for part in np.array_split(samples, NUM_SENTENCES)]


def find_narrow(
    open: Callable[[Mapping[str, Limits]], GraphEngine],
    look: Look,
    *,
    is_uneven: bool,
    has_even: bool = True,
) -> dict[str, Limits]:
    """Find the places that can be narrowed without losing more than `MOST_LOST` on the carried speech.

    Args:
        open: Opens the engine with some places narrowed, or none.
        look: Shows what comes to the places of the engine without narrow ones.
        is_uneven: As for `find_limits`.
        has_even: Whether the engine narrows places of which 0 must be a level.

    Returns:
        Name of each place that is to be narrowed -> its limits.
    """
    exact, sentences = open({}), speech()
    limits = find_limits(see_places(exact, sentences, look), is_uneven=is_uneven)
    if not has_even:
        limits = {place: found for place, found in limits.items() if found.means is not None}
    return choose_narrow(limits, lambda found: open(found).log_probs(sentences), exact.log_probs(sentences))


def see_places(engine: GraphEngine, sentences: Iterable[Waveform], look: Look) -> Iterator[Seen]:
    """Run sentences and look at what comes to the places that can be narrowed.

    Args:
        engine: An engine without narrow places, which knows how it is fed.
        sentences: (S_i,) samples of each.
        look: Runs the recogniser of that engine.

    Yields:
        What came to the places, for a sentence.
    """
    for sentence in sentences:
        yield look(engine.feed(sentence, num_frames(len(sentence), engine.kernels, engine.strides)))


def find_limits(passes: Iterable[Seen], *, is_uneven: bool) -> dict[str, Limits]:
    """Find within which limits each place could be narrowed.

    Args:
        passes: What came to the places in some passes without narrowing.
        is_uneven: Whether the convolutions have no norm between them.

    Returns:
        Name of each place that can be narrowed -> its limits.
    """
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    sums: dict[str, Array] = {}
    num_frames: dict[str, int] = {}
    convolved: dict[str, list[Array]] = {}
    for seen in passes:
        for place, values in seen.items():
            rows = values.reshape(-1, values.shape[-1])
            if is_uneven and place.startswith("conv."):
                convolved.setdefault(place, []).append(rows)
            elif place not in WIDE_PLACES:
                lows[place] = min(lows.get(place, np.inf), float(rows.min()))
                highs[place] = max(highs.get(place, -np.inf), float(rows.max()))
                sums[place] = sums.get(place, 0) + rows.sum(axis=0)
                num_frames[place] = num_frames.get(place, 0) + len(rows)
    found = {}
    for place, low in lows.items():
        if place.endswith(EVEN_PLACES):
            found[place] = even_limits(low, highs[place])
        else:
            mean = (sums[place] / num_frames[place]).astype(np.float32)
            found[place] = limits_of_tensor(low, highs[place], mean)
    while convolved:
        place, parts = convolved.popitem()
        found[place] = limits_of_channels(np.concatenate(parts))
    return dict(sorted(found.items()))


def choose_narrow(
    limits: Mapping[str, Limits],
    run: Callable[[Mapping[str, Limits]], Sequence[LogProbs]],
    expected: Sequence[LogProbs],
) -> dict[str, Limits]:
    """Widen what hurts most, until at most `MOST_LOST` is lost on the carried speech.

    Only places before the Transformer are widened, each of which is tried alone to see how much it hurts.

    Args:
        limits: Of all places that can be narrowed.
        run: Runs the carried speech with some places narrowed.
        expected: (T_i, N) of each sentence, with all places wide.

    Returns:
        The limits of the places that are narrowed.
    """
    exact = np.concatenate(expected)

    def lost(found: Mapping[str, Limits]) -> float:
        divergence = np.exp(exact) * (exact - np.concatenate(run(found)))
        return float(divergence.sum(axis=1).mean())

    found = dict(limits)
    if lost(found) <= MOST_LOST:
        return found
    outer = [place for place in limits if not place.startswith("encoder.layers.")]
    for place in sorted(outer, key=lambda place: lost({place: limits[place]}), reverse=True):
        del found[place]
        if lost(found) <= MOST_LOST:
            break
    return found
