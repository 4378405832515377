"""What a corpus says of its utterances, before anything is checked, and the lines in which it says so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unispeech.errors import ManifestError
from unispeech.frames import Seconds

PARTS = ("train", "dev", "test", "valid", "validation", "validated", "invalidated", "other")
"""Names of folders and files that are parts of a corpus, not speakers or labels."""

UNKNOWN_LANGUAGE = "und"
"""BCP 47's tag for an undetermined language, under which reports count utterances without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What a corpus says of one stretch of speech; nothing here has been checked against the audio."""

    id: str
    """Name of the utterance, meant to be unique in the corpus."""
    audio: Path
    """The recording, absolute or relative to the working directory."""
    source: str
    """Where this is written: `path:line`, or the path of an audio file in a folder."""
    start: Seconds = 0.0
    """Where the utterance begins in the recording, at least 0."""
    duration: Seconds | None = None
    """Its stated length, positive; None where the corpus states none."""
    is_segment: bool = False
    """Whether `start` and `duration` cut it out of the recording (None: to the end). Else it is the whole
    recording, and `duration` is only what the corpus believes."""
    text: str | None = None
    """Orthography."""
    phones: str | tuple[str, ...] | None = None
    """Phones in the corpus's own form: a string, or one string per word."""
    is_separated: bool = False
    """Whether the corpus is known to part its phones by spaces, so that a lone token is one phone."""
    label: str | None = None
    """Keyword or class."""
    language: str | None = None
    """Language tag as the corpus writes it."""
    speaker: str | None = None
    """Name of the speaker."""
    part: str | None = None
    """Part of the corpus, such as train or dev."""
    alignment: Mapping[str, list[list[object]]] = field(default_factory=dict)
    """Where times are known: tier -> symbol, start, duration and score of each stretch, as lhotse writes
    them."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """Every field of the line under the corpus's own names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line of a corpus that gives no utterance."""

    id: str
    """Name of the utterance as far as it is known, else the empty string."""
    source: str
    """Where it is written: `path:line`."""
    reason: Literal["bad-line", "no-recording", "no-segment"]
    """The kind of fault: a line that cannot be read, a transcript that lies about without a recording, a
    recording of which no segment is used."""
    detail: str
    """The fault in words, without the source."""


Item = Utterance | BadLine
"""What a reader gives for a line."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a text file line by line.

    Args:
        path: The file, in UTF-8 with or without a byte order mark.

    Yields:
        Line numbers from 1 and lines without their ends.

    Raises:
        ManifestError: If a line is not UTF-8.
    """
    # Lines are decoded one by one, so that a wrong byte has a line number, and they end at line feeds only:
    # a carriage return inside a transcript must not shift the numbers.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ManifestError(
                    f"{path}:{number}: text must be UTF-8, but is not ({error.reason})."
                ) from None
            yield number, text.rstrip("\r\n")
