"""The layouts of speech toolkits -> utterances: fairseq's tables with label files, Kaldi's directories."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from unispeech.data.tables import seconds_field
from unispeech.data.utterances import BadLine, Item, Utterance, numbered_lines
from unispeech.errors import ManifestError
from unispeech.frames import Seconds

_PHONE_SUFFIXES = (".phn", ".phone")


def read_fairseq(source: Path, part: str | None = None) -> Iterator[Item]:
    """Read a fairseq table: a line with the folder of the recordings, then `path<TAB>frames` lines.

    Labels are taken from the files beside it that bear its name: orthography from `.ltr` or `.wrd`, phones
    from `.phn`, `.phone` or `.id` (numbers into the keys of a `vocab.json`).

    Args:
        source: The table, or the folder in which it lies.
        part: Name of the table in the folder; None takes the only one, or train.

    Yields:
        An item per line after the first.

    Raises:
        ManifestError: If there is no such table, or a label file does not fit it.
    """
    table = _fairseq_table(source, part)
    lines = [(number, line) for number, line in numbered_lines(table) if line.strip()]
    if not lines:
        raise ManifestError(f"{table}:1: first line must be the folder of the recordings, but there is none.")
    root = table.parent / lines[0][1].strip()
    texts, phones = _fairseq_labels(table, len(lines) - 1)
    for index, (number, line) in enumerate(lines[1:]):
        name = line.split("\t")[0].strip()
        if "\t" not in line or not name:
            detail = f"line must be `path<TAB>frames`, but is {line!r}."
            yield BadLine(id=name, source=f"{table}:{number}", reason="bad-line", detail=detail)
            continue
        yield Utterance(
            id=str(Path(name).with_suffix("")),
            audio=root / name,
            source=f"{table}:{number}",
            text=texts[index] if texts else None,
            phones=phones[index] if phones else None,
            part=table.stem,
            fields={"part": table.stem},
        )


def _fairseq_table(source: Path, part: str | None) -> Path:
    if source.is_file():
        return source
    tables = sorted(source.glob("*.tsv"))
    if part is None and len(tables) == 1:
        return tables[0]
    if source / f"{part or 'train'}.tsv" in tables:
        return source / f"{part or 'train'}.tsv"
    offered = ", ".join(table.stem for table in tables) or "none"
    raise ManifestError(f"{source}: part must be one of the tables ({offered}), but is {part or 'train'}.")


def _fairseq_labels(table: Path, num_lines: int) -> tuple[list[str] | None, list[str] | None]:
    """Transcripts and phones of the files beside a table, as far as there are any."""
    texts = phones = None
    if (path := table.with_suffix(".ltr")).is_file():
        letters = _label_lines(path, num_lines)
        texts = [" ".join("".join(line.split()).replace("|", " ").split()) for line in letters]
    if (path := table.with_suffix(".wrd")).is_file():
        texts = _label_lines(path, num_lines)
    if (path := table.with_suffix(".id")).is_file():
        phones = _ids_to_phones(path, num_lines)
    for path in (table.with_suffix(suffix) for suffix in _PHONE_SUFFIXES):
        if path.is_file():
            phones = _label_lines(path, num_lines)
    return texts, phones


def _label_lines(path: Path, num_lines: int) -> list[str]:
    lines = [line for _, line in numbered_lines(path)]
    if len(lines) != num_lines:
        raise ManifestError(
            f"{path}:{len(lines)}: labels must have a line for each of the {num_lines} recordings, "
            f"but have {len(lines)}."
        )
    return lines


def _ids_to_phones(path: Path, num_lines: int) -> list[str]:
    """Numbers of a `.id` file as the keys of the vocab.json beside it, in file order."""
    lines = _label_lines(path, num_lines)
    vocabulary = path.with_name("vocab.json")
    if not vocabulary.is_file():
        raise ManifestError(
            f"{path}: numbers must have their phones in {vocabulary.name} beside them, but there is none; "
            "its keys are numbered from 0 in the order of the file."
        )
    try:
        symbols = list(json.loads(vocabulary.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ManifestError(
            f"{vocabulary}: must be a JSON object of phones, but is not JSON ({error})."
        ) from None
    phones = []
    for number, line in enumerate(lines, start=1):
        ids = line.split()
        wrong = [i for i in ids if not (i.isascii() and i.isdigit() and int(i) < len(symbols))]
        if wrong:
            raise ManifestError(
                f"{path}:{number}: number must lie in [0, {len(symbols) - 1}], but is {wrong[0]}."
            )
        phones.append(" ".join(symbols[int(i)] for i in ids))
    return phones


def read_kaldi(folder: Path, part: str | None = None) -> Iterator[Item]:
    """Read a Kaldi data directory: `wav.scp`, with `segments`, `text`, `utt2spk`, `utt2lang` and `phones`.

    Commands in `wav.scp` are never run: such lines are bad lines.

    Args:
        folder: The directory.
        part: Not used; a Kaldi directory is one part.

    Yields:
        An item per segment (per recording without `segments`), per transcript without a recording, and per
        recording without a segment.

    Raises:
        ManifestError: If there is no `wav.scp`, or a file has a key twice.
    """
    recordings = _kaldi_map(folder / "wav.scp")
    segments = _kaldi_map(folder / "segments") if (folder / "segments").is_file() else None
    optional = {
        name: _kaldi_map(folder / name) if (folder / name).is_file() else {}
        for name in ("text", "utt2spk", "utt2lang", "phones")
    }
    texts = optional["text"]
    used: set[str] = set()
    for name, (number, value) in (segments if segments is not None else recordings).items():
        table = "wav.scp" if segments is None else "segments"
        recording, start, end = name, 0.0, None
        source = f"{folder / table}:{number}"
        try:
            if segments is not None:
                recording, start, end = _kaldi_segment(value, recordings)
            used.add(recording)
            audio = _kaldi_audio(recordings[recording][1])
        except ManifestError as error:
            yield BadLine(id=name, source=source, reason="bad-line", detail=str(error))
            continue
        known = {key: values[name][1] for key, values in optional.items() if name in values}
        yield Utterance(
            id=name, audio=audio, source=source, start=start, duration=None if end is None else end - start,
            is_segment=segments is not None,
            text=known.get("text"), phones=known.get("phones"), speaker=known.get("utt2spk"),
            language=known.get("utt2lang"), fields={"speaker": known.get("utt2spk")},
        )  # fmt: skip
    listed = recordings if segments is None else segments
    for name, (number, _) in texts.items():
        if name not in listed:
            source = f"{folder / 'text'}:{number}"
            detail = "transcript must have a recording of its name, but has none."
            yield BadLine(id=name, source=source, reason="no-recording", detail=detail)
    for name, (number, _) in recordings.items():
        if segments is not None and name not in used:
            source = f"{folder / 'wav.scp'}:{number}"
            detail = "recording must be used by a segment, but is not."
            yield BadLine(id=name, source=source, reason="no-segment", detail=detail)


def _kaldi_map(path: Path) -> dict[str, tuple[int, str]]:
    """Key -> line number and rest of the line; a key twice is a fault of the file."""
    if not path.is_file():
        raise ManifestError(f"{path}: a Kaldi directory must hold this file, but does not.")
    entries: dict[str, tuple[int, str]] = {}
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in entries:
            raise ManifestError(
                f"{path}:{number}: key must be unique, but {key} stands in line {entries[key][0]}."
            )
        entries[key] = (number, value.strip())
    return entries


def _kaldi_segment(value: str, recordings: Mapping[str, object]) -> tuple[str, Seconds, Seconds]:
    cells = value.split()
    if len(cells) < 3:
        raise ManifestError(f"segment must be `id recording start end`, but has {len(cells) + 1} columns.")
    recording = cells[0]
    if recording not in recordings:
        raise ManifestError(f"recording must stand in wav.scp, but {recording} does not.")
    start, end = (seconds_field({"segment": cell}, "segment") or 0.0 for cell in cells[1:3])
    if not 0 <= start < end:
        raise ManifestError(
            f"segment must start at 0 or later and before its end, but runs {start} to {end}."
        )
    return recording, start, end


def _kaldi_audio(value: str) -> Path:
    if value.endswith("|") or value.startswith("|"):
        raise ManifestError(f"recording must be a file, but is a command, which is never run: {value!r}.")
    if not value:
        raise ManifestError("recording must be a file, but the line names none.")
    return Path(value)
