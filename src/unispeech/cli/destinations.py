"""Where the results of many recordings go: a file each, or lines of one file; what is done can be told."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from unispeech.cli.processes import Process
    from unispeech.pipelines.listing import Listed

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Destination(Protocol[R_contra]):
    """Takes results as they come."""

    def is_done(self, listed: "Listed") -> bool:
        """Whether an earlier run left the result of a recording here.

        Args:
            listed: The recording.
        """
        ...

    def write(self, path: str, result: R_contra) -> None:
        """Write a result so that it is there if the next one fails.

        Args:
            path: Of the recording.
            result: Its result.

        Raises:
            OSError: If it cannot be written; what stood there before stands.
        """
        ...


def refuse_input(output: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse an output that is read, too: writing would lose it.

    Args:
        output: The file to write.
        inputs: What is read; names of files, or anything else.

    Raises:
        ValueError: If one of them is that file.
    """
    for name in inputs:
        with suppress(OSError):
            # A text may stand where a file could, and be no name at all.
            if "\0" not in str(name) and output.is_file() and output.samefile(name):
                raise ValueError(f"`--output` must not be what is read, but is {output}; name another file.")


class FolderDestination(Generic[R]):
    """A file per recording, written in one step.

    Args:
        folder: Made where it is missing.
        recordings: All that will be written, in all processes.
        ending: Of the files.
        write_as: Writes a result in the format asked for.

    Raises:
        ValueError: If two recordings would go to one file.
        NotADirectoryError: If `folder` is a file.
    """

    def __init__(
        self,
        folder: Path,
        recordings: Sequence["Listed"],
        ending: str,
        write_as: Callable[[R], str],
    ) -> None:
        self._write_as = write_as
        self._places = places_in(folder, recordings, ending)

    def is_done(self, listed: "Listed") -> bool:
        """Whether the file is there: it is written in one step, so it is whole.

        Args:
            listed: The recording.
        """
        try:
            return self._places[listed.path].exists()
        except OSError:  # a name that no file can have
            return False

    def write(self, path: str, result: R) -> None:
        """Write the file of a recording.

        Args:
            path: Of the recording.
            result: Its result.

        Raises:
            OSError: If it cannot be written, with the path of the file.
        """
        from unispeech.formats.files import write_file

        write_file(self._places[path], self._write_as(result) + "\n")


class LinesDestination(Generic[R]):
    """One file of JSON lines, a recording each, in the order in which they finish.

    Several processes write a file each, `talks-00000-of-00004.jsonl` for `talks.jsonl`. A line that cannot be
    written whole is taken back, and one that an earlier run left torn is cut off.

    Args:
        path: Of the file, as asked for.
        process: This process.
        to_line: Writes a result as JSON on one line, with its path as `audio`.
        resume: Whether to add to what is there.

    Raises:
        FileExistsError: If there is such a file and `resume` is False.
        ValueError: If what is there was not written by an earlier run.
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path, process: "Process", to_line: Callable[[R], str], *, resume: bool) -> None:
        self._to_line = to_line
        self._path = own_file(path, process)
        if self._path.exists() and not resume:
            raise FileExistsError(
                f"{self._path}: is there already; pass --resume to add what is missing, or remove it."
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        done = all_files(path) if resume else []
        for file in done:
            _check_is_ours(file)
        self._done = {audio for file in done for audio in _audio_of_lines(file.read_bytes())}
        # Without a buffer: each line is written when it is given.
        self._file = self._path.open("ab", buffering=0)
        content = self._path.read_bytes()
        self._file.truncate(content.rfind(b"\n") + 1)

    def is_done(self, listed: "Listed") -> bool:
        """Whether a line of an earlier run, of any of its processes, is about a recording.

        Args:
            listed: The recording.
        """
        return listed.path in self._done

    def write(self, path: str, result: R) -> None:
        """Add the line of a recording.

        Args:
            path: Of the recording.
            result: Its result.

        Raises:
            OSError: If it cannot be written, with the path of the file.
        """
        end = self._file.seek(0, 2)
        line = memoryview((self._to_line(result) + "\n").encode(errors="surrogateescape"))
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def places_in(folder: Path, recordings: Sequence["Listed"], ending: str) -> dict[str, Path]:
    """Name a file for the result of each recording.

    Args:
        folder: Where the files go.
        recordings: All that will be written, in all processes.
        ending: Of the files.

    Returns:
        Path of each recording -> its file.

    Raises:
        ValueError: If two recordings would go to one file, or a recording would be written over.
        NotADirectoryError: If `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: `--output` must be a folder, but is a file; name another.")
    places: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for listed in recordings:
        place = folder / f"{listed.name}.{ending}"
        if place in owners:
            raise ValueError(
                f"`audio` must differ in file names where `--output` is given, but {owners[place]} and "
                f"{listed.path} would both be {place}; do them into folders of their own."
            )
        refuse_input(place, [listed.path])
        owners[place] = listed.path
        places[listed.path] = place
    return places


def own_file(path: Path, process: "Process") -> Path:
    """Name the file of one of several processes.

    Args:
        path: Of the file, as asked for.
        process: This process.

    Returns:
        The path itself where there is one process, else with its number, `talks-00000-of-00004.jsonl`.
    """
    if process.num_ranks == 1:
        return path
    return path.with_name(f"{path.stem}-{process.rank:05}-of-{process.num_ranks:05}{path.suffix}")


def all_files(path: Path) -> list[Path]:
    """Find the files of a destination, whatever the number of processes that wrote them.

    Args:
        path: Of the file, as asked for.

    Returns:
        Those that are there.
    """
    shard = re.compile(rf"{re.escape(path.stem)}(-\d{{5}}-of-\d{{5}})?{re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    return [file for file in sorted(path.parent.iterdir()) if shard.fullmatch(file.name)]


def _check_is_ours(path: Path) -> None:
    """Refuse to add to a file of another kind, such as a manifest: its last line might be cut off as torn."""
    with path.open("rb") as file:
        first = file.readline()
    if first.endswith(b"\n") and b'"version"' not in first:
        raise ValueError(
            f"`--output` must be results of an earlier run where --resume is given, but {path} is something "
            "else; name another file."
        )


def _audio_of_lines(content: bytes) -> list[str]:
    """The paths in whole lines; a line without one, and a last one without an end, count for nothing."""
    paths = []
    for line in content.splitlines(keepends=True):
        with suppress(ValueError, TypeError, KeyError):
            if line.endswith(b"\n"):
                # A path is told by its bytes, whatever they mean.
                paths.append(str(json.loads(line.decode(errors="surrogateescape"))["audio"]))
    return paths
