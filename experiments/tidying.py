"""A finished training: what its log says at the end, and which files are not needed any more."""

import shutil
from pathlib import Path

from unispeech.formats.run_log import read_log

KEPT = (
    "loss/contrastive",
    "contrastive_accuracy",
    "contrastive_chance",
    "code_perplexity",
    "dead_codes/0",
    "dead_codes/1",
    "masked_fraction",
    "loss/ctc",
    "blank_ratio",
    "audio_seconds_per_second",
    "dev/per",
)
"""Names in the log whose last values are kept."""


def summarise_run(run: Path) -> dict[str, float]:
    """The last values of a log.

    Args:
        run: The run directory.

    Returns:
        Name -> value, and the number of `updates`.
    """
    curves = read_log(run).curves
    last = {name: round(float(curves[name].values[-1]), 4) for name in KEPT if name in curves}
    return last | {"updates": max(float(curve.updates[-1]) for curve in curves.values())}


def tidy_run(run: Path) -> None:
    """Remove what only a resumption needs, and the model that nothing is chosen by.

    Args:
        run: The run directory; `last` keeps its model.
    """
    shutil.rmtree(run / "best", ignore_errors=True)
    shutil.rmtree(run / "last" / "training_state", ignore_errors=True)
