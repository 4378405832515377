"""Numbers of 8 bits: levels for what comes to a product and for its weights.

Shapes in this file: C channels.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

QUIET = 0.1
"""Share of the frames, those with the least peaks, that count as silence."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How what comes to a place is rounded to 256 levels."""

    low: float
    """The first level."""
    high: float
    """The last level."""
    scale: Array | None = None
    """(C,) what each channel is divided by before, and its weights multiplied with; None: nothing."""
    shift: Array | None = None
    """(C,) what is then taken from each channel; None along with `scale`: nothing."""
    means: tuple[Array, Array] | None = None
    """(C,) means of the channels before, and after scale, shift and rounding. Products then take the levels
    from 0 on, which is faster than with a zero among the levels; what that and the rounding make them off by
    on average is taken from them. None: products take the levels as they are."""


def even_limits(low: float, high: float) -> Limits:
    """Limits around 0, which is a level.

    Args:
        low: Least value.
        high: Greatest value.

    Returns:
        The limits.
    """
    step = max(-low, high, 1e-6) / 127
    return Limits(low=-128 * step, high=127 * step)


def limits_of_tensor(low: float, high: float, mean: Array) -> Limits:
    """Limits for all channels together.

    Args:
        low: Least value.
        high: Greatest value.
        mean: (C,) of each channel.

    Returns:
        The limits.
    """
    return Limits(low=low, high=max(high, low + 1e-6), means=(mean, mean - low))


def limits_of_channels(values: Array) -> Limits:
    """Give each channel all 256 levels, one of which is its rest.

    A channel rests at what it is in silence. What is near that is small beside loud frames; were the rest
    between two levels, all of it would be off to one side, and the norm behind makes it loud again.

    Args:
        values: (T, C) what was seen.

    Returns:
        The limits.
    """
    peaks = np.abs(values).max(axis=1)
    rest = values[peaks <= np.quantile(peaks, QUIET)].mean(axis=0)
    low, high = np.minimum(values.min(axis=0), rest - 1e-4), np.maximum(values.max(axis=0), rest + 1e-4)
    below = np.clip(np.ceil(255 * (rest - low) / (high - low)), 1, 254)
    steps = np.maximum((rest - low) / below, (high - rest) / (255 - below))
    step = float(steps.mean())
    scale = steps / step
    limits = Limits(low=0.0, high=255 * step, scale=scale, shift=(rest - below * steps) / scale)
    return replace(limits, means=(values.mean(axis=0), rounded(values, limits).mean(axis=0)))


def narrowed(weight: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Round a weight to 255 levels around 0, for each of its first axis by itself.

    Args:
        weight: Any shape.

    Returns:
        The levels, and the size of a step in a shape that broadcasts.
    """
    peak = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = (np.maximum(peak, 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def rounded(values: Array, limits: Limits) -> Array:
    """Do to values what a graph does to what comes to a narrow place.

    Args:
        values: (..., C).
        limits: Of the place.

    Returns:
        What the product takes.
    """
    if limits.scale is not None and limits.shift is not None:
        values = values / limits.scale - limits.shift
    step = (limits.high - limits.low) / 255
    first = limits.low if limits.means is None else 0.0
    levels: Array = np.clip(np.rint((values - limits.low) / step), 0, 255)
    return (levels * step + first).astype(np.float32)
