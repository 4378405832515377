"""Run directories: a new run, or one that is taken up again.

A run directory holds `recipe.yaml` (complete), `log.jsonl`, TensorBoard's events, and the checkpoints `last/`
and `best/`. It is all that a resumption needs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from filelock import FileLock, Timeout

from unispeech.training.recipe import R, load_recipe
from unispeech.training.settings import dump_settings, first_difference
from unispeech.training.state import find_checkpoint

RECIPE_FILE = "recipe.yaml"

LOCK_FILE = ".lock"
"""Held by the process that trains; the system lets go of it when that ends, however it ends."""

CHANGEABLE = ("optim", "schedule", "runtime")
"""Sections that a resumption may set anew."""


@dataclass(frozen=True, kw_only=True)
class Run(Generic[R]):
    """A run that is about to start or to go on."""

    directory: Path
    """Where it writes."""
    recipe: R
    """What it does."""
    checkpoint: Path | None
    """Where it goes on; None starts from the recipe's model."""


def open_run(
    directory: Path,
    recipe_path: Path | None,
    overrides: Sequence[str],
    schema: type[R],
    *,
    resume: bool,
    report: Callable[[str], None],
) -> Run[R]:
    """Read the recipe of a run and find where it stands; nothing is written.

    Args:
        directory: The run directory.
        recipe_path: The recipe. A resumption takes that of the run; one that is given must say the same.
        overrides: "section.key=value" strings. A resumption takes those of `optim`, `schedule` and `runtime`
            and goes on with them.
        schema: The recipe class of the stage.
        resume: Whether to go on with the run that the directory holds.
        report: Is given a line for every checkpoint that is passed over.

    Returns:
        The run; without a checkpoint where a run was ended before its first.

    Raises:
        ValueError: If the directory holds a run and `resume` is False, a resumption is given another
            recipe, or the recipe is wrong.
        FileNotFoundError: If there is no recipe, or nothing to resume.
        NotADirectoryError: If a file is where the directory belongs.
        PermissionError: If the directory cannot be written to.
    """
    _check_place(directory)
    own = directory / RECIPE_FILE
    if not resume:
        if recipe_path is None:
            raise ValueError("`RECIPE` must be given for a new run, but is missing.")
        if own.exists():
            raise ValueError(
                f"{directory}: must not hold a run, but holds one; go on by --resume, or name another."
            )
        return Run(directory=directory, recipe=load_recipe(schema, recipe_path, overrides), checkpoint=None)
    if not own.exists():
        raise FileNotFoundError(f"{directory}: must hold a run to resume, but has no {RECIPE_FILE}.")
    for override in overrides:
        if override.partition(".")[0] not in CHANGEABLE:
            raise ValueError(
                f"--set {override}: a resumption may change {', '.join(CHANGEABLE)} only; start a new run "
                "from its `best` instead."
            )
    recipe = load_recipe(schema, own, overrides)
    if recipe_path is not None:
        key = first_difference(recipe, load_recipe(schema, recipe_path, overrides))
        if key:
            raise ValueError(
                f"{recipe_path}: `{key}` must be that of {own}, but differs; leave the recipe out."
            )
    return Run(directory=directory, recipe=recipe, checkpoint=find_checkpoint(directory, report))


def lock_run(directory: Path) -> FileLock:
    """Keep others from training in a run directory, which is made.

    Args:
        directory: The run directory.

    Returns:
        The lock, to be released when the run ends.

    Raises:
        ValueError: If another run holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{directory}: must be trained by one run at a time, but another one is at work; wait for it, "
            "or name another directory."
        ) from None
    return lock


def write_recipe(run: Run[R]) -> None:
    """Write the complete recipe into the run directory.

    Args:
        run: The run.
    """
    beside = run.directory / f"{RECIPE_FILE}.new"
    beside.write_text(dump_settings(run.recipe), encoding="utf-8")
    os.replace(beside, run.directory / RECIPE_FILE)


def _check_place(directory: Path) -> None:
    """Refuse a place that no run can be written to, before anything is read for it."""
    # Of a directory that is not there yet, the nearest folder above it tells.
    found = next((path for path in (directory, *directory.absolute().parents) if path.exists()), directory)
    if not found.is_dir():
        which = "is a file" if found == directory else f"{found} is a file"
        raise NotADirectoryError(f"{directory}: must be a folder for the run, but {which}; name another.")
    if not os.access(found, os.W_OK | os.X_OK):
        which = "is not" if found == directory else f"{found} is not"
        raise PermissionError(
            f"{directory}: must be a folder that can be written to, but {which}; "
            "change its permissions or name another."
        )
