"""Praat TextGrid -> tiers: the long form and the short one, in UTF-8 and UTF-16.

Praat reads a text file as a stream of numbers, quoted texts and <flags> that stand free, and passes over
everything else, so that the two forms, and what other programs write, are one.

Source:
    The Praat manual, "TextGrid file formats".
"""

import math
import re
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

from unispeech.errors import ManifestError
from unispeech.formats.textgrid import Interval, IntervalTier, Point, PointTier, TextGrid

TOKEN = re.compile(r'"(?P<text>(?:[^"]|"")*)"|![^\n]*|(?P<word>[^\s"]+)|(?P<open>")')
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
TOLERANCE = 1e-6
"""Seconds by which an interval may begin before the end of the one before: rounding of other programs."""


class Token(NamedTuple):
    """A value in the file."""

    value: str | float
    """A text, or a number; a flag is a text with its angle brackets."""
    kind: str
    """number, text or flag."""
    line: int
    """Where it starts, from 1."""


def read_textgrid(path: str | Path) -> TextGrid:
    """Read a TextGrid from a file.

    Args:
        path: A text file of Praat's, long or short; UTF-8, or UTF-16 of either byte order.

    Returns:
        Its tiers; numbers and labels as they are in the file.

    Raises:
        OSError: If the file cannot be opened.
        ManifestError: If it is not a TextGrid, is in another encoding, ends in the middle, or has intervals
            that overlap or end before they start; with the line.
    """
    return parse_textgrid(_decode(Path(path).read_bytes(), str(path)), name=str(path))


def parse_textgrid(text: str, *, name: str = "TextGrid") -> TextGrid:
    """Read a TextGrid from a text.

    Args:
        text: The content of a file, long or short.
        name: What messages call it.

    Returns:
        Its tiers.

    Raises:
        ManifestError: As for `read_textgrid`.
    """
    return _Parser(text.replace("\r\n", "\n").replace("\r", "\n"), name).textgrid()


class _Parser:
    """Takes value after value from the text."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._num_lines = len(self._ends) + 1
        self._tokens = self._tokenize(text)
        self._place = 0

    def textgrid(self) -> TextGrid:
        """Read the whole."""
        is_textgrid = [token.value for token in self._tokens[:2] if token.kind == "text"][1:] == ["TextGrid"]
        if not is_textgrid or not str(self._tokens[0].value).startswith("ooTextFile"):
            raise ManifestError(
                f"{self._name}: must be a TextGrid of Praat's, but does not begin like one; "
                "save it in Praat as a text file or as a short text file."
            )
        self._place = 2
        start, end = self._number("xmin"), self._number("xmax")
        flag = self._take("flag", "<exists> or <absent>")
        tiers = [self._tier() for _ in range(self._count("tiers"))] if flag.value == "<exists>" else []
        return TextGrid(start=start, end=end, tiers=tiers)

    def _tier(self) -> IntervalTier | PointTier:
        kind = self._take("text", "the class of a tier")
        if kind.value not in {"IntervalTier", "TextTier"}:
            self._refuse(kind.line, f"must be an IntervalTier or a TextTier, but is {kind.value!r}.")
        name = str(self._take("text", "the name of a tier").value)
        start, end = self._number("xmin"), self._number("xmax")
        if kind.value == "TextTier":
            points = [
                Point(time=self._number("the time"), label=str(self._take("text", "the mark").value))
                for _ in range(self._count("points"))
            ]
            return PointTier(name=name, start=start, end=end, points=points)
        intervals: list[Interval] = []
        for _ in range(self._count("intervals")):
            intervals.append(self._interval(intervals, name))
        return IntervalTier(name=name, start=start, end=end, intervals=intervals)

    def _interval(self, before: list[Interval], tier: str) -> Interval:
        token = self._take("number", "xmin of an interval")
        start, end = float(token.value), self._number("xmax of an interval")
        number = len(before) + 1
        if end <= start:
            self._refuse(
                token.line,
                f"interval {number} of tier {tier!r} must end behind its start ({start:g}), "
                f"but ends at {end:g}.",
            )
        if before and start < before[-1].end - TOLERANCE:
            self._refuse(
                token.line,
                f"interval {number} of tier {tier!r} must start where interval {number - 1} ends "
                f"({before[-1].end:g}) or later, but starts at {start:g}.",
            )
        return Interval(start=start, end=end, label=str(self._take("text", "the text").value))

    def _number(self, wanted: str) -> float:
        token = self._take("number", wanted)
        if not math.isfinite(float(token.value)):
            self._refuse(token.line, f"{wanted} must be finite, but is {token.value}.")
        return float(token.value)

    def _count(self, of: str) -> int:
        token = self._take("number", f"the number of {of}")
        if not 0 <= float(token.value) < math.inf or float(token.value) != int(float(token.value)):
            self._refuse(token.line, f"the number of {of} must be a count, but is {token.value}.")
        return int(float(token.value))

    def _take(self, kind: str, wanted: str) -> Token:
        """The next value, which must be of the kind."""
        if self._place == len(self._tokens):
            self._refuse(self._num_lines, f"must go on with {wanted}, but the file ends.")
        token = self._tokens[self._place]
        self._place += 1
        if token.kind != kind:
            self._refuse(token.line, f"must have {wanted} here, but has the {token.kind} {token.value!r}.")
        return token

    def _tokenize(self, text: str) -> list[Token]:
        tokens = []
        for found in TOKEN.finditer(text):
            line = bisect_left(self._ends, found.start()) + 1
            word = found["word"]
            if found["open"]:
                self._refuse(
                    line, "must close the text that begins here, but the file ends before its quote."
                )
            elif found["text"] is not None:
                tokens.append(Token(found["text"].replace('""', '"'), "text", line))
            elif word and NUMBER.fullmatch(word):
                tokens.append(Token(float(word), "number", line))
            elif word and word.startswith("<") and word.endswith(">"):
                tokens.append(Token(word, "flag", line))
        return tokens

    def _refuse(self, line: int, message: str) -> None:
        raise ManifestError(f"{self._name}:{line}: {message}")


def _decode(content: bytes, name: str) -> str:
    """Tell the encoding by its marks, or by the zeros that UTF-16 has in Latin letters."""
    if content.startswith(b"ooBinaryFile"):
        raise ManifestError(
            f"{name}: must be a text file, but is a binary one; save it in Praat as a text file."
        )
    encoding = next((e for mark, e in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\x00" in content[:2]:
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{name}:{line}: must be UTF-8 or UTF-16, but is not; save it in Praat as UTF-8."
        ) from error
