"""A corpus as it lies on disk -> utterances, one by one, each with the line that it came from.

A reader gives exactly one item per line of its source (per file of a folder): an `Utterance`, or a `BadLine`
that says why there is none. No recording is opened here. What makes the whole source unusable (a missing
column, label files of another length) is a `ManifestError`.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

from unispeech.data.cuts import CUTS
from unispeech.data.fairseq_tables import read_fairseq
from unispeech.data.kaldi import read_kaldi
from unispeech.data.prepared import is_prepared, read_prepared
from unispeech.data.tables import metadata_files, read_audiofolder, read_common_voice, read_jsonl
from unispeech.data.utterances import PARTS, BadLine, Item, Utterance
from unispeech.errors import ManifestError

Format = Literal["folder", "jsonl", "common-voice", "fairseq", "kaldi", "audiofolder", "cuts"]

AUDIO_SUFFIXES = frozenset({
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".oga", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf",
    ".rf64", ".m4a", ".mp4", ".webm", ".sph",
})  # fmt: skip
"""What counts as a recording in a folder; a manifest may name files of any suffix."""

_TRANSCRIPT_SUFFIXES = (".txt", ".lab")


def read_corpus(
    source: Path,
    *,
    format: Format | None = None,
    part: str | None = None,
    dictionary: Path | None = None,
    recordings: Path | None = None,
) -> Iterator[Item]:
    """Read a corpus in the order in which it is written.

    Args:
        source: Manifest file or folder of the corpus.
        format: How the corpus is laid out; None recognises it.
        part: Selects the file where a corpus keeps its parts in files of their own (Common Voice,
            fairseq). Elsewhere it selects nothing: items carry their part.
        dictionary: What the numbers of fairseq's labels stand for; None takes the one beside them.
        recordings: Where the recordings of a fairseq table lie; None believes the table.

    Yields:
        An item for every line, or for every audio file and stray transcript of a folder.

    Raises:
        ManifestError: If there is nothing at `source`, its layout is not recognised, or it cannot be used
            as a whole.
        FileNotFoundError: If `source` does not exist.
        ValueError: If `dictionary` or `recordings` is given for another format.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    format = format or recognise_format(source)
    if format == "fairseq":
        yield from read_fairseq(source, part, dictionary=dictionary, recordings=recordings)
        return
    for name, value in (("dictionary", dictionary), ("recordings", recordings)):
        if value is not None:
            raise ValueError(f"`{name}` must be given for a fairseq table only, but {source} is {format}.")
    yield from _READERS[format](source, part)


def recognise_format(source: Path) -> Format:
    """Tell how a corpus is laid out from the names in it and the first line of its table.

    Args:
        source: Manifest file or folder of the corpus.

    Returns:
        The name of the format.

    Raises:
        ManifestError: If it looks like none of the formats.
    """
    if is_prepared(source):
        found: Format | None = "cuts"
    elif source.is_dir():
        if (source / "synthesis.json").is_file():
            parts = sorted(str(part.parent) for part in source.glob(f"*/{CUTS}"))
            raise ManifestError(
                f"{source}: must be a part of a synthetic corpus, but holds all; name {' or '.join(parts)}."
            )
        found = _recognise_folder(source)
    elif source.suffix == ".tsv":
        found = "common-voice" if _has_header(source) else "fairseq"
    elif source.name == "metadata.jsonl" or source.suffix == ".csv":
        found = "audiofolder"
    else:
        found = "jsonl" if source.suffix in {".jsonl", ".json"} else None
    if found is None:
        formats = ", ".join(get_args(Format))
        raise ManifestError(f"{source}: format must be one of {formats}, but none is recognised; name one.")
    return found


def _recognise_folder(folder: Path) -> Format | None:
    tables = sorted(folder.glob("*.tsv"))
    if (folder / "wav.scp").is_file():
        return "kaldi"
    if (folder / "clips").is_dir() and any(map(_has_header, tables)):
        return "common-voice"
    if metadata_files(folder):
        return "audiofolder"
    if tables:
        return "fairseq"
    if (folder / "manifest.jsonl").is_file():
        return "jsonl"
    return "folder" if next(_audio_files(folder), None) else None


def _has_header(table: Path) -> bool:
    """Whether a table is Common Voice's; fairseq's begin with a folder."""
    return "path" in _first_line(table).split("\t")


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().rstrip("\r\n")


def _audio_files(folder: Path) -> Iterator[Path]:
    return (path for path in _files(folder) if path.suffix.lower() in AUDIO_SUFFIXES)


def _files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All that is no folder, in order. Links are followed; one to a file that is gone is a file, too.

    Yields:
        Paths. A folder that may not be read is an error of the operating system: what it holds would be lost.
    """
    place = os.path.realpath(folder)
    if place in above:  # a link leads back to where it lies
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _files(Path(entry.path), above | {place})
        else:
            yield Path(entry.path)


def _read_folder(folder: Path, part: str | None) -> Iterator[Item]:
    paths = list(_files(folder))
    recordings = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
    spoken = {path.with_suffix("") for path in recordings}
    for path in recordings:
        yield _folder_utterance(folder, path)
    for path in paths:
        if path.suffix in _TRANSCRIPT_SUFFIXES and path.with_suffix("") not in spoken:
            name = path.relative_to(folder).with_suffix("").as_posix()
            detail = "transcript must lie beside a recording of its name, but there is none."
            yield BadLine(id=name, source=str(path), reason="no-recording", detail=detail)


def _folder_utterance(folder: Path, path: Path) -> Item:
    place = path.relative_to(folder)
    part = place.parts[0] if place.parts[0] in PARTS and len(place.parts) > 1 else None
    owner = place.parent.name if len(place.parts) > (2 if part else 1) else None
    name = place.with_suffix("").as_posix()
    transcript = next(
        (path.with_suffix(s) for s in _TRANSCRIPT_SUFFIXES if path.with_suffix(s).is_file()), None
    )
    text = None
    if transcript is not None:
        try:
            text = " ".join(transcript.read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError as error:
            detail = f"{transcript}: text must be UTF-8, but is not ({error.reason})."
            return BadLine(id=name, source=str(path), reason="bad-line", detail=detail)
    # A sub-folder is a speaker where transcripts lie beside the recordings, and a class where none do.
    speaker, label = (owner, None) if transcript is not None else (None, owner)
    fields = {"part": part, "speaker": speaker, "label": label}
    return Utterance(
        id=name, audio=path, source=str(path), text=text, speaker=speaker, label=label, part=part,
        fields={key: value for key, value in fields.items() if value is not None},
    )  # fmt: skip


_READERS: dict[str, Callable[[Path, str | None], Iterator[Item]]] = {
    "folder": _read_folder,
    "jsonl": read_jsonl,
    "common-voice": read_common_voice,
    "kaldi": read_kaldi,
    "audiofolder": read_audiofolder,
    "cuts": read_prepared,
}
