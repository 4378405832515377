"""Transcript -> WebVTT subtitles."""

from html import escape

from unispeech.formats.subtitles import clock, cues
from unispeech.results import Transcript


def to_vtt(transcript: Transcript) -> str:
    """Write a transcript as WebVTT subtitles, cut as `subtitles.cues` says.

    Args:
        transcript: What a recording gave.

    Returns:
        `WEBVTT` and cues, an empty line before each; no line end. `&`, `<` and `>` are entities, so that no
        symbol is taken for markup.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    blocks = ["WEBVTT"]
    for cue in cues(transcript):
        times = f"{clock(cue.start_ms, point='.')} --> {clock(cue.end_ms, point='.')}"
        blocks.append(f"{times}\n{escape(cue.text, quote=False)}")
    return "\n\n".join(blocks)
