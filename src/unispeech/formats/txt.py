"""Transcript -> plain text: what was said, nothing else."""

from unispeech.results import Transcript


def to_txt(transcript: Transcript) -> str:
    """Give the text of a transcript as one line.

    Args:
        transcript: What a recording gave.

    Returns:
        Phones separated by spaces, or words for spelling models; no line end. Empty for silence.
    """
    return transcript.text
