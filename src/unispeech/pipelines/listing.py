"""Folders, patterns, manifests and lists -> recordings, each with a name for its result."""

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from unispeech.errors import ManifestError

STDIN = "-"
"""The path that stands for standard input."""

AUDIO_ENDINGS = frozenset({
    *("wav", "flac", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "caf", "w64", "sph"),
    *("m4a", "mp4", "mov", "webm", "mkv", "mka", "wma", "amr", "aac"),
})
"""Endings of the files that are taken from a folder."""

AUDIO_KEYS = ("audio", "audio_filepath")
"""Where a line of a manifest has its path: ours, and NeMo's."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A recording that was asked for."""

    path: str
    """Where it is; `-` for standard input."""
    name: str
    """Its path within the folder, pattern or manifest that it came from, without its ending."""


def list_recordings(sources: Iterable[str]) -> list[Listed]:
    """Find what is to be done; nothing is opened but manifests.

    Args:
        sources: Audio files, folders (all that is audio in them and below), patterns (`*`, `?`, `[`, `**`)
            where there is no file of that name, manifests (`.jsonl` with `audio` in each line, relative to
            the manifest), and `-`.

    Returns:
        The recordings in the order given, a folder's by name, each path once.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ManifestError: If a line of a manifest names no audio.
    """
    found: dict[str, Listed] = {}
    for source in sources:
        for listed in _expand(source):
            found.setdefault(listed.path, listed)
    return list(found.values())


def read_list(lines: Iterable[str]) -> list[str]:
    """Take paths from a list, such as the output of `find`.

    Args:
        lines: A path each; empty lines do not count.

    Returns:
        The paths.
    """
    return [path for line in lines if (path := line.rstrip("\r\n"))]


def take_shard(recordings: Sequence[Listed], rank: int, num_ranks: int) -> list[Listed]:
    """Give one of several processes its share of the work.

    Args:
        recordings: The same list in every process.
        rank: Number of the process, in [0, num_ranks).
        num_ranks: How many share the work.

    Returns:
        Every `num_ranks`-th recording.
    """
    return list(recordings[rank::num_ranks])


def _expand(source: str) -> Iterator[Listed]:
    """Find what one source stands for.

    Yields:
        Its recordings.
    """
    path = Path(source)
    if not source:
        # Path("") is the current folder, which nobody meant who wrote "$FILE" without a FILE.
        raise ValueError("`audio` must not be empty; name a recording, or . for all below this folder.")
    if source == STDIN:
        yield Listed(path=STDIN, name="stdin")
    elif path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _is_audio(file.relative_to(path))]
        yield from (_listed(str(file), path) for file in files)
        if not files:  # told when it is read, so that the other sources are done
            yield Listed(path=source, name=path.stem)
    elif path.suffix == ".jsonl":
        yield from _read_manifest(path)
    elif glob.has_magic(source) and not path.exists():
        files = sorted(Path(match) for match in glob.glob(source, recursive=True))
        files = [file for file in files if file.is_file()]
        fixed = [part for part in path.parts[: _first_magic(path.parts)]]
        yield from (_listed(str(file), Path(*fixed)) for file in files)
        if not files:
            yield Listed(path=source, name=path.stem)
    else:
        yield Listed(path=source, name=path.stem)


def _first_magic(parts: Sequence[str]) -> int:
    """Place of the first part of a path that is a pattern."""
    return next(place for place, part in enumerate(parts) if glob.has_magic(part))


def _is_audio(path: PurePath) -> bool:
    """Whether a file below a folder is taken: by its ending, hidden ones never."""
    is_hidden = any(part.startswith(".") for part in path.parts)
    return not is_hidden and path.suffix.removeprefix(".").lower() in AUDIO_ENDINGS


def _listed(path: str, root: Path) -> Listed:
    """A recording that is named by its place below a folder, or by its file's name where it is elsewhere."""
    file = Path(path)
    inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    name = Path(file.name) if ".." in inside.parts else inside
    return Listed(path=path, name=name.with_suffix("").as_posix())


def _read_manifest(path: Path) -> Iterator[Listed]:
    """Read a manifest.

    Yields:
        The recording of each line.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such manifest; check the path.")
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ManifestError(
                    f"{path}:{number}: must be a JSON object, but is not: {error}."
                ) from error
            audio = (
                next((row[key] for key in AUDIO_KEYS if key in row), None) if isinstance(row, dict) else None
            )
            if not isinstance(audio, str) or not audio:
                raise ManifestError(
                    f"{path}:{number}: must be an object with the path of a recording in `audio`, "
                    f"but is {line.strip()[:80]}."
                )
            yield _listed(str(path.parent / audio), path.parent)
