"""Numbers of 8 bits: levels for what comes to a product and for its weights.

Shapes in this file: C channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How what comes to a place is rounded to 256 levels."""

    low: float
    """The first level."""
    high: float
    """The last level."""
    scale: Array | None = None
    """(C,) what each channel is divided by before, and its weights multiplied with; None: nothing."""
    means: tuple[Array, Array] | None = None
    """(C,) means of the channels before, and after division and rounding: what products are off by on average
    is taken from them; None: nothing."""


def limits_of(low: float, high: float, scale: Array | None = None) -> Limits:
    """Widen what was seen until 0 is one of the 256 levels.

    Args:
        low: Least value.
        high: Greatest value.
        scale: As for `Limits`; the values are those behind it.

    Returns:
        The limits.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    below = round(-255 * low / max(high - low, 1e-6))
    # The side that the rounding of 0 would cut gets a wider step, and the other goes along.
    step = max(-low / below if below else 0.0, high / (255 - below) if below < 255 else 0.0, 1e-9)
    return Limits(low=-below * step, high=(255 - below) * step, scale=scale)


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
    step = (limits.high - limits.low) / 255
    scaled = values if limits.scale is None else values / limits.scale
    levels: Array = np.clip(np.rint(scaled / step), round(limits.low / step), round(limits.high / step))
    return levels * np.float32(step)
