"""Transcript -> Praat TextGrid, in the long form and the short one, tiers of an older TextGrid kept.

Reading is `textgrid_reader`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from unispeech.formats.spans import Span, lay_out, tiers
from unispeech.frames import Seconds
from unispeech.phones import nearest
from unispeech.results import Transcript

TICKS_PER_SECOND = 10_000
"""Times that we compute have this resolution, a tenth of a millisecond; those that we read are kept."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A stretch of a tier."""

    start: Seconds
    """Where it begins."""
    end: Seconds
    """Where it ends, behind `start`."""
    label: str
    """Any text, maybe empty."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place on a tier."""

    time: Seconds
    """Where it is."""
    label: str
    """Any text, maybe empty."""


@dataclass(frozen=True, kw_only=True)
class IntervalTier:
    """A tier of intervals."""

    name: str
    """Any text; names need not differ."""
    start: Seconds
    """Start of the tier."""
    end: Seconds
    """End of the tier."""
    intervals: Sequence[Interval]
    """In the order of time, without overlaps."""

    def labelled(self) -> list[Interval]:
        """The intervals whose label is not blank, such as utterances between pauses."""
        return [interval for interval in self.intervals if interval.label.strip()]


@dataclass(frozen=True, kw_only=True)
class PointTier:
    """A tier of points."""

    name: str
    """Any text; names need not differ."""
    start: Seconds
    """Start of the tier."""
    end: Seconds
    """End of the tier."""
    points: Sequence[Point]
    """In the order of the file."""


@dataclass(frozen=True, kw_only=True)
class TextGrid:
    """What is written about a recording, tier by tier."""

    start: Seconds
    """Start of all."""
    end: Seconds
    """End of all."""
    tiers: Sequence[IntervalTier | PointTier]
    """From the top."""

    def interval_tier(self, name: str) -> IntervalTier:
        """Find a tier, to take the bounds of its intervals as those of segments.

        Args:
            name: Its name; of several the first is taken.

        Returns:
            The tier.

        Raises:
            ValueError: If there is no tier of intervals with the name.
        """
        names = [tier.name for tier in self.tiers if isinstance(tier, IntervalTier)]
        for tier in self.tiers:
            if isinstance(tier, IntervalTier) and tier.name == name:
                return tier
        known = ", ".join(names) or "none"
        raise ValueError(
            f"`name` must be that of a tier of intervals ({known}), but is {name!r}{nearest(name, names)}"
        )


def to_textgrid(transcript: Transcript, *, kept: TextGrid | None = None) -> str:
    """Write a transcript as a TextGrid in the long form, as Praat itself writes it.

    Tiers are `words`, where the vocabulary has word boundaries, and `phones`, with empty intervals for what
    is between. Intervals of a TextGrid cannot be empty: a word or a phone of no length gets a tenth of a
    millisecond, as `spans.lay_out` says.

    Args:
        transcript: What a recording gave.
        kept: A TextGrid of the same recording whose tiers come first, as they are; None for none. A tier of
            ours whose name is taken gets a number behind it: `phones 2`.

    Returns:
        The text of the file, to be written in UTF-8; no line end.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    return write_long(make_textgrid(transcript, kept=kept))


def to_short_textgrid(transcript: Transcript, *, kept: TextGrid | None = None) -> str:
    """Write a transcript as a TextGrid in the short form; as `to_textgrid` in all else.

    Args:
        transcript: What a recording gave.
        kept: A TextGrid of the same recording whose tiers come first, as they are; None for none.

    Returns:
        The text of the file, to be written in UTF-8; no line end.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    return write_short(make_textgrid(transcript, kept=kept))


def make_textgrid(transcript: Transcript, *, kept: TextGrid | None = None) -> TextGrid:
    """Lay the tiers of a transcript below those of an older TextGrid.

    Args:
        transcript: What a recording gave.
        kept: A TextGrid of the same recording; None for none.

    Returns:
        A TextGrid as long as the recording, or as long as `kept` where that is longer.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    grid = kept or TextGrid(start=0.0, end=0.0, tiers=[])
    levels = {
        name: (spans, lay_out(spans, ticks_per_second=TICKS_PER_SECOND, duration=transcript.duration))
        for name, spans in tiers(transcript).items()
    }
    # An interval has a length, also where the recording has fewer ticks than spans. All tiers end together.
    end = max(transcript.duration, grid.end)
    last_start = max([0, *(times[-1][0] for _, times in levels.values() if times)])
    if last_start / TICKS_PER_SECOND >= end:
        end = (last_start + 1) / TICKS_PER_SECOND
    for name, (spans, times) in levels.items():
        taken = {tier.name for tier in grid.tiers}
        free = next(n for n in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if n not in taken)
        grid = replace(
            grid,
            start=min(grid.start, 0.0),
            end=end,
            tiers=[*grid.tiers, _interval_tier(free, spans, times, end)],
        )
    return grid


def write_long(grid: TextGrid) -> str:
    """Write a TextGrid in the long form, each number with its name.

    Args:
        grid: What to write; what `textgrid_reader` took from a file of Praat's comes out byte by byte.

    Returns:
        The text without a line end.
    """
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        f"xmin = {_number(grid.start)} ",
        f"xmax = {_number(grid.end)} ",
        "tiers? <exists> ",
        f"size = {len(grid.tiers)} ",
        "item []: ",
    ]
    for i, tier in enumerate(grid.tiers, start=1):
        lines += [
            f"    item [{i}]:",
            f'        class = "{_class(tier)}" ',
            f"        name = {_quoted(tier.name)} ",
            f"        xmin = {_number(tier.start)} ",
            f"        xmax = {_number(tier.end)} ",
        ]
        entries = "intervals" if isinstance(tier, IntervalTier) else "points"
        lines.append(f"        {entries}: size = {len(_entries(tier))} ")
        fields = ("xmin", "xmax", "text") if isinstance(tier, IntervalTier) else ("number", "mark")
        for j, entry in enumerate(_entries(tier), start=1):
            lines.append(f"        {entries} [{j}]:")
            lines += [
                f"            {field} = {value} " for field, value in zip(fields, _values(entry), strict=True)
            ]
    return "\n".join(lines)


def write_short(grid: TextGrid) -> str:
    """Write a TextGrid in the short form, a value a line.

    Args:
        grid: What to write.

    Returns:
        The text without a line end.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += [_number(grid.start), _number(grid.end), "<exists>", str(len(grid.tiers))]
    for tier in grid.tiers:
        lines += [f'"{_class(tier)}"', _quoted(tier.name), _number(tier.start), _number(tier.end)]
        lines.append(str(len(_entries(tier))))
        for entry in _entries(tier):
            lines += _values(entry)
    return "\n".join(lines)


def _interval_tier(
    name: str, spans: Sequence[Span], times: Sequence[tuple[int, int]], end: Seconds
) -> IntervalTier:
    """Spans with empty intervals for what is between them."""
    intervals: list[Interval] = []
    last = 0.0
    for span, (start_tick, end_tick) in zip(spans, times, strict=True):
        start = start_tick / TICKS_PER_SECOND
        if start > last:
            intervals.append(Interval(start=last, end=start, label=""))
        # The last tick may lie behind the end by rounding.
        last = min(end_tick / TICKS_PER_SECOND, end)
        intervals.append(Interval(start=start, end=last, label=span.label))
    if last < end:
        intervals.append(Interval(start=last, end=end, label=""))
    return IntervalTier(name=name, start=0.0, end=end, intervals=intervals)


def _class(tier: IntervalTier | PointTier) -> str:
    return "IntervalTier" if isinstance(tier, IntervalTier) else "TextTier"


def _entries(tier: IntervalTier | PointTier) -> Sequence[Interval | Point]:
    return tier.intervals if isinstance(tier, IntervalTier) else tier.points


def _values(entry: Interval | Point) -> list[str]:
    """The fields of an entry as the file has them."""
    if isinstance(entry, Interval):
        return [_number(entry.start), _number(entry.end), _quoted(entry.label)]
    return [_number(entry.time), _quoted(entry.label)]


def _number(value: float) -> str:
    """As few digits as tell the number from any other, without an exponent, which others misread."""
    return str(int(value)) if value == int(value) else format(Decimal(repr(value)), "f")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
