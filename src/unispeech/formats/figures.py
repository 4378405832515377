"""Figures of matplotlib, made and saved in one way whatever they show.

Needs matplotlib (extra `draw`). Figures are made without pyplot and without touching matplotlib's global
settings, so that drawing in a notebook or a server changes nothing for the caller.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from unispeech.formats.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
"""What a figure may be saved as: the ending of its path."""

DPI = 150
INK, FAINT = "#1a202c", "#718096"
FONT = "DejaVu Sans"
"""Ships with matplotlib and has every IPA glyph."""


def format_of(path: Path) -> str:
    """Tell by its ending what a figure shall be saved as.

    Args:
        path: Where the figure goes.

    Returns:
        One of `FORMATS`.

    Raises:
        ValueError: If the path ends in something else.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join('.' + f for f in FORMATS)}, but is {path}.")
    return ending


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty white figure.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        The figure, with a canvas that draws it.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing needs matplotlib; install it with pip install 'unispeech[draw]'."
        ) from error
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Save a figure in the format that its path asks for, in one step.

    Args:
        figure: What to save.
        path: Where it goes; `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: If the path ends in something else.
        OSError: If the file cannot be written.
    """
    ending = format_of(path)
    buffer = BytesIO()
    figure.savefig(buffer, format=ending, dpi=DPI)
    write_file(path, buffer.getvalue())
