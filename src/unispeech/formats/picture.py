"""Transcript + waveform -> a picture: waveform, spectrogram and tiers of phones on one time axis."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unispeech.formats.figures import DPI, FAINT, FONT, INK, format_of, new_figure, save_figure
from unispeech.formats.spectrogram import spectrogram
from unispeech.formats.tiers import label_width, spread
from unispeech.frames import SAMPLE_RATE, Seconds
from unispeech.results import Phone, Transcript

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES_PER_SECOND = 2.4
"""Room for some twelve phones a second."""
MIN_WIDTH, MAX_WIDTH = 8.0, 60.0
"""Inches. A recording too long for MAX_WIDTH is drawn narrower, and its labels crowd."""
MARGIN = 1.1
"""Inches beside the axes, left and right together."""

HEARD, REFERENCE = "#2b6cb0", "#b7791f"
LABEL_SIZE = 12
"""Points."""


def draw(
    transcript: Transcript,
    waveform: np.ndarray,
    path: str | Path,
    *,
    reference: Sequence[Phone] | None = None,
) -> None:
    """Draw a recording and its phones, and save the picture.

    From the top: the waveform; a wide-band spectrogram (8 ms windows, 0 to 8 kHz, 60 dB from white to
    black), in which formants and bursts can be read; the tier of recognised phones, the surer the darker;
    the reference tier, if there is one, whose boundaries run faintly through the spectrogram. A label that
    has no room over its phone moves aside and keeps a line to it.

    Args:
        transcript: What was recognised.
        waveform: (S,) float samples at 16 kHz, the recording of the transcript.
        path: Where the picture goes; `.png`, `.svg` or `.pdf`.
        reference: Phones with their true times, for a second tier; None draws one tier.

    Raises:
        ValueError: If the path ends in something else, or `waveform` does not have one axis.
        ImportError: If matplotlib is not installed.
    """
    path = Path(path)
    format_of(path)  # before anything is drawn
    if waveform.ndim != 1:
        raise ValueError(f"`waveform` must have shape (S,), but has {waveform.shape}.")
    save_figure(_figure(transcript, waveform, reference), path)


def _figure(transcript: Transcript, waveform: np.ndarray, reference: Sequence[Phone] | None) -> "Figure":
    """Lay out the rows; all share the time axis of the last."""
    duration = max(len(waveform) / SAMPLE_RATE, 0.025)
    width = min(max(MARGIN + duration * INCHES_PER_SECOND, MIN_WIDTH), MAX_WIDTH)
    tiers = [("phones", transcript.phones, HEARD)]
    if reference is not None:
        tiers.append(("reference", list(reference), REFERENCE))
    heights = [0.9, 2.6, *[0.62] * len(tiers)]
    height = sum(heights) + 1.0
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        len(heights),
        1,
        height_ratios=heights,
        hspace=0.06,
        left=0.85 / width,
        right=1 - (MARGIN - 0.85) / width,
        top=1 - 0.42 / height,
        bottom=0.5 / height,
    )
    rows = [figure.add_subplot(grid[i, 0]) for i in range(len(heights))]
    seconds_per_inch = duration / (width - MARGIN)
    _draw_waveform(rows[0], waveform, num_columns=int((width - MARGIN) * DPI))
    _draw_spectrogram(rows[1], waveform, num_columns=int((width - MARGIN) * DPI))
    for axes, (name, phones, colour) in zip(rows[2:], tiers, strict=True):
        _draw_tier(axes, name, phones, colour, duration, seconds_per_inch)
    for phone in reference or []:
        for boundary in (phone.start, phone.end):
            rows[1].axvline(boundary, color=REFERENCE, linewidth=0.5, alpha=0.45)
    _draw_time_axis(rows, duration)
    title = f"{Path(transcript.audio).name}   {transcript.duration:.2f} s"
    rows[0].set_title(title, loc="left", fontsize=11, color=INK, family=FONT, parse_math=False)
    rows[0].set_title("the darker a phone, the surer", loc="right", fontsize=8, color=FAINT, family=FONT)
    return figure


def _draw_waveform(axes: "Axes", waveform: np.ndarray, num_columns: int) -> None:
    """Draw the samples, or the range of samples in each pixel column where there are more than fit."""
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-4)
    block = max(len(waveform) // num_columns, 1)
    if block < 4:
        axes.plot(np.arange(len(waveform)) / SAMPLE_RATE, waveform, color=INK, linewidth=0.4)
    else:
        columns = waveform[: len(waveform) // block * block].reshape(-1, block)
        times = (np.arange(len(columns)) + 0.5) * block / SAMPLE_RATE
        axes.fill_between(times, columns.min(1), columns.max(1), color=INK, linewidth=0.3)
    axes.axhline(0.0, color=FAINT, linewidth=0.4)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_yticks([0.0], ["0"])
    axes.set_ylabel("amplitude", fontsize=9, color=INK, family=FONT)


def _draw_spectrogram(axes: "Axes", waveform: np.ndarray, num_columns: int) -> None:
    """Draw decibels from white to black, as a phonetician's eye is used to."""
    decibels, hop_samples, window_samples = spectrogram(waveform, num_columns=num_columns)
    if len(decibels):
        first = (window_samples / 2 - hop_samples / 2) / SAMPLE_RATE
        last = first + len(decibels) * hop_samples / SAMPLE_RATE
        axes.imshow(
            decibels.T,
            extent=(first, last, 0.0, SAMPLE_RATE / 2000),
            origin="lower",
            aspect="auto",
            cmap="Greys",
            interpolation="bilinear",
        )
    axes.set_ylim(0.0, SAMPLE_RATE / 2000)
    axes.set_yticks([0, 2, 4, 6, 8])
    axes.set_yticks([1, 3, 5, 7], minor=True)
    axes.set_ylabel("frequency (kHz)", fontsize=9, color=INK, family=FONT)


def _draw_tier(
    axes: "Axes", name: str, phones: Sequence[Phone], colour: str, duration: Seconds, seconds_per_inch: float
) -> None:
    """Draw phones as boxes in the lower part and their labels, moved apart, above."""
    from matplotlib.patches import Rectangle

    widths = [label_width(phone.phone) * LABEL_SIZE / 72 * seconds_per_inch for phone in phones]
    centres = [(phone.start + phone.end) / 2 for phone in phones]
    places = spread(centres, widths, low=0.0, high=duration)
    for phone, centre, place in zip(phones, centres, places, strict=True):
        alpha = 0.08 + 0.62 * phone.score if colour == HEARD else 0.25
        box = (phone.start, 0.0), phone.end - phone.start, 0.36
        axes.add_patch(Rectangle(*box, facecolor=colour, alpha=alpha, linewidth=0))
        axes.add_patch(Rectangle(*box, facecolor="none", edgecolor=colour, linewidth=0.8))
        axes.plot([centre, place], [0.38, 0.50], color=colour, linewidth=0.6)
        axes.text(
            place,
            0.70,
            phone.phone,
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            color=INK,
            family=FONT,
            parse_math=False,
        )
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel(name, fontsize=9, color=colour, family=FONT, rotation=0, ha="right", va="center")


def _draw_time_axis(rows: "list[Axes]", duration: Seconds) -> None:
    """Give every row the same time, and only the last its numbers."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if duration / s <= 40), 300)
    ticks = np.arange(0.0, duration + 1e-9, step)
    for axes in rows:
        axes.set_xlim(0.0, duration)
        axes.set_xticks(ticks, labels=[""] * len(ticks))
        axes.set_xticks(np.arange(0.0, duration + 1e-9, step / 5), minor=True)
        axes.tick_params(axis="x", length=0)
        axes.tick_params(axis="x", which="minor", length=0)
        axes.tick_params(labelsize=8, colors=INK, labelfontfamily=FONT)
        for side, spine in _spines(axes):
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(FAINT)
    rows[-1].set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks.round(6)])
    rows[-1].tick_params(axis="x", length=4)
    rows[-1].tick_params(axis="x", which="minor", length=2)
    rows[-1].set_xlabel("time (s)", fontsize=9, color=INK, family=FONT)


def _spines(axes: "Axes") -> list[tuple[str, Any]]:
    return list(axes.spines.items())
