"""The original's dictionaries: which symbol a number stands for, in its json and in fairseq's text files."""

import json
from dataclasses import dataclass
from pathlib import Path

from unispeech.errors import ManifestError

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""What fairseq adds to every dictionary, in this order; the first is its CTC blank."""


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """The symbols of a dictionary file."""

    symbols: tuple[str, ...]
    """Symbols in the order of the file, without fairseq's special ones; published ones may be empty."""
    first: int
    """Number of the first of them: 0 where the special ones come behind (json), 4 where they come first."""

    def symbol(self, number: int) -> str | None:
        """Find what a number stands for.

        Args:
            number: Number of a symbol.

        Returns:
            The symbol; None for the special ones and for numbers that the dictionary does not have.
        """
        place = number - self.first
        return self.symbols[place] if 0 <= place < len(self.symbols) else None


def read_symbols(path: Path) -> Dictionary:
    """Read a dictionary of the original.

    Args:
        path: A JSON object, whose keys in the order of the file are numbered from 0 (its values are ignored,
            as the original does), or fairseq's text file (`.txt`), a line `symbol count` each, whose symbols
            are numbered behind the four special ones.

    Returns:
        The symbols.

    Raises:
        FileNotFoundError: If there is no such file.
        ManifestError: If it is no dictionary, names a special symbol, or names a symbol twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: text must be UTF-8, but is not ({error.reason}).") from None
    is_text = path.suffix == ".txt"
    symbols = _text_symbols(text, path) if is_text else _json_symbols(text, path)
    added = [symbol for symbol in SPECIAL if symbol in symbols]
    if not symbols or added:
        raise ManifestError(
            f"{path}: must be a dictionary of phones without {', '.join(SPECIAL)}, but holds "
            f"{', '.join(added) or 'nothing'}."
        )
    return Dictionary(symbols=tuple(symbols), first=len(SPECIAL) if is_text else 0)


def _json_symbols(text: str, path: Path) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: must be a JSON object of phones, but is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise ManifestError(
            f"{path}: must be a JSON object of phones, but is {type(content).__name__}; its keys count."
        )
    return list(content)


def _text_symbols(text: str, path: Path) -> list[str]:
    places: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        # fairseq's mark for a line that may repeat a symbol says nothing of its number.
        symbol, _, count = line.rstrip().removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not symbol or not count.removeprefix("-").isdecimal():
            raise ManifestError(f"{path}:{number}: line must be `symbol count`, but is {line!r}.")
        if symbol in places:
            raise ManifestError(
                f"{path}:{number}: symbol must be unique, but {symbol} stands in line {places[symbol]}."
            )
        places[symbol] = number
    return list(places)
