"""fairseq's tables with label files, as the original has them -> utterances."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unispeech.data.dictionaries import Dictionary, read_symbols
from unispeech.data.utterances import BadLine, Item, Utterance, numbered_lines
from unispeech.errors import ManifestError
from unispeech.phones import WORD_BOUNDARY, split_tag

_logger = logging.getLogger(__name__)

_NUMBER_SUFFIXES = (".idx", ".id")
_PHONE_SUFFIXES = (".phone", ".phn")
_DICTIONARIES = ("vocab*.json", "phonesMatches*.json", "letter.json", "dict*.txt")
"""Names under which dictionaries of the original and of fairseq lie beside their tables."""

_RECORDING_SUFFIXES = (".mp3", ".wav", ".flac", ".opus", ".ogg")
_IN_ARCHIVE = re.compile(r".+\.\w+:\d+:\d+")
_EMPTY = re.compile(r"\([^()\s]+\)|")
"""A symbol that is no phone, as published dictionaries have a few: nothing, or a tag before nothing."""


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """What is known of one utterance from the files beside the table."""

    text: str | None = None
    phones: str | None = None
    language: str | None = None


def read_fairseq(
    source: Path,
    part: str | None = None,
    *,
    dictionary: Path | None = None,
    recordings: Path | None = None,
) -> Iterator[Item]:
    """Read a fairseq table: the folder of the recordings, then lines of `path<TAB>frames[<TAB>rate]`.

    Labels are taken from the files beside it that bear its name: orthography from `.ltr` or `.wrd`; phones
    from `.idx`, else `.id` (numbers of a dictionary), and from `.phone` or `.phn`. Where both are there and a
    line of both is the same, the written phones are taken, because only they have word boundaries; where
    they differ the numbers are, because the original learns those. Phones with a language tag, `(es)a`, lose
    it and give the utterance its language.

    Args:
        source: The table, or the folder in which it lies.
        part: Name of the table in the folder; None takes the only one, or train.
        dictionary: What the numbers stand for, as `read_symbols` reads it; None takes the one beside the
            table.
        recordings: Folder of the recordings in place of the table's own; there they may be of another format
            (mp3 as Common Voice gives them out, wav as the original made of them). None takes the table's.

    Yields:
        An item per line after the first.

    Raises:
        ManifestError: If there is no such table, a label file does not fit it, or it is not clear what
            numbers stand for.
        FileNotFoundError: If `dictionary` does not exist.
    """
    table = _find_table(source, part)
    lines = [(number, line) for number, line in numbered_lines(table) if line.strip()]
    if not lines:
        raise ManifestError(f"{table}:1: first line must be the folder of the recordings, but there is none.")
    root = table.parent / lines[0][1].strip()
    labels = _read_labels(table, len(lines) - 1, dictionary)
    for (number, line), label in zip(lines[1:], labels, strict=True):
        name, *numbers = (cell.strip() for cell in line.split("\t"))
        fault = _fault(name, numbers, line)
        if fault:
            yield BadLine(id=name, source=f"{table}:{number}", reason="bad-line", detail=fault)
            continue
        yield Utterance(
            id=str(Path(name).with_suffix("")),
            audio=root / name if recordings is None else _find_recording(recordings / name),
            source=f"{table}:{number}",
            # Without the rate, frames are of the recording's own rate, which only its header knows.
            duration=int(numbers[0]) / int(numbers[1]) if len(numbers) > 1 and int(numbers[0]) else None,
            text=label.text,
            phones=label.phones,
            is_separated=True,
            language=label.language,
            part=table.stem,
            fields={"part": table.stem, "language": label.language},
        )


def _fault(name: str, numbers: Sequence[str], line: str) -> str:
    """What is wrong with a line of the table; empty where nothing is."""
    are_counts = all(number.isascii() and number.isdigit() for number in numbers[:2])
    if not Path(name).name or not numbers or not are_counts or numbers[1:2] == ["0"]:
        return f"line must be `path<TAB>frames`, with the sample rate behind if any, but is {line!r}."
    if _IN_ARCHIVE.fullmatch(name):
        return f"recording must be a file of its own, but lies in an archive ({name}); unpack the archive."
    return ""


def _find_recording(path: Path) -> Path:
    """The recording of this name, in whatever format."""
    others = (path.with_suffix(suffix) for suffix in _RECORDING_SUFFIXES)
    return path if path.is_file() else next((other for other in others if other.is_file()), path)


def _find_table(source: Path, part: str | None) -> Path:
    if source.is_file():
        return source
    tables = sorted(source.glob("*.tsv"))
    if part is None and len(tables) == 1:
        return tables[0]
    if source / f"{part or 'train'}.tsv" in tables:
        return source / f"{part or 'train'}.tsv"
    offered = ", ".join(table.stem for table in tables) or "none"
    raise ManifestError(f"{source}: part must be one of the tables ({offered}), but is {part or 'train'}.")


def _read_labels(table: Path, num_lines: int, dictionary: Path | None) -> list[_Labels]:
    """The labels of every line, as far as there are any."""
    texts: Sequence[str | None] = [None] * num_lines
    if (path := table.with_suffix(".ltr")).is_file():
        letters = _label_lines(path, num_lines)
        texts = [" ".join("".join(line.split()).replace("|", " ").split()) for line in letters]
    if (path := table.with_suffix(".wrd")).is_file():
        texts = _label_lines(path, num_lines)
    written = _first_file(table, _PHONE_SUFFIXES)
    numbers = _first_file(table, _NUMBER_SUFFIXES)
    phones = None if written is None else _label_lines(written, num_lines)
    if numbers is None or (written and dictionary is None and not _dictionaries_beside(table)):
        return [_untag(text, phones[index].split() if phones else None) for index, text in enumerate(texts)]
    spelled = _spell(numbers, num_lines, read_symbols(dictionary or _find_dictionary(numbers)))
    labels = [_untag(text, tokens) for text, tokens in zip(texts, spelled, strict=True)]
    return labels if phones is None or written is None else _join(labels, phones, numbers, written)


def _first_file(table: Path, suffixes: Sequence[str]) -> Path | None:
    return next((path for suffix in suffixes if (path := table.with_suffix(suffix)).is_file()), None)


def _label_lines(path: Path, num_lines: int) -> list[str]:
    lines = [line for _, line in numbered_lines(path)]
    if len(lines) != num_lines:
        raise ManifestError(
            f"{path}:{len(lines)}: labels must have a line for each of the {num_lines} recordings, "
            f"but have {len(lines)}."
        )
    return lines


def _dictionaries_beside(path: Path) -> list[Path]:
    return sorted({file for pattern in _DICTIONARIES for file in path.parent.glob(pattern)})


def _find_dictionary(path: Path) -> Path:
    """The dictionary beside a file of numbers, if there is no doubt."""
    found = _dictionaries_beside(path)
    if not found:
        raise ManifestError(
            f"{path}: numbers must have their phones in vocab.json beside them, but there is none; name the "
            "dictionary with --dictionary."
        )
    if len(found) > 1:
        # The original has the phones of pre-training and those of fine-tuning side by side.
        names = ", ".join(file.name for file in found)
        raise ManifestError(
            f"{path}: numbers must be those of one dictionary, but {names} lie beside it; name the one that "
            "counts with --dictionary."
        )
    return found[0]


def _spell(path: Path, num_lines: int, dictionary: Dictionary) -> list[list[str]]:
    """Numbers as the symbols that they stand for; junk of the dictionary is left out and reported."""
    last = dictionary.first + len(dictionary.symbols) - 1
    num_empty = 0
    spelled = []
    for number, line in enumerate(_label_lines(path, num_lines), start=1):
        tokens = []
        for cell in line.split():
            is_number = cell.isascii() and cell.isdigit() and len(cell) < 10
            symbol = dictionary.symbol(int(cell)) if is_number else None
            if symbol is None:
                raise ManifestError(
                    f"{path}:{number}: number must lie in [{dictionary.first}, {last}], but is {cell}."
                )
            if _EMPTY.fullmatch(symbol):
                num_empty += 1
            else:
                tokens.append(symbol)
        spelled.append(tokens)
    if num_empty:
        _logger.warning("%s: %d numbers stand for an empty phone and are left out", path, num_empty)
    return spelled


def _untag(text: str | None, tokens: Sequence[str] | None) -> _Labels:
    """Take the tag off phones that all bear the same one."""
    if tokens is None:
        return _Labels(text=text)
    parts = [split_tag(token) for token in tokens]
    tags = {tag for tag, phone in parts if phone != WORD_BOUNDARY}
    if len(tags) != 1 or None in tags:
        return _Labels(text=text, phones=" ".join(tokens))
    return _Labels(text=text, phones=" ".join(phone for _, phone in parts), language=tags.pop())


def _join(labels: Sequence[_Labels], phones: Sequence[str], numbers: Path, written: Path) -> list[_Labels]:
    """Take the written phones of a line, with their word boundaries, where they are those of its numbers."""
    joined = []
    for label, line in zip(labels, phones, strict=True):
        other = _untag(label.text, line.split())
        bare = [phone for phone in (other.phones or "").split() if phone != WORD_BOUNDARY]
        same = bare == [phone for phone in (label.phones or "").split() if phone != WORD_BOUNDARY]
        joined.append(replace(label, phones=other.phones) if same else label)
    num_other = sum(one is two for one, two in zip(joined, labels, strict=True))
    if num_other:
        _logger.warning(
            "%s: %d of %d lines are other phones than in %s; the numbers are taken, as the original does",
            numbers, num_other, len(labels), written.name,
        )  # fmt: skip
    return joined
