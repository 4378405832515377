"""Checkpoints of a run: what a later process needs to go on as if nothing had happened.

A checkpoint is a Hugging Face model directory with a `training_state/` in it. It is written beside its place
and renamed, so that a full disk or a kill leaves the earlier one; `files.json`, written last, lists the size
of every file, so that one that was torn all the same is known as such and passed over.

Random numbers need no place here: every update seeds its own generators from the recipe's seed, the rank and
the update's number (`seed_update`), so its dropout and masks are the same whenever it is run.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unispeech.errors import CheckpointError

STATE_DIRECTORY = "training_state"
LAST, BEST, STOPPED = "last", "best", "stopped"
_STATE_FILE, _RECIPE_FILE, _LIST_FILE = "state.pt", "recipe.yaml", "files.json"
_NEW, _OLD = ".new", ".old"
_LATER = {"num_suspect": 0}
"""What the states of earlier versions do not have."""


@dataclass(kw_only=True)
class TrainingState:
    """Where a run stands, in tensors and plain values only."""

    update: int = 0
    """Updates made."""
    audio_seconds: float = 0.0
    """Audio learned from, over all processes, padding not counted."""
    validated_update: int = 0
    """Update of the last validation; 0 before the first."""
    best: float | None = None
    """Best value of the stage's metric so far; None before the first validation."""
    num_suspect: int = 0
    """Lines of the log in a row, up to the last, that looked like a collapse."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """State of the optimiser."""
    micro_batches: int = 1
    """Micro-batches of an update, over all processes."""
    ranks: list[dict[str, Any]] = field(default_factory=list)
    """Of every process, in order: its position in the data, and its meters since the last line of the log."""


def seed_update(seed: int, rank: int, update: int, use: Literal["data", "model"]) -> None:
    """Set the generators of Python, numpy and torch for one update of one process.

    Args:
        seed: Seed of the recipe.
        rank: Number of the process, from 0.
        update: Number of updates made before this one.
        use: What the random numbers are for; loading data and the network draw independently.
    """
    numbers = np.random.SeedSequence([seed, rank, update, int(use == "model")]).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(int(numbers[1]))
    torch.manual_seed(int(numbers[2]))


def save_checkpoint(
    directory: Path, state: TrainingState, *, save_model: Callable[[Path], None], recipe: str
) -> None:
    """Write a checkpoint beside its place, then rename it there.

    Args:
        directory: Where it belongs; an earlier checkpoint there is replaced once the new one is complete.
        state: Where the run stands.
        save_model: Writes the model directory, vocabulary included, into the directory it is given.
        recipe: The resolved recipe as YAML.

    Raises:
        OSError: If writing fails, for want of space for instance; what was there before is still there.
    """
    new = directory.with_name(directory.name + _NEW)
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_model(new)
        inside = new / STATE_DIRECTORY
        inside.mkdir()
        # Through a file of Python's, whose errors say why: torch's own writer hides that a disk is full.
        with (inside / _STATE_FILE).open("wb") as file:
            torch.save(asdict(state), file)
        (inside / _RECIPE_FILE).write_text(recipe, encoding="utf-8")
        sizes = {str(path.relative_to(new)): path.stat().st_size for path in _files(new)}
        (inside / _LIST_FILE).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
        for path in _files(new):
            _flush(path)
    except Exception as error:
        # Not every library that writes here reports a full disk as an OSError.
        shutil.rmtree(new, ignore_errors=True)
        kept = (
            f"the checkpoint that was there is untouched in {directory}"
            if directory.exists()
            else "none is there"
        )
        raise OSError(
            f"{directory}: checkpoint of update {state.update} could not be written ({_reason(error)}); "
            f"{kept}."
        ) from error
    _replace_directory(new, directory)


def find_checkpoint(run: Path, report: Callable[[str], None]) -> Path | None:
    """Find the most advanced complete checkpoint of a run.

    A kill between the two renames of a replacement leaves `last.new` and `last.old`, which count too.
    `stopped` comes before a `last` of the same update: it stands behind what must not be tried again.

    Args:
        run: The run directory.
        report: Is given one line for every checkpoint that is passed over.

    Returns:
        The checkpoint's directory, or None where there is no complete one.
    """
    names = [name + ending for name in (STOPPED, LAST, BEST) for ending in ("", _NEW, _OLD)]
    found = _complete([run / name for name in names], report)
    return found[0][1] if found else None


def settle_checkpoints(run: Path) -> None:
    """Finish what a kill interrupted: the newest complete one of each name goes to its place.

    Args:
        run: The directory of a run that goes on, once nobody reads its checkpoints any more.
    """
    for name in (STOPPED, LAST, BEST):
        place, new, old = (run / (name + ending) for ending in ("", _NEW, _OLD))
        if new.is_dir() or old.is_dir():
            found = _complete([place, new, old], lambda line: None)
            if found and found[0][1] != place:
                shutil.rmtree(place, ignore_errors=True)
                os.replace(found[0][1], place)
            for rest in (new, old):
                shutil.rmtree(rest, ignore_errors=True)
        # What the model's own writer had not finished.
        for rest in run.glob(f".{name}{_NEW}.*"):
            shutil.rmtree(rest, ignore_errors=True)


def _complete(directories: Sequence[Path], report: Callable[[str], None]) -> list[tuple[int, Path]]:
    """The complete checkpoints among directories with their updates, the most advanced first."""
    found: list[tuple[int, Path]] = []
    for directory in directories:
        if not directory.is_dir():
            continue
        try:
            found.append((load_state(directory).update, directory))
        except CheckpointError as error:
            report(f"{error} It is passed over.")
    # The order is kept among equals.
    return sorted(found, key=lambda entry: -entry[0])


def load_state(directory: Path) -> TrainingState:
    """Read the training state of a checkpoint after looking whether the checkpoint is complete.

    Args:
        directory: The checkpoint.

    Returns:
        The state, tensors on the CPU.

    Raises:
        CheckpointError: If a file is missing, shorter than it was written, or unreadable.
    """
    inside = directory / STATE_DIRECTORY
    try:
        sizes: Mapping[str, int] = json.loads((inside / _LIST_FILE).read_text(encoding="utf-8"))
        for name, size in sizes.items():
            if (directory / name).stat().st_size != size:
                raise ValueError(f"{name} has another size")
        values = torch.load(inside / _STATE_FILE, map_location="cpu", weights_only=True)
        values = _LATER | values
        return TrainingState(**{part.name: values[part.name] for part in fields(TrainingState)})
    except FileNotFoundError as error:
        reason = f"{Path(str(error.filename)).name} is missing"
    except Exception as error:  # whatever a torn file makes of a reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise CheckpointError(f"{directory}: checkpoint must be complete, but {reason}.")


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch dropout, masks and gradients off, and back on."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _reason(error: BaseException) -> str:
    """What the system said, also where a library raised an error of its own on top."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _replace_directory(new: Path, directory: Path) -> None:
    """Put a complete directory in the place of another; one of the two is there at every moment."""
    old = directory.with_name(directory.name + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(new, directory)
    _flush(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    """Have the system write a file or a directory down before what follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
