"""Results -> files that people and other programs read."""

from collections.abc import Callable

from unispeech.formats.ctm import to_ctm
from unispeech.formats.json import to_json
from unispeech.formats.srt import to_srt
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
}
"""Name of a format, which is also the ending of its files -> what writes a transcript in it."""
