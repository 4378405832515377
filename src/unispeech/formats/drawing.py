"""Recording + model or transcript -> a picture of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unispeech.audio import Waveform, audio_info, read_blocks
from unispeech.formats.figures import format_of
from unispeech.formats.json import from_json
from unispeech.formats.picture import draw
from unispeech.formats.probabilities import FrameProbabilities
from unispeech.formats.textgrid import IntervalTier
from unispeech.formats.textgrid_reader import read_textgrid
from unispeech.frames import SAMPLE_RATE, Seconds, frame_to_seconds, hop
from unispeech.results import Transcript

if TYPE_CHECKING:
    from unispeech.pipelines.transcriber import Transcriber

MAX_SECONDS: Seconds = 30.0
"""What a picture can hold so that phones can be told apart."""


def draw_recording(
    audio: str | Path,
    output: str | Path,
    *,
    transcriber: "Transcriber | None" = None,
    transcript: str | Path | None = None,
    start: Seconds = 0.0,
    end: Seconds | None = None,
) -> None:
    """Draw a recording or a part of it, with what a model hears in it, or what a file says of it, or both.

    Args:
        audio: Audio file of any kind.
        output: Where the picture goes; `.png`, `.svg` or `.pdf`.
        transcriber: Adds its words and phones, and the probability of each symbol in each frame; None adds
            nothing. It hears only the part that is drawn.
        transcript: A JSON file of `unispeech transcribe`, or a TextGrid, whose tiers are added; None adds
            nothing.
        start: Where the part to draw begins.
        end: Where it ends; None for the end of the recording.

    Raises:
        ManifestError: If the recording or the transcript cannot be read.
        OSError: If a file cannot be opened or written.
        ValueError: If the part is empty or longer than 30 s, or the path of the picture has another ending.
        ImportError: If matplotlib is not installed.
    """
    format_of(Path(output))  # before the network runs
    duration = audio_info(audio).duration
    last = duration if end is None else min(end, duration)
    if end is not None and not end > 0:
        raise ValueError(f"`end` must be above 0, but is {end:g}.")
    if end is not None and 0 <= start < duration and end <= start:
        raise ValueError(f"`end` must lie behind `start`, which is {start:g}, but is {end:g}.")
    if not 0 <= start < last:
        raise ValueError(
            f"`start` must lie in [0, {last:g}), before the end of the part to draw, but is {start:g}."
        )
    if last - start > MAX_SECONDS:
        raise ValueError(
            f"{audio}: a picture must hold at most {MAX_SECONDS:g} s, but would hold {last - start:g}; "
            "draw a part by --start and --end."
        )
    waveform = _read_part(audio, start, last)
    heard = Transcript(audio=str(audio), duration=duration, text="")
    probabilities = None
    if transcriber is not None:
        heard = _shifted(transcriber.transcribe(waveform, SAMPLE_RATE), heard, start)
        probabilities = _probabilities(transcriber, waveform, start)
    kept: Sequence[IntervalTier] = []
    reference = None
    if transcript is not None and Path(transcript).suffix.lower() == ".textgrid":
        kept = [tier for tier in read_textgrid(transcript).tiers if isinstance(tier, IntervalTier)]
    elif transcript is not None:
        told = _read_json(transcript)
        heard, reference = (told, None) if transcriber is None else (heard, told.phones)
    draw(
        replace(heard, audio=str(audio), duration=duration),
        waveform,
        output,
        reference=reference,
        kept=kept,
        probabilities=probabilities,
        start=start,
    )


def _read_part(audio: str | Path, start: Seconds, end: Seconds) -> Waveform:
    """The samples between two times; what is behind is not read."""
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    parts, place = [], 0
    for block in read_blocks(audio):
        parts.append(block[max(first - place, 0) : max(last - place, 0)])
        place += len(block)
        if place >= last:
            break
    return np.concatenate(parts)


def _shifted(part: Transcript, whole: Transcript, start: Seconds) -> Transcript:
    """What was heard in a part, in the time of the whole."""
    return replace(
        whole,
        text=part.text,
        phones=[replace(p, start=p.start + start, end=p.end + start) for p in part.phones],
        words=None
        if part.words is None
        else [replace(w, start=w.start + start, end=w.end + start) for w in part.words],
    )


def _probabilities(transcriber: "Transcriber", waveform: Waveform, start: Seconds) -> FrameProbabilities:
    """What the network thinks of each frame; a frame stands for half a hop on either side of its centre."""
    vocabulary, engine = transcriber.vocabulary, transcriber.engine
    blocks = list(transcriber.log_probs(waveform, SAMPLE_RATE))
    log_probs = np.concatenate(blocks) if blocks else np.zeros((0, len(vocabulary)), np.float32)
    return FrameProbabilities(
        probs=np.exp(log_probs),
        symbols=vocabulary.symbols,
        blank=vocabulary.blank,
        start=start + frame_to_seconds(-0.5, engine.kernels, engine.strides),
        hop=hop(engine.strides) / SAMPLE_RATE,
    )


def _read_json(path: str | Path) -> Transcript:
    try:
        return from_json(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
