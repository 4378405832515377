"""Results -> files that people and other programs read."""

from collections.abc import Callable

from unispeech.formats.ctm import to_ctm
from unispeech.formats.eaf import to_eaf
from unispeech.formats.json import to_json
from unispeech.formats.srt import to_srt
from unispeech.formats.textgrid import to_short_textgrid, to_textgrid
from unispeech.formats.tsv import to_tsv
from unispeech.formats.txt import to_txt
from unispeech.formats.vtt import to_vtt
from unispeech.results import Transcript

FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": to_txt,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "ctm": to_ctm,
    "tsv": to_tsv,
    "TextGrid": to_textgrid,
    "short-TextGrid": to_short_textgrid,
    "eaf": to_eaf,
}
"""Name of a format -> what writes a transcript in it, without a line end."""


def ending(format: str) -> str:
    """Give the ending of the files of a format.

    Args:
        format: One of `FORMATS`.

    Returns:
        The ending without a full stop: the name of the format itself, but for the short TextGrid.
    """
    return "TextGrid" if format == "short-TextGrid" else format
