"""Transcript -> cues: what a player of subtitles shows at once."""

from dataclasses import dataclass

from unispeech.formats.spans import Span, coarsest, lay_out
from unispeech.frames import Seconds
from unispeech.results import Transcript

MAX_PAUSE: Seconds = 0.3
"""A longer silence between two words or phones begins a new cue."""
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
    (spelling models without boundaries) characters. It ends before a pause of more than 0.3 s, and before it
    would last over 6 s or be longer than 84 characters; words and phones are never split.

    Args:
        transcript: What a recording gave.

    Returns:
        Cues in the order of time, apart from each other; none for silence.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    gap = _gap(transcript)
    groups: list[Span] = []
    for span in coarsest(transcript):
        span = span._replace(label=" ".join(span.label.split()))
        if not span.label:
            continue
        longer = f"{groups[-1].label}{gap}{span.label}" if groups else ""
        if groups and _is_near(groups[-1], span) and len(longer) <= MAX_CHARACTERS:
            groups[-1] = groups[-1]._replace(label=longer, end=max(groups[-1].end, span.end))
        else:
            groups.append(span)
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


def _is_near(group: Span, span: Span) -> bool:
    """Whether a span may join the cue before it, for all that time says."""
    pause, length = round(span.start - group.end, 6), round(span.end - group.start, 6)
    return pause <= MAX_PAUSE and length <= MAX_SECONDS


def _gap(transcript: Transcript) -> str:
    """What stands between two units: nothing in the text of a spelling model without word boundaries."""
    if transcript.words is not None:
        return " "
    joined = "".join(phone.phone for phone in transcript.phones)
    return "" if joined == transcript.text else " "
