"""Results -> files that people and other programs read."""

from collections.abc import Callable

from unispeech.formats.json import to_json
from unispeech.formats.txt import to_txt
from unispeech.results import Transcript

FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": to_txt, "json": to_json}
"""Name of a format, which is also the ending of its files -> what writes a transcript in it."""
