"""Kaldi's data directories -> utterances."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from unispeech.data.tables import seconds_field
from unispeech.data.utterances import BadLine, Item, Utterance, numbered_lines
from unispeech.errors import ManifestError
from unispeech.frames import Seconds


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
