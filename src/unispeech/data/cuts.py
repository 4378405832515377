"""Cuts on disk: utterances that can be trained on, one lhotse `MonoCut` per line of a `cuts.jsonl.gz`.

Their recordings are files of their own, or lie in shards (see `unispeech.data.shards`).
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from unispeech.data.shards import (
    SHARDED,
    SHARDS,
    Shard,
    ShardIndex,
    find_shards,
    is_sharded,
    place_of,
    read_index,
)
from unispeech.errors import ManifestError

if TYPE_CHECKING:
    from lhotse import MonoCut

CUTS = "cuts.jsonl.gz"
"""Name of the file in a prepared folder."""


class CutFiles:
    """The cuts of one or more files, read anew from disk each time they are iterated over.

    Of shards the headers of the recordings are read once, and no audio.

    Args:
        paths: Files, folders with a `cuts.jsonl.gz`, and folders of shards or with such a folder (`shar`). A
            relative path of a recording in a file starts from the folder of that file.

    Raises:
        FileNotFoundError: If one of them does not exist.
        ManifestError: If a folder holds both cuts and shards, or half a shard.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        listed = [paths] if isinstance(paths, str | Path) else list(paths)
        self.paths: list[Path] = []
        """The files of cuts and the folders of shards."""
        self._sources: list[Path | Shard] = []
        self._indices: dict[Path, ShardIndex] = {}
        for path in map(Path, listed):
            folder = find_shard_folder(path)
            if folder is not None:
                self.paths.append(folder)
                self._sources += find_shards(folder)
                continue
            file = path / CUTS if path.is_dir() else path
            if not file.is_file():
                parts = sorted(str(part.parent) for part in path.glob(f"*/{CUTS}"))
                fix = f"there is {' and '.join(parts)}" if parts else "make it with unispeech prepare"
                raise FileNotFoundError(f"{file}: no such file; {fix}.")
            self.paths.append(file)
            self._sources.append(file)

    def __iter__(self) -> "Iterator[MonoCut]":
        """Read the cuts in the order of the files.

        Yields:
            Cuts with one supervision and a recording that is a file, or has its place in a shard.

        Raises:
            ManifestError: If a line is not such a cut, or a file is damaged, or cuts and recordings of a
                shard are not the same.
        """
        for source in self._sources:
            if isinstance(source, Shard):
                yield from self._read_shard(source)
            else:
                for number, line in read_lines(source):
                    yield read_cut(line, source, number)

    def _read_shard(self, shard: Shard) -> "Iterator[MonoCut]":
        tar = shard.recordings
        if tar not in self._indices:
            self._indices[tar] = _match(shard)
        index = self._indices[tar]
        for position, (number, line) in enumerate(read_lines(shard.cuts)):
            cut = read_cut(line, shard.cuts, number, sharded=True)
            if position >= len(index) or not index.is_at(position, cut.id):
                raise ManifestError(
                    f"{shard.cuts}:{number}: cuts must stand in the order of {tar.name}, but {cut.id} has "
                    "another recording there; copy both files again, or prepare the corpus again."
                )
            if not index.places[position, 1]:
                raise ManifestError(f"{shard.cuts}:{number}: cut must have a recording, but has none.")
            cut.recording.sources[0].source = place_of(tar, index, position)
            yield cut


def find_shard_folder(path: Path) -> Path | None:
    """Find shards where a user names them: the folder itself, or what `unispeech prepare` wrote.

    Args:
        path: A folder, or anything else.

    Returns:
        The folder of the shards; None where there are none.

    Raises:
        ManifestError: If the folder holds cuts beside the shards.
    """
    if not path.is_dir():
        return None
    folder = path / SHARDS if is_sharded(path / SHARDS) else path
    if not is_sharded(folder):
        return None
    if (path / CUTS).exists():
        raise ManifestError(
            f"{path}: must hold {CUTS} or shards, but holds both; move one of them to another folder."
        )
    return folder


def _match(shard: Shard) -> ShardIndex:
    """The index of a shard whose two files are of the same length."""
    index = read_index(shard.recordings)
    num_cuts = sum(1 for _ in read_lines(shard.cuts))
    if num_cuts != len(index):
        raise ManifestError(
            f"{shard.recordings}: must hold a recording for each of the {num_cuts} cuts in "
            f"{shard.cuts.name}, but holds {len(index)}; copy both files again, or prepare the corpus again."
        )
    return index


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a file of cuts, compressed or not.

    Args:
        path: The file.

    Yields:
        Numbers from 1 and lines that are not blank.

    Raises:
        ManifestError: If the file is damaged.
    """
    number = 0
    try:
        with _open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ManifestError(f"{path}:{number + 1}: must be readable, but is not ({error}).") from None


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8-sig") if is_gzip else path.open(encoding="utf-8-sig")


def read_cut(line: str, path: Path, number: int, *, sharded: bool = False) -> "MonoCut":
    """Read one line of a file of cuts.

    Args:
        line: The line.
        path: The file, for messages and for relative paths of recordings.
        number: Number of the line.
        sharded: Whether the recording must lie in a shard; else it must be a file.

    Returns:
        A cut with one supervision; its recording's path is absolute, or empty where it lies in a shard.

    Raises:
        ManifestError: If the line is no such cut.
    """
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
    wanted = SHARDED if sharded else "file"
    if source.type != wanted:
        fix = "; name the folder of the shards." if source.type == SHARDED else "."
        place = "lie in a shard" if sharded else "be a file"
        raise ManifestError(f"{path}:{number}: recording must {place}, but is {source.type!r}{fix}")
    if not sharded:
        # Of a recording all channels are averaged.
        if cut.channel != 0 or len(cut.recording.sources) > 1:
            raise ManifestError(
                f"{path}:{number}: recording must be one file of which all channels are heard, but is "
                f"channel {cut.channel} of {cut.recording.num_channels}; "
                "write the channel into a file of its own."
            )
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
