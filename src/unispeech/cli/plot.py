"""`unispeech plot`: the curves of training runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def plot(
    runs: list[Path],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    x: Literal["updates", "audio"] = "updates",
    smooth: int = 0,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
) -> int:
    """Draw the curves of training runs (extra draw) and write the path of the picture.

    Every quantity in the logs has a panel, every run a colour; runs are called by the parts of their paths
    that tell them apart. Training is a plain line, held-out data a line with markers. Runs that are not
    finished are drawn as far as they have come. A run that cannot be read is reported, the rest is drawn,
    and the exit status is 1.

    Examples:
      unispeech plot runs/phones
      unispeech plot runs/stage-1 runs/stage-2 -o curves.svg --x audio --smooth 5
      unispeech plot runs/* -o per.png --only per loss/ctc

    Args:
        runs: Run directories.
        output: The picture, .png, .svg or .pdf. Without it, curves.png in the run directory, if there is one
            run.
        x: What the curves run over: updates, or hours of audio heard.
        smooth: Lines of the log to either side that training lines are averaged over; the raw lines stay,
            faint.
        only: What to draw, by the names in the log: loss/ctc for training and held-out data, dev/loss/ctc
            for the latter alone. Without it, all.

    Returns:
        0, or 1 if a run could not be read.
    """
    from os.path import abspath

    from unispeech.cli import describe
    from unispeech.formats.curves import draw_curves
    from unispeech.formats.figures import format_of
    from unispeech.formats.run_log import read_log

    directories = list({abspath(run): run for run in runs}.values())
    if output is None and len(directories) > 1:
        raise ValueError("`--output` must be given for several runs, but is missing; add -o curves.png.")
    path = output or directories[0] / "curves.png"
    format_of(path)
    logs = []
    for directory in directories:
        try:
            logs.append(read_log(directory))
        except (OSError, ValueError) as error:
            print(f"unispeech: {describe(error)}", file=sys.stderr)
    if logs:
        draw_curves(logs, path, x=x, smooth=smooth, only=only)
        print(path)
    return 1 if len(logs) < len(directories) else 0
