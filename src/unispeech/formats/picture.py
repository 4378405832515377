"""Transcript + waveform -> a picture: waveform, spectrogram, tiers and probabilities on one time axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unispeech.formats.figures import DPI, FAINT, FONT, INK, format_of, new_figure, save_figure
from unispeech.formats.probabilities import FrameProbabilities, draw_probabilities, panel_height
from unispeech.formats.spectrogram import spectrogram
from unispeech.formats.textgrid import IntervalTier
from unispeech.formats.tiers import EM_IN_TEXT, label_width, spread
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
MAX_NAME = 10
"""Letters of the name of a tier that there is room for."""
MIN_LETTERS = 16
"""A label no longer than that is never cut."""


@dataclass(frozen=True, kw_only=True)
class _Box:
    """A labelled stretch of a tier."""

    label: str
    start: Seconds
    end: Seconds
    alpha: float
    """How dark, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A tier to draw."""

    name: str
    boxes: list[_Box]
    colour: str


def draw(
    transcript: Transcript,
    waveform: np.ndarray,
    path: str | Path,
    *,
    reference: Sequence[Phone] | None = None,
    kept: Sequence[IntervalTier] = (),
    probabilities: FrameProbabilities | None = None,
    start: Seconds = 0.0,
) -> None:
    """Draw a recording or a part of it with its phones, and save the picture.

    From the top: the waveform; a wide-band spectrogram (8 ms windows, 0 to 8 kHz, 60 dB from white to
    black), in which formants and bursts can be read; tiers of words, where there are any, and of recognised
    phones, the surer the darker; further tiers; the reference tier, if there is one, whose boundaries run
    faintly through the spectrogram; the probability of each symbol over time. A label that has no room over
    its phone moves aside and keeps a line to it. Tiers are left out where they have nothing to show.

    Args:
        transcript: What was recognised, times from the start of the recording.
        waveform: (S,) float samples at 16 kHz, the recording of the transcript or the part to draw.
        path: Where the picture goes; `.png`, `.svg` or `.pdf`.
        reference: Phones with their true times, for a tier of their own; None draws none.
        kept: Further tiers, such as those of a TextGrid; empty labels are left out.
        probabilities: What the network thinks of each frame; None draws none.
        start: Where the waveform begins in the recording.

    Raises:
        ValueError: If the path ends in something else, or `waveform` does not have one axis.
        ImportError: If matplotlib is not installed.
    """
    path = Path(path)
    format_of(path)  # before anything is drawn
    if waveform.ndim != 1:
        raise ValueError(f"`waveform` must have shape (S,), but has {waveform.shape}.")
    duration = max(len(waveform) / SAMPLE_RATE, 0.025)
    tiers = _tiers(transcript, reference, kept, start, start + duration)
    is_part = start > 0 or start + duration < transcript.duration - 0.01
    part = f"{start:.2f} to {start + duration:.2f} s of " if is_part else ""
    title = f"{Path(transcript.audio).name}   {part}{transcript.duration:.2f} s"
    figure = _figure(title, waveform, tiers, probabilities, start)
    for phone in reference or []:
        for boundary in (phone.start, phone.end):
            figure.axes[1].axvline(boundary, color=REFERENCE, linewidth=0.5, alpha=0.45)
    save_figure(figure, path)


def _tiers(
    transcript: Transcript,
    reference: Sequence[Phone] | None,
    kept: Sequence[IntervalTier],
    start: Seconds,
    end: Seconds,
) -> list[_Row]:
    """What the tiers show between two times."""
    rows = []
    if transcript.words:
        words = [(word.word, word.start, word.end, word.score) for word in transcript.words]
        rows.append(("words", HEARD, words))
    if transcript.phones or not kept:
        phones = [(phone.phone, phone.start, phone.end, phone.score) for phone in transcript.phones]
        rows.append(("phones", HEARD, phones))
    for tier in kept:
        rows.append((tier.name, REFERENCE, [(i.label, i.start, i.end, 0.3) for i in tier.labelled()]))
    if reference is not None:
        rows.append(("reference", REFERENCE, [(p.phone, p.start, p.end, 0.3) for p in reference]))
    return [
        _Row(
            name=name,
            colour=colour,
            boxes=[
                _Box(label=label, start=max(first, start), end=min(last, end), alpha=0.08 + 0.62 * score)
                for label, first, last, score in spans
                if last >= start and first <= end
            ],
        )
        for name, colour, spans in rows
    ]


def _figure(
    title: str,
    waveform: np.ndarray,
    tiers: Sequence[_Row],
    probabilities: FrameProbabilities | None,
    start: Seconds,
) -> "Figure":
    """Lay out the rows; all share the time axis of the last."""
    duration = max(len(waveform) / SAMPLE_RATE, 0.025)
    width = min(max(MARGIN + duration * INCHES_PER_SECOND, MIN_WIDTH), MAX_WIDTH)
    heights = [0.9, 2.6, *[0.62] * len(tiers)]
    if probabilities is not None:
        heights.append(panel_height(probabilities))
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
    num_columns = int((width - MARGIN) * DPI)
    _draw_waveform(rows[0], waveform, num_columns, start)
    _draw_spectrogram(rows[1], waveform, num_columns, start)
    for axes, tier in zip(rows[2:], tiers, strict=False):
        _draw_tier(axes, tier, start, duration, seconds_per_inch)
    if probabilities is not None:
        draw_probabilities(rows[-1], probabilities)
    _draw_time_axis(rows, start, duration)
    rows[0].set_title(title, loc="left", fontsize=11, color=INK, family=FONT, parse_math=False)
    if any(tier.colour == HEARD and tier.boxes for tier in tiers):
        rows[0].set_title("the darker a phone, the surer", loc="right", fontsize=8, color=FAINT, family=FONT)
    return figure


def _draw_waveform(axes: "Axes", waveform: np.ndarray, num_columns: int, start: Seconds) -> None:
    """Draw the samples, or the range of samples in each pixel column where there are more than fit."""
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-4)
    block = max(len(waveform) // num_columns, 1)
    if block < 4:
        axes.plot(start + np.arange(len(waveform)) / SAMPLE_RATE, waveform, color=INK, linewidth=0.4)
    else:
        columns = waveform[: len(waveform) // block * block].reshape(-1, block)
        times = start + (np.arange(len(columns)) + 0.5) * block / SAMPLE_RATE
        axes.fill_between(times, columns.min(1), columns.max(1), color=INK, linewidth=0.3)
    axes.axhline(0.0, color=FAINT, linewidth=0.4)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_yticks([0.0], ["0"])
    axes.set_ylabel("amplitude", fontsize=9, color=INK, family=FONT)


def _draw_spectrogram(axes: "Axes", waveform: np.ndarray, num_columns: int, start: Seconds) -> None:
    """Draw decibels from white to black, as a phonetician's eye is used to."""
    decibels, hop_samples, window_samples = spectrogram(waveform, num_columns=num_columns)
    if len(decibels):
        first = start + (window_samples / 2 - hop_samples / 2) / SAMPLE_RATE
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


def _draw_tier(axes: "Axes", tier: _Row, start: Seconds, duration: Seconds, seconds_per_inch: float) -> None:
    """Draw spans as boxes in the lower part and their labels, moved apart, above."""
    from matplotlib.patches import Rectangle

    em = LABEL_SIZE / 72 * seconds_per_inch
    centres = [(box.start + box.end) / 2 for box in tier.boxes]
    labels = _shortened(tier.boxes, centres, em, duration)
    widths = [label_width(label) * em for label in labels]
    places = spread(centres, widths, low=start, high=start + duration)
    for box, label, centre, place in zip(tier.boxes, labels, centres, places, strict=True):
        shape = (box.start, 0.0), box.end - box.start, 0.36
        axes.add_patch(Rectangle(*shape, facecolor=tier.colour, alpha=box.alpha, linewidth=0))
        axes.add_patch(Rectangle(*shape, facecolor="none", edgecolor=tier.colour, linewidth=0.8))
        axes.plot([centre, place], [0.38, 0.50], color=tier.colour, linewidth=0.6)
        axes.text(
            place,
            0.70,
            label,
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            color=INK,
            family=FONT,
            parse_math=False,
        )
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    name = tier.name if len(tier.name) <= MAX_NAME else tier.name[: MAX_NAME - 1] + "\u2026"
    style: dict[str, Any] = {
        "family": FONT,
        "rotation": 0,
        "ha": "right",
        "va": "center",
        "parse_math": False,
    }
    axes.set_ylabel(name, fontsize=9 if len(name) < 10 else 8, color=tier.colour, **style)


def _shortened(
    boxes: Sequence[_Box], centres: Sequence[Seconds], em: Seconds, duration: Seconds
) -> list[str]:
    """Cut labels such as sentences so that they keep to the room around them; phones and words stay whole."""
    labels = []
    gaps = [duration, *(after - before for before, after in pairwise(centres)), duration]
    for box, before, after in zip(boxes, gaps, gaps[1:], strict=False):
        room = max(int(min(before, after) / (EM_IN_TEXT * em)) - 3, MIN_LETTERS)
        label = " ".join(box.label.split())
        labels.append(label if len(label) <= room else label[: room - 1] + "\u2026")
    return labels


def _draw_time_axis(rows: "list[Axes]", start: Seconds, duration: Seconds) -> None:
    """Give every row the same time, and only the last its numbers."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if duration / s <= 40), 300)
    ticks = _multiples(step, start, start + duration)
    for axes in rows:
        axes.set_xlim(start, start + duration)
        axes.set_xticks(ticks, labels=[""] * len(ticks))
        axes.set_xticks(_multiples(step / 5, start, start + duration), minor=True)
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


def _multiples(step: Seconds, first: Seconds, last: Seconds) -> np.ndarray:
    """Multiples of a step in a range."""
    # Without the addition there is a tick at -0.
    return np.arange(np.ceil(first / step - 1e-6), np.floor(last / step + 1e-6) + 1) * step + 0.0


def _spines(axes: "Axes") -> list[tuple[str, Any]]:
    return list(axes.spines.items())
