"""The options by which `unispeech transcribe` parts recordings: a pause, or a tier of a TextGrid."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.formats.textgrid import TextGrid
    from unispeech.pipelines.listing import Listed
    from unispeech.pipelines.recordings import Recording
    from unispeech.results import Transcript

    Outcome = tuple[str | Path, Transcript | Exception]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """Where segments begin and end."""

    max_pause: float = 0.3
    """Longest silence within a segment, in seconds; a subtitle ends with its segment."""
    segments_from: Path | None = None
    """A TextGrid, or a folder with one for each recording; only its labelled intervals are written."""
    tier: str | None = None
    """Name of the tier with these intervals; needed where the TextGrid has several."""

    def marks(self, recordings: "Sequence[Listed]") -> "Marks | None":
        """Find the TextGrid of each recording.

        Args:
            recordings: All that are to be done.

        Returns:
            What is marked; None where nothing is asked for.

        Raises:
            ValueError: If a tier is named without a TextGrid, or several recordings share one.
        """
        place = self.segments_from
        if place is None:
            if self.tier is not None:
                raise ValueError(
                    f"`--segments-from` must name a TextGrid with the tier {self.tier!r}, but is missing."
                )
            return None
        if place.is_dir():
            return Marks({listed.path: place / f"{listed.name}.TextGrid" for listed in recordings}, self.tier)
        if len(recordings) > 1:
            raise ValueError(
                f"`--segments-from` must be a folder for {len(recordings)} recordings, but is {place}; give "
                "a folder with NAME.TextGrid for each."
            )
        return Marks({listed.path: place for listed in recordings}, self.tier)


class Marks:
    """The TextGrids of recordings, read when their turn comes.

    Args:
        paths: Path of each recording -> its TextGrid.
        tier: The tier whose intervals are segments; None: the only tier of intervals.
    """

    def __init__(self, paths: dict[str, Path], tier: str | None) -> None:
        self._paths, self._tier = paths, tier
        self._grids: dict[str, TextGrid] = {}

    def part(
        self,
        recordings: "Iterable[Recording]",
        transcribe: "Callable[[list[Recording]], Iterator[Outcome]]",
        *,
        is_kept: bool,
    ) -> "Iterator[Outcome]":
        """Transcribe recordings, and keep what is said in their marked stretches.

        Args:
            recordings: What to read.
            transcribe: Transcribes them.
            is_kept: Whether `take` will be asked for the TextGrid of each transcript.

        Yields:
            The source of each, with its transcript or with the error that the recording or its TextGrid gave.
        """
        from unispeech.pipelines.recordings import FAILURES
        from unispeech.pipelines.segments import keep_within

        marked: list[Recording] = []
        bounds: dict[str, list[tuple[float, float]]] = {}
        for recording in recordings:
            name = str(recording.source)
            try:
                grid, bounds[name] = self._read(name)
            except FAILURES as error:
                yield recording.source, error
                continue
            marked.append(recording)
            if is_kept:
                self._grids[name] = grid
        for source, outcome in transcribe(marked):
            if not isinstance(outcome, Exception):
                try:
                    outcome = keep_within(outcome, bounds[str(source)])
                except ValueError as error:
                    outcome = error
            yield source, outcome

    def take(self, transcript: "Transcript") -> "TextGrid":
        """Give the TextGrid of a transcript, once.

        Args:
            transcript: One that `part` gave.
        """
        return self._grids.pop(transcript.audio)

    def _read(self, recording: str) -> "tuple[TextGrid, list[tuple[float, float]]]":
        """The TextGrid of a recording and the stretches that are marked there."""
        from unispeech.errors import ManifestError
        from unispeech.formats.textgrid import IntervalTier
        from unispeech.formats.textgrid_reader import read_textgrid

        path = self._paths[recording]
        grid = read_textgrid(path)
        names = [tier.name for tier in grid.tiers if isinstance(tier, IntervalTier)]
        if self._tier is None and len(names) != 1:
            raise ManifestError(
                f"{path}: must have one tier of intervals, but has {', '.join(names) or 'none'}; name one by "
                "--tier."
            )
        try:
            tier = grid.interval_tier(names[0] if self._tier is None else self._tier)
        except ValueError as error:
            raise ManifestError(f"{path}: {str(error).replace('`name`', '`--tier`')}") from None
        bounds = [(interval.start, interval.end) for interval in tier.labelled()]
        if not bounds:
            raise ManifestError(
                f"{path}: tier {tier.name!r} must hold an interval with a label, but holds none; label those "
                "that are segments."
            )
        return grid, bounds
