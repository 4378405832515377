"""`log.jsonl` of a training run -> curves: a value per logged name and update."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispeech.errors import ManifestError

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one name took as values; the three arrays have the same length."""

    updates: np.ndarray
    """(P,) updates made."""
    hours: np.ndarray
    """(P,) hours of audio learned from."""
    values: np.ndarray
    """(P,) values as logged; NaN where they were not finite."""


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """All that a run has told."""

    directory: Path
    """The run directory."""
    curves: dict[str, Curve]
    """Logged name -> curve, in the order in which the names came up."""


def read_log(run: str | Path) -> RunLog:
    """Read the log of a run, finished or not.

    A last line that is not whole is left out: a running or killed run may end in one. So are values that
    are no numbers.

    Args:
        run: A run directory, or the `log.jsonl` in it.

    Returns:
        The curves of the run.

    Raises:
        FileNotFoundError: If there is no such directory, or it has no log.
        NotADirectoryError: If it is a file.
        ManifestError: If a line before the last is broken, or no line is whole.
    """
    directory = Path(run)
    directory = directory.parent if directory.name == LOG_FILE else directory
    path = directory / LOG_FILE
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: must be a run directory, but does not exist; check the path.")
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: must be a run directory, but is a file.")
    if not path.is_file():
        raise FileNotFoundError(f"{directory}: must hold a run, but has no {LOG_FILE}.")
    lines = path.read_bytes().splitlines()
    points: dict[str, list[tuple[float, float, float]]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = _entry(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ManifestError(f"{path}:{number}: {error}") from None
        update, seconds = entry.pop("update"), entry.pop("audio_seconds")
        entry.pop("eta_seconds", None)  # tells of the machine, not of the model
        for name, value in entry.items():
            points.setdefault(name, []).append((update, seconds / 3600, value))
    if not points:
        raise ManifestError(f"{path}: must hold a line with values, but has none; wait for the first.")
    return RunLog(directory=directory, curves={name: _curve(rows) for name, rows in points.items()})


def _entry(line: bytes) -> dict[str, float]:
    """Read a line: its numbers, of which `update` and `audio_seconds` are two."""
    try:
        # Strict UTF-8, so that a letter cut in two makes the line a broken one.
        fields = json.loads(line.decode())
    except ValueError:
        raise ValueError("line must be JSON, but is not.") from None
    if not isinstance(fields, dict):
        raise ValueError(f"line must be a JSON object, but is of type {type(fields).__name__}.")
    numbers = {
        name: float(value)
        for name, value in fields.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for name in ("update", "audio_seconds"):
        if name not in numbers:
            raise ValueError(f"`{name}` must be a number, but is {fields.get(name, 'missing')}.")
    return numbers


def _curve(points: list[tuple[float, float, float]]) -> Curve:
    updates, hours, values = np.array(points, dtype=np.float64).T
    return Curve(updates=updates, hours=hours, values=np.where(np.isfinite(values), values, np.nan))


def short_names(directories: Sequence[Path]) -> list[str]:
    """Name runs by the fewest last parts of their paths that tell them apart.

    Parts in which all paths end alike are left out: a/fold-1 and b/fold-1 are "a" and "b".

    Args:
        directories: Run directories, all different.

    Returns:
        A name for each; its last part for a single one.
    """
    parts = [Path(os.path.abspath(directory)).parts for directory in directories]
    while len(parts) > 1 and min(map(len, parts)) > 1 and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    # Bytes that are no text would stop the drawing.
    return [os.fsencode(os.path.join(*path[-length:])).decode(errors="replace") for path in parts]
