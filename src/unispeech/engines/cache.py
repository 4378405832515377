"""Engines that were made of a checkpoint, kept in files beside it.

A file is a line of JSON and what the engine makes of it. The line holds the key, which is all that the engine
was made from: the weights and the configuration by their hash, versions, precision. A file with another key,
or one that is cut off or changed, is not used, and the engine made anew takes its place. Files are written
beside and renamed, so that two processes that make the same engine leave one whole file.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unispeech.checkpoints.files import WEIGHTS
from unispeech.engines.network import Recogniser

FOLDER = "engines"
"""Name of the folder beside a checkpoint."""

MAGIC = "unispeech engine"
"""What the first line of a file says."""

Key = Mapping[str, str | int]
"""What an engine was made from."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What has to be known of a recogniser beside its graph."""

    kernels: tuple[int, ...]
    """Kernel size of each convolution."""
    strides: tuple[int, ...]
    """Stride of each convolution."""
    num_symbols: int
    """Classes of the head."""
    blank: int | None
    """The class that is the CTC blank."""
    has_group_norm: bool
    """Whether the first convolution is normalised over time."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An engine that was made."""

    facts: Facts
    """Of the recogniser."""
    parts: Sequence[bytes]
    """What the engine runs, in parts that it knows."""


def facts_of(recogniser: Recogniser) -> Facts:
    """Take what has to be known beside the graph.

    Args:
        recogniser: The recogniser.

    Returns:
        The facts.
    """
    return Facts(
        kernels=recogniser.kernels,
        strides=recogniser.strides,
        num_symbols=recogniser.num_symbols,
        blank=recogniser.blank,
        has_group_norm=recogniser.has_group_norm,
    )


def hash_checkpoint(directory: Path) -> str | None:
    """Hash what an engine is made of.

    Args:
        directory: A model directory.

    Returns:
        Hexadecimal; None where weights or configuration are missing.
    """
    files = sorted({path for pattern in WEIGHTS for path in directory.glob(pattern)})
    if not files or not (directory / "config.json").is_file():
        return None
    found = hashlib.sha256()
    for path in (directory / "config.json", *files):
        found.update(path.name.encode())
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def places(directory: Path, name: str, checkpoint_hash: str) -> list[Path]:
    """List where the file of an engine may be.

    Args:
        directory: The model directory.
        name: Of the engine and its precision.
        checkpoint_hash: As `hash_checkpoint` gives it.

    Returns:
        Beside the checkpoint, and in the user's cache, for checkpoints that may only be read.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [
        directory / FOLDER / f"{name}.engine",
        root / "unispeech" / FOLDER / checkpoint_hash[:16] / f"{name}.engine",
    ]


def read(path: Path, key: Key) -> Made | None:
    """Read an engine.

    Args:
        path: Where it may be.
        key: What it must have been made from.

    Returns:
        The engine; None where there is none, it was made from anything else, or it is not whole.
    """
    try:
        with path.open("rb") as stream:
            first = json.loads(stream.readline(100_000))
            if first["is"] != MAGIC or first["key"] != dict(key):
                return None
            parts = [stream.read(size) for size in first["sizes"]]
            if stream.read(1) or [zlib.crc32(part) for part in parts] != first["checksums"]:
                return None
            geometry = {name: tuple(first["facts"][name]) for name in ("kernels", "strides")}
            return Made(facts=Facts(**{**first["facts"], **geometry}), parts=parts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, key: Key, made: Made) -> bool:
    """Keep an engine.

    Args:
        path: Where; its folders are made.
        key: What it was made from.
        made: The engine.

    Returns:
        Whether there was the right and the room to write; what was there before stays otherwise.
    """
    first = {
        "is": MAGIC,
        "key": dict(key),
        "facts": asdict(made.facts),
        "sizes": [len(part) for part in made.parts],
        "checksums": [zlib.crc32(part) for part in made.parts],
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            stream.write(json.dumps(first).encode() + b"\n")
            for part in made.parts:
                stream.write(part)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        return False
    return True
