"""A transcript -> its segments: stretches between silences, or those that somebody marked."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from unispeech.frames import Seconds
from unispeech.results import Phone, Segment, Transcript, Word

MAX_PAUSE: Seconds = 0.3
"""Longest silence within a segment: more than the closure of a stop, less than a pause."""

Bounds = Sequence[tuple[Seconds, Seconds]]
"""Start and end of stretches, in the order of time and without overlap."""

Unit = TypeVar("Unit", Phone, Word)


def split_at_pauses(transcript: Transcript, max_pause: Seconds = MAX_PAUSE) -> list[Segment]:
    """Part a transcript where there is silence between two words, or phones where there are no words.

    Args:
        transcript: What a recording gave.
        max_pause: Longest silence within a segment.

    Returns:
        Segments in the order of time; none for silence.
    """
    bounds: list[tuple[Seconds, Seconds]] = []
    for unit in transcript.phones if transcript.words is None else transcript.words:
        # Rounded, so that a pause of just so much is none whatever its times add up to.
        if bounds and round(unit.start - bounds[-1][1], 6) <= max_pause:
            bounds[-1] = (bounds[-1][0], unit.end)
        else:
            bounds.append((unit.start, unit.end))
    return _keep_within(transcript, bounds).segments


def keep_within(transcript: Transcript, bounds: Bounds) -> Transcript:
    """Leave of a transcript what lies within marked stretches, which become its segments.

    What has its middle in a stretch belongs to it, and is cut off at its ends.

    Args:
        transcript: What a recording gave.
        bounds: The stretches.

    Returns:
        The transcript with text, phones, words and segments of the stretches alone; a stretch in which
        nothing was heard is no segment. `nbest` is left as it is, about the whole.

    Raises:
        ValueError: If a stretch begins behind the end of the recording.
    """
    if bounds and bounds[-1][0] >= transcript.duration:
        raise ValueError(
            f"{transcript.audio or '`bounds`'}: segments must begin within the recording "
            f"({transcript.duration:.2f} s), but one begins at {bounds[-1][0]:.2f} s; check that the two "
            "belong together."
        )
    return _keep_within(transcript, bounds)


def gap_between(transcript: Transcript) -> str:
    """What stands between two words, or two symbols where there are no words.

    Args:
        transcript: What a recording gave.

    Returns:
        A space; nothing for a spelling model without word boundaries.
    """
    if transcript.words is not None:
        return " "
    joined = "".join(phone.phone for phone in transcript.phones)
    return "" if joined == transcript.text else " "


def _keep_within(transcript: Transcript, bounds: Bounds) -> Transcript:
    phones = _placed(transcript.phones, bounds)
    words = None if transcript.words is None else _placed(transcript.words, bounds)
    # Phones are separated by spaces even where a model writes words; characters stand as words.
    is_spelled = words is not None and transcript.text == " ".join(w.word for w in transcript.words or [])
    gap = gap_between(transcript)
    spelled = {place: " ".join(w.word for w in group) for place, group in _grouped(words or [])}
    segments = []
    for place, group in _grouped(phones):
        text = spelled.get(place, "") if is_spelled else gap.join(phone.phone for phone in group)
        score = sum(phone.score for phone in group) / len(group)
        segments.append(Segment(start=bounds[place][0], end=bounds[place][1], text=text, score=score))
    return replace(
        transcript,
        text=(" " if is_spelled else gap).join(segment.text for segment in segments if segment.text),
        phones=[phone for _, phone in phones],
        words=None if words is None else [word for _, word in words],
        segments=segments,
    )


def _placed(units: Sequence[Unit], bounds: Bounds) -> list[tuple[int, Unit]]:
    """Each unit within a stretch, with the number of the stretch."""
    starts = [start for start, _ in bounds]
    placed = []
    for unit in units:
        middle = (unit.start + unit.end) / 2
        place = bisect_right(starts, middle) - 1
        if place >= 0 and middle <= bounds[place][1]:
            start, end = bounds[place]
            placed.append((place, replace(unit, start=max(unit.start, start), end=min(unit.end, end))))
    return placed


def _grouped(placed: Sequence[tuple[int, Unit]]) -> list[tuple[int, list[Unit]]]:
    """The units of each stretch that has any."""
    return [
        (place, [unit for _, unit in pairs]) for place, pairs in groupby(placed, key=lambda pair: pair[0])
    ]
