"""Many recordings -> batches of similar length, read when their turn comes."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from unispeech.audio import BLOCK_SECONDS, Waveform, audio_info, check_waveform, load_audio, read_blocks
from unispeech.frames import SAMPLE_RATE, Seconds
from unispeech.pipelines.turns import in_turn

NUM_AHEAD = 256
"""Recordings whose headers are read ahead and sorted by length together."""

MAX_PADDING: Seconds = 0.5
"""How much longer the longest recording of a batch may be than another; few recordings make small batches."""

FAILURES = (ValueError, OSError)
"""What a recording that cannot be read raises; anything else is our mistake and goes through."""

OnProgress = Callable[[Seconds], None]
"""Is told the seconds of audio that are done since it was last told."""

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that can be read when it is needed."""

    source: str | Path
    """Its path as the caller gave it, or another name."""
    duration: Seconds
    """Its length as its header states it."""
    load: Callable[[], Waveform]
    """Reads (S,) float32 samples at 16 kHz."""
    blocks: Callable[[], Iterable[Waveform]] | None = None
    """Reads the same samples in blocks, from the start at each call; None: only `load` can."""

    def open_blocks(self) -> Iterable[Waveform]:
        """Read in blocks from the start.

        Returns:
            (S_i,) samples that follow one another.
        """
        return split_waveform(self.load()) if self.blocks is None else self.blocks()


def split_waveform(waveform: Waveform) -> Iterator[Waveform]:
    """Cut a waveform in memory into blocks.

    Args:
        waveform: (S,) samples.

    Yields:
        Views of some seconds.
    """
    size = BLOCK_SECONDS * SAMPLE_RATE
    for start in range(0, len(waveform), size):
        yield waveform[start : start + size]


def open_recording(path: str | Path) -> Recording:
    """Read the header of an audio file.

    Args:
        path: Audio file.

    Returns:
        The recording, its samples not yet read.

    Raises:
        ManifestError: If the file is not audio.
        OSError: If it cannot be opened.
    """
    return Recording(
        source=path,
        duration=audio_info(path).duration,
        load=lambda: load_audio(path),
        blocks=lambda: read_blocks(path),
    )


def open_samples(
    audio: str | Path | npt.ArrayLike, sample_rate: int | None
) -> Callable[[], Iterable[Waveform]]:
    """Open a recording that a caller names or holds.

    Args:
        audio: Path of an audio file, or (S,) float samples.
        sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.

    Returns:
        What reads (S_i,) samples that follow one another, from the start at each call.

    Raises:
        TypeError: If the samples are not floats.
        ValueError: If the samples have another rate or shape, are not finite, or `sample_rate` is missing
            for samples or given for a file.
    """
    if isinstance(audio, str | Path):
        if sample_rate is not None:
            raise ValueError(
                f"`sample_rate` must be None for a file, which states its own, but is {sample_rate}."
            )
        return lambda: read_blocks(audio)
    if sample_rate is None:
        raise ValueError(
            "`sample_rate` must be the rate of the samples in Hz, but is None; pass it along, "
            "or pass the path of a file."
        )
    samples = check_waveform(audio, sample_rate=sample_rate, name="audio")
    return lambda: split_waveform(samples)


def read_stream(stream: BinaryIO, *, name: str = "-") -> Recording:
    """Take a whole audio file from a stream, such as standard input, by way of the disk.

    Args:
        stream: Bytes of an audio file of any kind.
        name: What to call the recording, in results and in messages.

    Returns:
        The recording, its samples not yet read.

    Raises:
        ValueError: If the bytes are not audio.
    """
    # Audio readers seek, pipes cannot; a file also gets the same checks as any other. It lives as long as
    # what reads it.
    file = tempfile.NamedTemporaryFile(suffix=".audio")  # noqa: SIM115
    shutil.copyfileobj(stream, file)
    file.flush()

    def blocks() -> Iterator[Waveform]:
        try:
            yield from read_blocks(file.name)
        except ValueError as error:
            raise type(error)(str(error).replace(file.name, name)) from error

    try:
        duration = audio_info(file.name).duration
    except ValueError as error:
        raise type(error)(str(error).replace(file.name, name)) from error
    return Recording(
        source=name, duration=duration, load=lambda: np.concatenate(list(blocks())), blocks=blocks
    )


def total_seconds(paths: Iterable[str | Path]) -> Seconds:
    """Add up the lengths of audio files as their headers state them.

    Args:
        paths: Audio files; one that cannot be read counts as 0.

    Returns:
        Seconds in all.
    """
    total = 0.0
    for path in paths:
        # Whoever reads the file afterwards reports what is wrong with it.
        with suppress(*FAILURES):
            total += audio_info(path).duration
    return total


def batches_by_length(durations: Sequence[Seconds], batch_seconds: Seconds) -> list[list[int]]:
    """Group recordings of similar length, so that little is padded.

    Args:
        durations: Length of each recording.
        batch_seconds: Most seconds of a batch, padding included; a longer recording is a batch of its own.
            Recordings that differ by more than `MAX_PADDING` go into batches apart.

    Returns:
        Indices of `durations` in batches, the longest first: what does not fit into memory fails at once.
    """
    order = sorted(range(len(durations)), key=lambda index: -durations[index])
    batches: list[list[int]] = []
    for index in order:
        # The first of a batch is its longest and sets its width.
        width = durations[batches[-1][0]] if batches else 0.0
        is_alike = width - durations[index] <= MAX_PADDING
        if batches and is_alike and (len(batches[-1]) + 1) * width <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def run_in_batches(
    recordings: Iterable[Recording],
    start: Callable[[list[Waveform]], Callable[[], Sequence[R]]],
    *,
    batch_seconds: Seconds,
    num_ahead: Callable[[], int] = lambda: 0,
    process_long: Callable[[Recording], R] | None = None,
    long_seconds: Seconds = float("inf"),
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[Recording, R | Exception]]:
    """Process recordings in batches by length; one that cannot be read stops no other.

    Args:
        recordings: Taken `NUM_AHEAD` at a time, so that a generator of many is fine.
        start: Starts on the waveforms of a batch; what it returns gives as many results.
        batch_seconds: Most seconds of a batch, padding included.
        num_ahead: How many further batches are started before the results of one are waited for.
        process_long: Turns a recording above `long_seconds` into its result, reading it by itself; None: all
            go through `start`.
        long_seconds: From which length on recordings are long.
        on_progress: Is told the seconds of each batch when it is done; `process_long` tells its own. None for
            nobody.

    Yields:
        Each recording with its result, or with what reading it raised, as they finish.
    """
    remaining = iter(recordings)
    while ahead := list(islice(remaining, NUM_AHEAD)):
        is_long = [process_long is not None and r.duration > long_seconds for r in ahead]
        if process_long is not None:
            for recording in sorted(compress(ahead, is_long), key=lambda recording: -recording.duration):
                yield recording, _attempt(process_long, recording)
        short = [recording for recording, long in zip(ahead, is_long, strict=True) if not long]
        for (batch, seconds), results in in_turn(_started(short, start, batch_seconds), num_ahead):
            if on_progress is not None and seconds:
                on_progress(seconds)
            yield from zip(batch, results, strict=True)


def _started(
    recordings: Sequence[Recording],
    start: Callable[[list[Waveform]], Callable[[], Sequence[R]]],
    batch_seconds: Seconds,
) -> Iterator[tuple[tuple[list[Recording], Seconds], Callable[[], Sequence[R | Exception]]]]:
    """Read and start batch after batch.

    Yields:
        The recordings of a batch and their seconds, with what gives their results; what cannot be read by
        itself, with none.
    """
    for batch in batches_by_length([recording.duration for recording in recordings], batch_seconds):
        readable, waveforms = [], []
        for recording in (recordings[index] for index in batch):
            try:
                waveforms.append(recording.load())
                readable.append(recording)
            except FAILURES as error:
                yield ([recording], 0.0), partial(list, [error])
        if waveforms:
            yield (readable, sum(map(len, waveforms)) / SAMPLE_RATE), start(waveforms)


def run_paths(
    paths: Iterable[str | Path],
    run: Callable[[list[Recording]], Iterable[tuple[str | Path, R | Exception]]],
) -> Iterator[tuple[str | Path, R | Exception]]:
    """Open many files and process them; one that cannot be opened stops no other.

    Args:
        paths: Audio files, opened `NUM_AHEAD` at a time, so that a generator of many is fine.
        run: Gives the source of each recording with its result, or with what reading it raised.

    Yields:
        Each path as it was given, with its result or with the error.
    """
    remaining = iter(paths)
    while ahead := list(islice(remaining, NUM_AHEAD)):
        recordings = []
        for path in ahead:
            try:
                recordings.append(open_recording(path))
            except FAILURES as error:
                yield path, error
        yield from run(recordings)


def _attempt(process: Callable[[Recording], R], recording: Recording) -> R | Exception:
    """The result, or what reading the recording raised."""
    try:
        return process(recording)
    except FAILURES as error:
        return error
