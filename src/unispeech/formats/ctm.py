"""Transcript -> CTM: one word or phone a line, for NIST's and Kaldi's scoring."""

from pathlib import Path

from unispeech.formats.spans import clean, coarsest
from unispeech.results import Transcript

CHANNEL = "1"
"""Recordings are mixed to one channel."""


def to_ctm(transcript: Transcript) -> str:
    """Write a transcript as lines of recording, channel, start, duration, symbol and score.

    Symbols are the words where the vocabulary has word boundaries, else the phones. The recording is the
    name of its file without the ending. White space in a name or a symbol becomes `_`, and so does what is
    empty: fields are told apart by spaces.

    Args:
        transcript: What a recording gave.

    Returns:
        Lines in the order of time, seconds to three decimals, scores to four; no line end. Empty for silence.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    name = _field(clean(Path(transcript.audio).stem))
    if name.startswith(";;"):  # a comment
        name = "__" + name[2:]
    lines = []
    for symbol, start, end, score in coarsest(transcript):
        start_ms = round(start * 1000)
        duration_ms = round(end * 1000) - start_ms
        lines.append(
            f"{name} {CHANNEL} {start_ms / 1000:.3f} {duration_ms / 1000:.3f} {_field(symbol)} {score:.4f}"
        )
    return "\n".join(lines)


def _field(text: str) -> str:
    return "".join("_" if character.isspace() else character for character in text) or "_"
