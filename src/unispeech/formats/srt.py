"""Transcript -> SubRip subtitles."""

from unispeech.formats.subtitles import clock, cues
from unispeech.results import Transcript


def to_srt(transcript: Transcript) -> str:
    """Write a transcript as SubRip subtitles, cut as `subtitles.cues` says.

    SubRip has no escapes: a symbol such as `<` stands as it is, and a player may take `<i>` for italics.

    Args:
        transcript: What a recording gave.

    Returns:
        Numbered cues with an empty line between two; no line end. Empty for silence.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    return "\n\n".join(
        f"{number}\n{clock(cue.start_ms, point=',')} --> {clock(cue.end_ms, point=',')}\n{cue.text}"
        for number, cue in enumerate(cues(transcript), start=1)
    )
