"""Logs of training runs -> a picture of their curves, a panel for each quantity."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unispeech.formats.figures import FAINT, FONT, INK, format_of, new_figure, save_figure
from unispeech.formats.quantities import (
    CHANCES,
    DEV,
    Quantity,
    choose,
    in_order,
    panel_of,
    quantity_of,
)
from unispeech.formats.run_log import RunLog, short_names

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by colour-blind readers too (Okabe and Ito); their yellow is too faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""A second sign of the run, at its values on held-out data."""
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (2, 1)),
)
"""Of the first runs, and of those for which the colours have to be used again."""
MAX_RUNS = len(COLOURS) * len(DASHES)

CELL_WIDTH, CELL_HEIGHT = 3.7, 2.55
"""Inches of a panel with all that belongs to it."""
LONE_WIDTH, LONE_HEIGHT = 7.0, 4.2
"""The same where there is one panel only."""
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.2, 0.52, 0.5
"""Inches of a panel beside its axes, for the numbers and titles."""
ROW = 0.24
"""Inches of a row of the legend."""
LETTER = 0.085
"""Inches that a letter of the legend takes at most, on average."""
MAX_MARKERS = 25
"""On one curve."""
STEPS = (1, 2, 2.5, 5, 10)
"""Between the numbers of an axis, times a power of ten."""

X = Literal["updates", "audio"]
X_LABELS: dict[X, str] = {"updates": "updates", "audio": "hours of audio heard"}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a run is told from the others."""

    colour: str
    dash: str | tuple[float, tuple[float, ...]]
    marker: str


def draw_curves(
    runs: Sequence[RunLog], path: str | Path, *, x: X = "updates", smooth: int = 0, only: Sequence[str] = ()
) -> None:
    """Draw the curves of runs, one panel for each quantity that they have, and save the picture.

    A run has one colour everywhere. Training is a plain line, held-out data (`dev/`) a line with markers in
    the same panel, with the best value of each run above; what guessing would give is dotted. Losses, the
    gradient norm and the temperature go on a logarithmic axis where they cover more than a decade.

    Args:
        runs: Logs of different run directories, at least one.
        path: Where the picture goes; `.png`, `.svg` or `.pdf`.
        x: What the curves run over: updates, or hours of audio learned from.
        smooth: Lines of the log to either side that a point of a training line is averaged with; the raw
            line stays behind it, faint. 0 draws the raw line alone.
        only: Names of what to draw, see `quantities.choose`; empty draws all.

    Raises:
        ValueError: If there is no run or there are too many to be told apart, the path ends in something
            else, `smooth` is negative, or a name in `only` is unknown.
        ImportError: If matplotlib is not installed.
        OSError: If the picture cannot be written.
    """
    path = Path(path)
    format_of(path)  # before anything is drawn
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(f"`runs` must be 1 to {MAX_RUNS}, to be told apart, but are {len(runs)}.")
    if smooth < 0:
        raise ValueError(f"`smooth` must not be negative, but is {smooth}.")
    chosen = choose({name for run in runs for name in run.curves}, only)
    save_figure(_figure(runs, chosen, x, smooth), path)


def running_mean(values: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Average every value with its neighbours.

    Towards the ends there are fewer to either side, as many before as behind, so that a slope is not bent.

    Args:
        values: (P,) values, at least one; NaN is left out of the averages.
        num_neighbours: Values to either side.

    Returns:
        (P,) averages; NaN where there is nothing to average.
    """
    is_there = np.isfinite(values)
    filled = np.where(is_there, values, 0.0)
    reach = min(num_neighbours, (len(values) - 1) // 2)
    # Not by differences of running sums, in which one great value would wipe out all behind it.
    window = np.ones(2 * reach + 1)
    sums, counts = (np.convolve(part, window, "same") for part in (filled, is_there))
    for place in range(reach):
        for centre in (place, len(values) - 1 - place):
            near = slice(centre - place, centre + place + 1)
            sums[centre], counts[centre] = filled[near].sum(), is_there[near].sum()
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def short_number(value: float) -> str:
    """Write a number of an axis: 0.01 and 250 as they are, 0.00025 as 2.5e-4.

    Args:
        value: The number.
    """
    if value == 0 or abs(value) >= 0.005:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _figure(runs: Sequence[RunLog], chosen: set[str], x: X, smooth: int) -> "Figure":
    """Lay out legend and panels, in inches from the top."""
    panels = in_order({panel_of(name) for name in chosen})
    looks = [
        Look(colour=colour, dash=dash, marker=marker)
        for dash, (colour, marker) in product(DASHES, zip(COLOURS, MARKERS, strict=True))
    ]
    names = short_names([run.directory for run in runs])
    num_columns = _num_columns(len(panels))
    num_rows = -(-len(panels) // num_columns)
    is_lone = len(panels) == 1
    cell_width, cell_height = (LONE_WIDTH, LONE_HEIGHT) if is_lone else (CELL_WIDTH, CELL_HEIGHT)
    name_width = 0.5 + LETTER * max(map(len, names))
    width = max(num_columns * cell_width, name_width + 0.2)
    names_per_row = min(len(runs), int(width / name_width))
    header = 0.15 + ROW * (-(-len(runs) // names_per_row) + 1)
    height = header + num_rows * cell_height
    figure = new_figure(width, height)
    for place, panel in enumerate(panels):
        row, column = divmod(place, num_columns)
        left, bottom = column * cell_width + LEFT, height - header - (row + 1) * cell_height + BOTTOM
        size = cell_width - LEFT - RIGHT, cell_height - TOP - BOTTOM
        axes = figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))
        is_lowest = place + num_columns >= len(panels)
        _draw_panel(axes, panel, list(zip(runs, looks, strict=False)), chosen, x, smooth)
        _draw_x_axis(axes, _last_x(runs, chosen, x), X_LABELS[x] if is_lowest else "")
    _draw_legend(figure, names, looks, names_per_row, _ways(chosen, smooth))
    return figure


def _num_columns(num_panels: int) -> int:
    """A few panels stand in a square, many in rows of four."""
    return 4 if num_panels > 9 else int(np.ceil(np.sqrt(num_panels))) if num_panels > 3 else num_panels


def _x_of(run: RunLog, name: str, x: X) -> np.ndarray:
    return run.curves[name].updates if x == "updates" else run.curves[name].hours


def _last_x(runs: Sequence[RunLog], chosen: set[str], x: X) -> float:
    """Where the longest curve ends."""
    return max(float(_x_of(run, name, x).max()) for run in runs for name in chosen & run.curves.keys())


def _draw_panel(
    axes: "Axes",
    panel: str,
    runs: list[tuple[RunLog, Look]],
    chosen: set[str],
    x: X,
    smooth: int,
) -> None:
    """Draw what the runs have of a quantity: chance below, training, and held-out data on top."""
    quantity = quantity_of(panel)
    shown: list[np.ndarray] = []
    best: list[tuple[str, str]] = []
    for run, look in runs:
        for name in sorted(chosen & run.curves.keys(), key=_layer):
            if panel_of(name) != panel:
                continue
            values = run.curves[name].values * quantity.factor
            shown.append(values)
            _draw_curve(axes, name, _x_of(run, name, x), values, look, 0 if quantity.is_schedule else smooth)
            if quantity.best and name == DEV + panel and np.isfinite(values).any():
                value = np.nanmin(values) if quantity.best == "lowest" else np.nanmax(values)
                best.append((f"{value:.3g}", look.colour))
    _draw_y_axis(axes, np.concatenate(shown), quantity)
    _draw_title(axes, panel, quantity, best if len(best) <= 4 else [])


def _layer(name: str) -> int:
    """What is drawn later lies on top."""
    return 0 if _is_chance(name) else 2 if name.startswith(DEV) else 1


def _is_chance(name: str) -> bool:
    return name.removeprefix(DEV) in CHANCES


def _draw_curve(axes: "Axes", name: str, x: np.ndarray, values: np.ndarray, look: Look, smooth: int) -> None:
    """Draw one name of one run."""
    if _is_chance(name):
        axes.plot(x, values, color=look.colour, linestyle=":", linewidth=1.2)
        return
    is_dev = name.startswith(DEV)
    # A line needs two points.
    is_marked = is_dev or len(x) == 1
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": 1.3}
    if smooth and not is_dev:
        axes.plot(x, values, **line | {"linewidth": 0.8}, alpha=0.28)
        values = running_mean(values, smooth)
    axes.plot(
        x,
        values,
        **line,
        marker=look.marker if is_marked else None,
        markersize=4.5,
        markerfacecolor="white",
        markevery=max(-(-len(x) // MAX_MARKERS), 1),
    )


def _draw_y_axis(axes: "Axes", values: np.ndarray, quantity: Quantity) -> None:
    """Choose range and numbers of the vertical axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if quantity.may_be_log and low > 0 and high > 10 * low:
        axes.set_yscale("log")
        subs = (1, 2, 5) if high < 1000 * low else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    else:
        if low == high:
            low, high = low - 0.1 * abs(low), high + 0.1 * abs(high) if high else 1.0
        span = high - low
        # What is never negative has no room below zero but for the width of its line.
        bottom = low - 0.06 * span if low < 0 else max(low - 0.06 * span, -0.03 * span)
        axes.set_ylim(bottom, high + 0.06 * span)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.tick_params(labelsize=8, colors=INK, labelfontfamily=FONT, length=3)
    axes.grid(axis="y", color=FAINT, alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_x_axis(axes: "Axes", last: float, label: str) -> None:
    """Give every panel the same range, and its words to the lowest of each column."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    last = last or 1.0
    is_long = last >= 10_000

    def write(value: float, _place: int) -> str:
        return f"{value / 1000:g}k" if is_long and value else f"{value:g}"

    axes.set_xlim(0.0, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(write))
    axes.set_xlabel(label, fontsize=9, color=INK, family=FONT)


def _draw_title(axes: "Axes", panel: str, quantity: Quantity, best: list[tuple[str, str]]) -> None:
    """Write words and unit, below them the name in the log, and beside it the best values of the runs."""
    unit = f" ({quantity.unit})" if quantity.unit else ""
    above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    above |= {"family": FONT, "parse_math": False}
    axes.annotate(quantity.label + unit, (0, 1), xytext=(0, 18), fontsize=10, color=INK, **above)
    axes.annotate(panel, (0, 1), xytext=(0, 6), fontsize=7.5, color=FAINT, **above)
    texts = [(f"{quantity.best} on dev", FAINT), *best] if best else []
    offset = 0.0
    for text, colour in reversed(texts):
        axes.annotate(text, (1, 1), xytext=(offset, 6), fontsize=7.5, color=colour, ha="right", **above)
        offset -= 4.9 * len(text) + 5


def _ways(chosen: set[str], smooth: int) -> "list[tuple[str, Artist]]":
    """Explain the lines that there are, in no run's colour."""
    from matplotlib.lines import Line2D

    layers = {_layer(name) for name in chosen}
    line: dict[str, Any] = {"color": FAINT, "linewidth": 1.3}
    ways: list[tuple[str, Artist]] = []
    if 1 in layers and smooth:
        ways = [
            (f"training, mean of {2 * smooth + 1} log lines", Line2D([], [], **line)),
            ("not averaged", Line2D([], [], **line | {"linewidth": 0.8}, alpha=0.4)),
        ]
    elif 1 in layers:
        ways = [("training", Line2D([], [], **line))]
    if 2 in layers:
        mark: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
        ways.append(("held-out data (dev)", Line2D([], [], **line, **mark)))
    if 0 in layers:
        ways.append(("chance", Line2D([], [], color=FAINT, linewidth=1.2, linestyle=":")))
    return ways


def _draw_legend(
    figure: "Figure",
    names: list[str],
    looks: list[Look],
    names_per_row: int,
    ways: "list[tuple[str, Artist]]",
) -> None:
    """Name the runs in their colours, and below them the kinds of lines."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    runs = [
        (name, Line2D([], [], color=look.colour, linestyle=look.dash, linewidth=2.4))
        for name, look in zip(names, looks, strict=False)
    ]
    num_rows = -(-len(runs) // names_per_row)
    for entries, num_columns, top, size in (
        (runs, names_per_row, 0.08, 10),
        (ways, len(ways), 0.08 + ROW * num_rows, 8),
    ):
        legend = figure.legend(
            [handle for _, handle in entries],
            ["run"] * len(entries),
            loc="upper left",
            bbox_to_anchor=((LEFT - 0.05) / width, 1 - top / height),
            ncols=num_columns,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            labelspacing=0.4,
            prop={"family": FONT, "size": size},
            labelcolor=INK,
        )
        for text, (name, _) in zip(legend.get_texts(), entries, strict=True):
            # matplotlib leaves names with a leading underscore out and reads dollars as formulas.
            text.set_parse_math(False)
            text.set_text(name)
