"""Transcript -> cues: what a player of subtitles shows at once."""

from bisect import bisect_right
from dataclasses import dataclass

from unispeech.formats.spans import Span, coarsest, lay_out
from unispeech.frames import Seconds
from unispeech.pipelines.segments import gap_between, split_at_pauses
from unispeech.results import Transcript

MAX_SECONDS: Seconds = 6.0
"""Most seconds of a cue, so that it can be read while it is heard."""
MAX_CHARACTERS = 84
"""Most characters of a cue: two lines of 42, as subtitlers count."""


@dataclass(frozen=True, kw_only=True)
class Cue:
    """A text that is shown for a while."""

    start_ms: int
    """Milliseconds from the start of the recording, at least 0."""
    end_ms: int
    """Behind `start_ms`, and not behind the start of the next cue."""
    text: str
    """One line, not empty, with single spaces."""


def cues(transcript: Transcript) -> list[Cue]:
    """Split a transcript into cues.

    A cue holds words where the vocabulary has word boundaries, else phones with spaces between them, else
    (spelling models without boundaries) characters. It ends with its segment, and before it would last over
    6 s or be longer than 84 characters; words and phones are never split. A transcript without segments is
    parted as `split_at_pauses` does.

    Args:
        transcript: What a recording gave.

    Returns:
        Cues in the order of time, apart from each other; none for silence.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    gap = gap_between(transcript)
    starts = [segment.start for segment in transcript.segments or split_at_pauses(transcript)]
    groups: list[Span] = []
    last_place = -1
    for span in coarsest(transcript):
        place = bisect_right(starts, (span.start + span.end) / 2)
        span = span._replace(label=" ".join(span.label.split()))
        if not span.label:
            continue
        longer = f"{groups[-1].label}{gap}{span.label}" if groups else ""
        is_short = len(longer) <= MAX_CHARACTERS
        if place == last_place and is_short and _is_brief(groups[-1], span):
            groups[-1] = groups[-1]._replace(label=longer, end=max(groups[-1].end, span.end))
        else:
            groups.append(span)
        last_place = place
    times = lay_out(groups, ticks_per_second=1000, duration=transcript.duration)
    return [
        Cue(start_ms=start, end_ms=end, text=group.label)
        for group, (start, end) in zip(groups, times, strict=True)
    ]


def clock(milliseconds: int, *, point: str) -> str:
    """Write a time as players read it.

    Args:
        milliseconds: From the start of the recording, at least 0.
        point: What stands before the milliseconds.

    Returns:
        Such as 01:02:03,004; hours have more than two digits where they need them.
    """
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _is_brief(group: Span, span: Span) -> bool:
    """Whether a cue may go on to the end of a span."""
    return round(span.end - group.start, 6) <= MAX_SECONDS
