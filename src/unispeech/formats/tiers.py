"""Labels of a tier of intervals: how wide they are and where there is room for them."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

EM_PER_LETTER = 0.82
"""Width of a letter, and of the gap behind it, in units of the font size; IPA in DejaVu Sans."""
EM_IN_TEXT = 0.6
"""The same of a letter from the seventh on: words and sentences have narrow letters too."""


def label_width(label: str) -> float:
    """Estimate the width of a label with a gap.

    Args:
        label: A phone in IPA, or any text. Combining marks stand over or under a letter and take no room.

    Returns:
        Width in units of the font size; at least one letter's.
    """
    letters = sum(not unicodedata.combining(character) for character in label)
    return EM_PER_LETTER * max(min(letters, 6), 1) + EM_IN_TEXT * max(letters - 6, 0)


def spread(centres: Sequence[float], widths: Sequence[float], *, low: float, high: float) -> list[float]:
    """Move labels apart so that none overlaps the next, as little as possible in the square.

    Args:
        centres: Where the labels would like to be, ascending.
        widths: Room that each label takes, in the unit of `centres`.
        low: Left end of the room for all.
        high: Right end of the room for all. Labels that are too many for the room run over it.

    Returns:
        The centre of each label, ascending. A label with room stays where it would like to be.

    Source:
        Least squares under an order is isotonic regression; solved by pooling neighbours that violate it.
    """
    if not centres:
        return []
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2)
    # With the offsets taken off, "no overlap" reads "not descending".
    pools: list[tuple[float, int]] = []
    for centre, offset in zip(centres, offsets, strict=True):
        mean, count = centre - offset, 1
        while pools and pools[-1][0] > mean:
            before, before_count = pools.pop()
            mean = (mean * count + before * before_count) / (count + before_count)
            count += before_count
        pools.append((mean, count))
    first, last = low + widths[0] / 2, high - widths[-1] / 2 - offsets[-1]
    places = [min(max(mean, first), max(last, first)) for mean, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]
