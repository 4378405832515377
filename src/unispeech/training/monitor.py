"""What a run tells while it runs: a line in `log.jsonl`, TensorBoard, and the progress on stderr.

Names are stable. Every line has `update` and `audio_seconds` (learned from so far). Training lines average
over the updates since the last one: `loss` (what is minimised, per target), `loss/ctc` (nats per symbol),
`loss/frame` (nats per frame), `frame_accuracy`, `accuracy`, `blank_ratio` (share of frames whose best symbol
is the blank), `infeasible_fraction` (share of utterances with more symbols than frames), `grad_norm` (before
it is shortened), `lr`, `audio_seconds_per_second`, `waiting_fraction` (share of the time spent on waiting for
batches) and `padding_fraction`. Pre-training adds `loss/contrastive` and `loss/diversity` (per target frame),
`contrastive_accuracy` and `contrastive_chance`, `code_perplexity` and `prob_perplexity` (summed over
codebooks), `dead_codes/G` (entries of codebook G that no target chose since the last line), `masked_fraction`
(targets among the frames), `equal_negatives` (share of negatives with the codes of their positive) and
`temperature`. Validation lines have `dev/per`, `dev/wer`, `dev/cer`, `dev/accuracy`, `dev/loss`,
`dev/loss/ctc`, `dev/blank_ratio`, `dev/loss/contrastive` and `dev/contrastive_accuracy`, as far as the stage
has them.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

LOG_FILE = "log.jsonl"


class Meters:
    """What adds up between two lines of the log: counts, and weighted sums (value: sum over weight)."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, total: float, weight: float) -> None:
        """Add to a meter.

        Args:
            name: The logged name.
            total: What is summed.
            weight: What the sum is divided by in the end: a count, seconds, frames.
        """
        before = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (before[0] + total, before[1] + weight)

    def count(self, name: str, counts: Tensor) -> None:
        """Add to a table of counts.

        Args:
            name: What is counted.
            counts: Any shape, the same every time.
        """
        counts = counts.detach().cpu()
        before = self._counts.get(name)
        self._counts[name] = counts if before is None else before + counts

    def state_dict(self) -> dict[str, Any]:
        """The sums and counts as lists and tensors."""
        return {
            "sums": {name: list(pair) for name, pair in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from stored sums and counts."""
        self._sums = {name: (total, weight) for name, (total, weight) in state["sums"].items()}
        self._counts = dict(state["counts"])

    def clear(self) -> None:
        """Start anew."""
        self._sums.clear()
        self._counts.clear()


def average(states: list[dict[str, Any]]) -> dict[str, float]:
    """Join the weighted sums of all processes.

    Args:
        states: `Meters.state_dict()` of every process.

    Returns:
        Name -> value; meters without weight are left out.
    """
    sums: dict[str, list[float]] = {}
    for state in states:
        for name, (total, weight) in state["sums"].items():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] += total
            pair[1] += weight
    return {name: total / weight for name, (total, weight) in sums.items() if weight}


def total_counts(states: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Join the counts of all processes.

    Args:
        states: `Meters.state_dict()` of every process.

    Returns:
        Name -> counts.
    """
    totals: dict[str, Tensor] = {}
    for state in states:
        for name, counts in state["counts"].items():
            totals[name] = totals[name] + counts if name in totals else counts
    return totals


class Monitor:
    """Writes the log of a run; made in the main process only, a context manager.

    Args:
        run: The run directory.
        update: Updates made before; later lines of an interrupted run are taken out of the log.
        num_updates: Updates in the whole run.
        audio_seconds: Audio learned from before.
    """

    def __init__(self, run: Path, *, update: int, num_updates: int, audio_seconds: float) -> None:
        self._path = run / LOG_FILE
        self._first_update, self._num_updates = update, num_updates
        self._audio_seconds = audio_seconds
        self._shown: dict[str, float] = {}
        _drop_lines_behind(self._path, update)

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from torch.utils.tensorboard import SummaryWriter

        self._file = self._path.open("a", encoding="utf-8")
        self._writer: Any = SummaryWriter(str(self._path.parent), purge_step=self._first_update + 1)
        self._started = time.monotonic()
        console = Console(stderr=True)
        self._console = console
        self._progress = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[audio]}"),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "", total=self._num_updates, completed=self._first_update, audio="", values=""
        )
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._writer.close()
        self._file.close()

    def advance(self, update: int, audio_seconds: float) -> None:
        """Move the progress bar.

        Args:
            update: Updates made.
            audio_seconds: Audio learned from in the whole run.
        """
        self._audio_seconds = audio_seconds
        self._progress.update(self._task, completed=update, audio=f"{_spoken(audio_seconds)} heard")

    def log(self, update: int, values: Mapping[str, float]) -> None:
        """Write one line.

        Args:
            update: Updates made.
            values: Name -> value.
        """
        done = update - self._first_update
        left = (time.monotonic() - self._started) / max(done, 1) * (self._num_updates - update)
        line = {"update": update, "audio_seconds": round(self._audio_seconds, 3), **values}
        if "audio_seconds_per_second" in values:  # not a line of validation
            line["eta_seconds"] = round(left, 1)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)
        self._shown |= {
            name: value for name, value in values.items() if name in _SHOWN or name.startswith("dev/")
        }
        self._progress.update(self._task, values=self._brief())
        if not self._console.is_terminal:
            text = "  ".join(f"{name} {value:.4g}" for name, value in self._shown.items())
            print(
                f"update {update}/{self._num_updates}  {_spoken(self._audio_seconds)} of audio  {text}  "
                f"ETA {_spoken(left)}",
                file=sys.stderr,
            )

    def _brief(self) -> str:
        """What fits beside a progress bar: speed, loss and the first validated value."""
        parts = [f"{self._shown.get('audio_seconds_per_second', 0.0):.0f} s/s"]
        parts += [f"loss {self._shown['loss']:.3g}"] if "loss" in self._shown else []
        parts += [f"{self._shown['code_perplexity']:.0f} codes"] if "code_perplexity" in self._shown else []
        judged = next((name for name in self._shown if name.startswith("dev/")), None)
        parts += [f"{judged} {self._shown[judged]:.3g}"] if judged else []
        return " ".join(parts)


_SHOWN = ("loss", "lr", "audio_seconds_per_second", "contrastive_accuracy", "code_perplexity")


def _drop_lines_behind(path: Path, update: int) -> None:
    """Keep the lines of a log up to an update: the later ones are about to be made again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["update"] <= update:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # cut off by the kill
    beside = path.with_name(path.name + ".new")
    beside.write_text("".join(kept), encoding="utf-8")
    os.replace(beside, path)


def _spoken(seconds: float) -> str:
    """Seconds for people: 45 s, 12.3 min, 4.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
