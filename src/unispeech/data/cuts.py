"""Cuts on disk: utterances that can be trained on, one lhotse `MonoCut` per line of a `cuts.jsonl.gz`."""

import gzip
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from unispeech.data.checks import Trainable
from unispeech.errors import ManifestError

if TYPE_CHECKING:
    from lhotse import MonoCut

CUTS = "cuts.jsonl.gz"
"""Name of the file in a prepared folder."""


class CutFiles:
    """The cuts of one or more files, read anew from disk each time they are iterated over.

    Args:
        paths: Files, or folders with a `cuts.jsonl.gz`. A relative path of a recording in a file starts from
            the folder of that file.

    Raises:
        FileNotFoundError: If one of them does not exist.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        listed = [paths] if isinstance(paths, str | Path) else list(paths)
        self.paths = [Path(path) / CUTS if Path(path).is_dir() else Path(path) for path in listed]
        for path in self.paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; make it with unispeech prepare.")

    def __iter__(self) -> "Iterator[MonoCut]":
        """Read the cuts in the order of the files.

        Yields:
            Cuts with one supervision and a recording that is a file.

        Raises:
            ManifestError: If a line is not such a cut, or a file is damaged.
        """
        for path in self.paths:
            number = 0
            try:
                with _open_text(path) as file:
                    for number, line in enumerate(file, start=1):
                        if line.strip():
                            yield _read_cut(line, path, number)
            except (OSError, EOFError, UnicodeDecodeError) as error:
                raise ManifestError(f"{path}:{number + 1}: must be readable, but is not ({error}).") from None


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8") if is_gzip else path.open(encoding="utf-8")


def _read_cut(line: str, path: Path, number: int) -> "MonoCut":
    from lhotse import MonoCut
    from lhotse.serialization import deserialize_item

    try:
        cut = deserialize_item(json.loads(line))
    except Exception as error:  # whatever lhotse makes of a foreign line
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ManifestError(f"{path}:{number}: line must be a lhotse cut, but is not ({detail}).") from None
    if not isinstance(cut, MonoCut) or len(cut.supervisions) != 1 or not cut.has_recording:
        raise ManifestError(
            f"{path}:{number}: cut must be a MonoCut of a recording with one supervision, but is not; "
            "make it with unispeech prepare."
        )
    source = cut.recording.sources[0]
    if source.type != "file":
        raise ManifestError(f"{path}:{number}: recording must be a file, but is {source.type!r}.")
    source.source = str(path.parent.absolute() / source.source)
    return cut


@contextmanager
def open_cut_file(path: Path) -> Iterator[TextIO]:
    """Open a file of cuts for writing; equal cuts give equal bytes.

    Args:
        path: The file, compressed whatever its name.

    Yields:
        The text to write lines to.
    """
    # Bytes of a file name that are no UTF-8 become JSON's own escapes, by which the file is found again.
    # A gzip header holds name and time of the file unless it is told otherwise.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", errors="backslashreplace", newline="\n") as text,
    ):
        yield text


def write_cut(file: TextIO, trainable: Trainable, *, relative_to: Path | None = None) -> None:
    """Write an utterance as a line of a file of cuts.

    Args:
        file: From `open_cut_file`.
        trainable: The utterance.
        relative_to: Folder from which the path of the recording is written; None writes it absolute.
    """
    utterance, learnable, info = trainable.utterance, trainable.learnable, trainable.info
    path = os.path.abspath(utterance.audio)
    name = str(utterance.audio) if utterance.is_segment else utterance.id
    is_reduced = learnable.text != utterance.text
    # Written as lhotse's `MonoCut.to_dict` would write it, which takes most of the time of a large corpus.
    recording = {
        "id": name,
        "sources": [
            {
                "type": "file",
                "channels": list(range(info.channels)),
                "source": path if relative_to is None else os.path.relpath(path, relative_to),
            }
        ],
        "sampling_rate": info.sample_rate,
        "num_samples": info.num_samples,
        "duration": info.duration,
        "channel_ids": list(range(info.channels)),
    }
    custom = _filled(
        phones=learnable.phones, label=learnable.label, orthography=utterance.text if is_reduced else None
    )
    supervision = _filled(
        id=utterance.id,
        recording_id=name,
        start=0.0,
        duration=trainable.duration,
        channel=0,
        text=learnable.text,
        language=utterance.language,
        speaker=utterance.speaker,
        custom=custom or None,
    )
    cut = {
        "id": utterance.id,
        "start": trainable.start,
        "duration": trainable.duration,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MonoCut",
    }
    file.write(json.dumps(cut, ensure_ascii=False) + "\n")


def _filled(**fields: object) -> dict[str, object]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
