"""Manifests with named fields -> utterances: JSONL (ours, NeMo's), audiofolder, Common Voice."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from unispeech.data.utterances import PARTS, BadLine, Item, Utterance, numbered_lines
from unispeech.errors import ManifestError
from unispeech.frames import Seconds

# Field of `Utterance` -> the names that manifests use for it, the preferred one first.
_ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id", "utt_id"),
    "audio": ("audio", "audio_filepath", "file_name", "path", "wav"),
    "text": ("text", "transcription", "transcript", "sentence"),
    "language": ("language", "lang", "locale"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "part": ("part", "split"),
    "start": ("offset", "start"),
}


def read_jsonl(source: Path, part: str | None = None) -> Iterator[Item]:
    """Read a manifest with a JSON object per line, such as NeMo's; blank lines do not count.

    Args:
        source: The file, or a folder with a `manifest.jsonl`. Recordings are named relative to its folder.
        part: Not used; the lines carry their part.

    Yields:
        An item per line.
    """
    path = source / "manifest.jsonl" if source.is_dir() else source
    for number, line in numbered_lines(path):
        if line.strip():
            yield _row_to_item(_json_row(line), path.parent, f"{path}:{number}")


def _json_row(line: str) -> Mapping[str, object] | str:
    """The object on a line, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"line must be a JSON object, but is not JSON ({error})."
    except RecursionError:
        return "line must be a JSON object, but is nested too deeply."
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "line must hold whole characters, but escapes half of a surrogate pair."
    except RecursionError:
        return "line must be a JSON object, but is nested too deeply."
    return row if isinstance(row, dict) else f"line must be a JSON object, but is {type(row).__name__}."


def metadata_files(folder: Path) -> list[Path]:
    """Find the tables of an audiofolder, in the folder itself and one level below.

    Args:
        folder: The audiofolder.

    Returns:
        Paths of `metadata.csv` and `metadata.jsonl` files, sorted.
    """
    found = [path for pattern in ("", "*/") for path in folder.glob(f"{pattern}metadata.*")]
    return sorted(path for path in found if path.suffix in {".csv", ".jsonl"})


def read_audiofolder(source: Path, part: str | None = None) -> Iterator[Item]:
    """Read an audiofolder of Hugging Face's `datasets`: tables with a column `file_name`.

    Args:
        source: The folder, or one `metadata.csv` or `metadata.jsonl`.
        part: Not used; the folder of a table (`train/metadata.csv`) is the part of its lines.

    Yields:
        An item per line of the tables.

    Raises:
        ManifestError: If there is no table, or a table has no column for recordings.
    """
    tables = metadata_files(source) if source.is_dir() else [source]
    if not tables:
        raise ManifestError(
            f"{source}: audiofolder must hold metadata.csv or metadata.jsonl, but has neither."
        )
    for table in tables:
        home = table.parent.name if table.parent.name in PARTS else None
        rows = read_jsonl(table) if table.suffix == ".jsonl" else _read_table(table, table.parent, _csv_lines)
        for item in rows:
            yield replace(item, part=home) if isinstance(item, Utterance) and item.part is None else item


def read_common_voice(source: Path, part: str | None = None) -> Iterator[Item]:
    """Read a table of a downloaded Common Voice release; its recordings lie in `clips/` beside it.

    Args:
        source: The folder of a language, or one of its tables.
        part: Name of the table in the folder, such as train; None takes validated.

    Yields:
        An item per line of the table.

    Raises:
        ManifestError: If there is no such table, or it has no column for recordings.
    """
    table = source / f"{part or 'validated'}.tsv" if source.is_dir() else source
    if not table.is_file():
        offered = ", ".join(sorted(path.stem for path in source.glob("*.tsv"))) or "none, it has no tables"
        raise ManifestError(f"{table}: part must be one of {offered}, but is {part or 'validated'}.")
    for item in _read_table(table, table.parent / "clips", _tsv_lines):
        yield replace(item, part=table.stem) if isinstance(item, Utterance) else item


Cells = tuple[int, list[str]]


def _tsv_lines(path: Path) -> Iterator[Cells]:
    """Take tab-separated lines apart; Common Voice has no quoting: a quotation mark is just that.

    Yields:
        Number and cells of each line.
    """
    yield from ((number, line.split("\t")) for number, line in numbered_lines(path))


def _csv_lines(path: Path) -> Iterator[Cells]:
    """Take comma-separated rows apart; a quoted cell may hold commas and line ends.

    Yields:
        Number of its last line and cells of each row.
    """
    reader = csv.reader((line + "\n" for _, line in numbered_lines(path)), strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: must be CSV, but is not ({error}).") from None


def _read_table(path: Path, folder: Path, read_lines: Callable[[Path], Iterator[Cells]]) -> Iterator[Item]:
    """Read a table whose first line names the columns.

    Yields:
        An item per further line; lines without any cell do not count.
    """
    lines = read_lines(path)
    _, header = next(lines, (1, []))
    if not set(header) & set(_ALIASES["audio"]):
        names = " or ".join(_ALIASES["audio"])
        raise ManifestError(f"{path}:1: header must have a column {names}, but has {header}.")
    for number, cells in lines:
        row: Mapping[str, object] | str = {
            name: cell for name, cell in zip(header, cells, strict=False) if cell != ""
        }
        if len(cells) != len(header):
            row = f"line must have {len(header)} columns as the header, but has {len(cells)}."
        if any(cells):
            yield _row_to_item(row, folder, f"{path}:{number}")


def _row_to_item(row: Mapping[str, object] | str, folder: Path, source: str) -> Item:
    """A line of a table as an utterance; `row` may be the fault of the line instead."""
    if isinstance(row, str):
        return BadLine(id="", source=source, reason="bad-line", detail=row)
    try:
        return _row_to_utterance(row, folder, source)
    except ManifestError as error:
        name = row.get("id")
        name = name if isinstance(name, str) else ""
        return BadLine(id=name, source=source, reason="bad-line", detail=str(error))


def _row_to_utterance(row: Mapping[str, object], folder: Path, source: str) -> Utterance:
    audio = _text_field(row, "audio")
    if not audio or not Path(audio).name:
        names = ", ".join(_ALIASES["audio"])
        raise ManifestError(f"line must name its recording in one of {names}, but does not.")
    offset = seconds_field(row, *_ALIASES["start"])
    start = offset or 0.0
    duration = seconds_field(row, "duration")
    if start < 0:
        raise ManifestError(f"`offset` must be at least 0, but is {start}.")
    if duration is not None and duration <= 0:
        raise ManifestError(f"`duration` must be positive, but is {duration}.")
    label = row.get("label")
    stem = str(Path(audio).with_suffix(""))
    return Utterance(
        id=_text_field(row, "id") or (f"{stem}-{round(start * 1000):07d}" if start else stem),
        audio=_find_clip(folder / audio),
        source=source,
        start=start,
        duration=duration,
        # Without an offset a line describes the whole recording, whose own header knows its length better.
        is_segment=offset is not None,
        text=_text_field(row, "text"),
        phones=_phones_field(row),
        # A label that is no plain name (an intent with slots) is no class; it stays in `fields`.
        label=str(label) if isinstance(label, str | int) else None,
        language=_text_field(row, "language"),
        speaker=_text_field(row, "speaker"),
        part=_text_field(row, "part"),
        fields=row,
    )


def _find_clip(path: Path) -> Path:
    # Early Common Voice tables name clips without their suffix.
    return path if path.suffix or os.path.exists(path) else path.with_suffix(".mp3")


def _text_field(row: Mapping[str, object], name: str) -> str | None:
    for alias in _ALIASES[name]:
        value = row.get(alias)
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and name in {"id", "speaker"}:
            return str(value)
        if not isinstance(value, str):
            raise ManifestError(f"`{alias}` must be a string, but is {value!r}.")
        return value
    return None


def _phones_field(row: Mapping[str, object]) -> str | tuple[str, ...] | None:
    value = row.get("phones")
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if value is not None and not isinstance(value, str):
        raise ManifestError(f"`phones` must be a string or a list of strings, but is {value!r}.")
    return value


def seconds_field(row: Mapping[str, object], *names: str) -> Seconds | None:
    """Read a time from a line.

    Args:
        row: The fields of the line; numbers may be written as text.
        *names: Names that the field goes by, the preferred one first.

    Returns:
        A finite number, or None where the line has none of the fields.

    Raises:
        ManifestError: If the value is no finite number.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    try:
        seconds = (
            float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ManifestError(f"`{name}` must be a number of seconds, but is {value!r}.")
    return seconds
