"""Transcript -> tiers of labelled spans, and their times in the whole ticks that a format can hold.

Formats with milliseconds, or with intervals that may neither overlap nor be empty, get their times through
`lay_out`, so that all of them treat rounding the same way.
"""

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from unispeech.frames import Seconds
from unispeech.results import Transcript

REPLACEMENT = "\ufffd"
"""Stands for a character that would end a line or that XML cannot hold."""


class Span(NamedTuple):
    """A word or a phone with its time."""

    label: str
    """One line of text, maybe empty."""
    start: Seconds
    """At least 0."""
    end: Seconds
    """At least `start`."""
    score: float
    """In [0, 1]."""


def tiers(transcript: Transcript) -> dict[str, list[Span]]:
    """Give what was recognised level by level, fit to be written.

    Args:
        transcript: What a recording gave.

    Returns:
        `words` where the vocabulary has word boundaries, then `phones` -> spans in the order of time. Starts
        are at least 0, ends at least the starts.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    levels: dict[str, list[Span]] = {}
    if transcript.words is not None:
        levels["words"] = [_span(word.word, word.start, word.end, word.score) for word in transcript.words]
    levels["phones"] = [
        _span(phone.phone, phone.start, phone.end, phone.score) for phone in transcript.phones
    ]
    return levels


def coarsest(transcript: Transcript) -> list[Span]:
    """Give the words where there are any, else the phones; for formats with one level.

    Args:
        transcript: What a recording gave.
    """
    return next(iter(tiers(transcript).values()))


def lay_out(spans: Sequence[Span], *, ticks_per_second: int, duration: Seconds) -> list[tuple[int, int]]:
    """Round times to ticks such that each span lasts at least one and begins when the one before has ended.

    A span that is empty, or that rounding makes empty, becomes one tick long. Where it has no room it moves
    those behind it, and at the end of the recording those before it, by as many ticks as are needed. Spans
    apart from each other are only rounded.

    Args:
        spans: In the order of time.
        ticks_per_second: Resolution: 1000 for milliseconds.
        duration: Length of the recording. Spans keep within it as long as it has ticks enough for them.

    Returns:
        Start and end of each in ticks: ascending, disjoint, never empty, never negative.
    """
    ticks: list[tuple[int, int]] = []
    free = 0
    for span in spans:
        first = max(round(span.start * ticks_per_second), free)
        free = max(round(span.end * ticks_per_second), first + 1)
        ticks.append((first, free))
    limit = max(round(duration * ticks_per_second), len(ticks))
    for i in reversed(range(len(ticks))):
        start, end = ticks[i]
        if end <= limit:
            break
        ticks[i] = (min(start, limit - 1), limit)
        limit = ticks[i][0]
    return ticks


def clean(label: str) -> str:
    """Put a replacement character where one stands that a line of text or XML cannot hold.

    Args:
        label: A phone, a word or a name.

    Returns:
        The label without control characters, line and paragraph separators, lone surrogates and
        noncharacters; the rest as it is.
    """
    return "".join(REPLACEMENT if _is_unwritable(character) else character for character in label)


def _span(label: str, start: Seconds, end: Seconds, score: float) -> Span:
    if not all(map(math.isfinite, (start, end, score))):
        raise ValueError(
            f"`transcript` must have finite times and scores, but {label!r} has {start} to {end}, {score}."
        )
    start = max(start, 0.0)
    return Span(clean(label), start, max(end, start), score)


def _is_unwritable(character: str) -> bool:
    is_separator = unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
    return is_separator or (ord(character) & 0xFFFE) == 0xFFFE
