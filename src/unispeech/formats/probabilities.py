"""What a network thinks of each frame, as a panel of a picture: symbols over time, the darker the surer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unispeech.formats.figures import FAINT, FONT, INK
from unispeech.frames import Seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_PROB = 0.1
"""A symbol that is never as probable has no row."""
MAX_ROWS = 40
"""Rows that can be told apart; the symbols that are probable for longest are shown."""
INCHES_PER_ROW = 0.17
LABEL_SIZE = 9
"""Points."""
BLANK = "blank"
"""What the lowest row is called."""


@dataclass(frozen=True, kw_only=True)
class FrameProbabilities:
    """Probabilities of symbols over frames."""

    probs: np.ndarray
    """(T, N) in [0, 1]; a row a frame."""
    symbols: Sequence[str]
    """Names of the N columns."""
    blank: int
    """Column of the CTC blank."""
    start: Seconds
    """Left edge of the first frame."""
    hop: Seconds
    """Time from one frame to the next."""

    @property
    def shown(self) -> list[int]:
        """Columns that have a row, from the top, the blank last.

        They come in the order in which each is first half as probable as it ever is.
        """
        if not len(self.probs):
            return []
        peaks = self.probs.max(axis=0)
        candidates = [i for i in range(len(self.symbols)) if i != self.blank and peaks[i] >= MIN_PROB]
        totals = self.probs.sum(axis=0)
        candidates = sorted(candidates, key=lambda i: -totals[i])[:MAX_ROWS]
        firsts = (self.probs >= 0.5 * peaks).argmax(axis=0)
        return [*sorted(candidates, key=lambda i: int(firsts[i])), self.blank]


def panel_height(probabilities: FrameProbabilities) -> float:
    """Give the height that the panel needs.

    Args:
        probabilities: What it shall show.

    Returns:
        Inches.
    """
    return INCHES_PER_ROW * max(len(probabilities.shown), 4)


def draw_probabilities(axes: "Axes", probabilities: FrameProbabilities, *, cmap: str = "Blues") -> None:
    """Draw a row for each symbol that is probable somewhere, and one in grey for the blank.

    Args:
        axes: Where to draw; its horizontal axis is in seconds.
        probabilities: What to draw.
        cmap: matplotlib's name for the colours from 0 to 1.
    """
    shown = probabilities.shown
    last = probabilities.start + len(probabilities.probs) * probabilities.hop
    layers = [(shown[:-1], 0, cmap), (shown[-1:], max(len(shown) - 1, 0), "Greys")]
    for columns, top, colours in layers:
        if columns:
            axes.imshow(
                probabilities.probs[:, columns].T,
                extent=(probabilities.start, last, top + len(columns), top),
                aspect="auto",
                cmap=colours,
                vmin=0.0,
                # Full grey would outshine the phones, and the blank fills most of the time.
                vmax=1.0 if colours == cmap else 2.5,
                interpolation="nearest",
            )
    for row in range(1, len(shown)):
        axes.axhline(row, color=FAINT, linewidth=0.3, alpha=0.5)
    axes.set_ylim(max(len(shown), 1), 0)
    # The likeliest frames run from the upper left to the lower right, which leaves this corner free.
    axes.annotate(
        "probability of each symbol",
        (1, 1),
        xycoords="axes fraction",
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=FAINT,
        family=FONT,
    )
    names = [probabilities.symbols[i] if i != probabilities.blank else BLANK for i in shown]
    axes.set_yticks(np.arange(len(shown)) + 0.5, labels=[""] * len(names))
    axes.tick_params(axis="y", length=0)
    for row, name in enumerate(names):
        axes.annotate(
            name,
            (0, row + 0.5),
            xycoords=("axes fraction", "data"),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=LABEL_SIZE if name != BLANK else LABEL_SIZE - 1.5,
            color=INK if name != BLANK else FAINT,
            family=FONT,
            parse_math=False,
            annotation_clip=False,
        )
