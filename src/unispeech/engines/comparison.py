"""Engines side by side on one recording: speed, memory, agreement with the plain path.

Shapes in this file: S samples, T frames, N vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.choice import EXTRAS, is_installed, open_engine
from unispeech.engines.engine import Engine, EngineName, Precision
from unispeech.frames import SAMPLE_RATE

CANDIDATES: Sequence[tuple[EngineName, Precision]] = (
    ("torch", "float32"),
    ("torch", "bf16"),
    ("openvino", "float32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
)
"""What is compared; the first is the plain path."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How closely an engine follows the plain path."""

    largest_difference: float
    """Of a log-probability."""
    frame_agreement: float
    """Share of frames whose best symbol is the same, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One engine on this machine."""

    engine: str
    """Its name."""
    precision: str
    """What it computed in."""
    speed: float
    """Seconds of audio per second, by the median of the passes."""
    open_seconds: float
    """How long it took to open, from the cache where it was there."""
    memory: float
    """MB that the process grew by while the engine was opened and ran; 0 where the system does not say."""
    parity: Parity
    """With the plain path."""


def compare(expected: Sequence[LogProbs], found: Sequence[LogProbs]) -> Parity:
    """Hold log-probabilities to those of the plain path.

    Args:
        expected: (T_i, N) of each recording.
        found: The same of another engine.

    Returns:
        How closely they follow.
    """
    one, other = np.concatenate(expected), np.concatenate(found)
    return Parity(
        largest_difference=float(np.abs(one - other).max(initial=0.0)),
        frame_agreement=float((one.argmax(axis=1) == other.argmax(axis=1)).mean()) if len(one) else 1.0,
    )


def measure_engines(
    directory: Path, waveform: Waveform, *, repeats: int = 5
) -> Iterator[Measured | tuple[str, str]]:
    """Open every engine that is installed, and run them in turn, so that a drift of the machine meets all.

    Args:
        directory: A model directory.
        waveform: (S,) samples, normalised where the model wants it.
        repeats: Passes of each engine that count; one before warms it up.

    Yields:
        Each engine's figures, or its name and why it does not run here.
    """
    opened: list[tuple[Engine, float, float]] = []
    for name, precision in CANDIDATES:
        label = f"{name} {precision}"
        if name in EXTRAS and not is_installed(name):
            yield label, f"not installed; pip install 'unispeech[{EXTRAS[name]}]'"
            continue
        before, start = _resident(), time.perf_counter()
        try:
            engine = open_engine(directory, directory, engine=name, precision=precision, device="cpu")
        except ValueError as error:
            if (name, precision) == CANDIDATES[0]:  # there is nothing to hold the others to
                raise
            yield label, str(error)
            continue
        seconds = time.perf_counter() - start
        engine.log_probs([waveform])
        opened.append((engine, seconds, max(_resident() - before, 0.0)))
    expected = opened[0][0].log_probs([waveform])
    times: list[list[float]] = [[] for _ in opened]
    for _ in range(repeats):
        for (engine, _, _), taken in zip(opened, times, strict=True):
            start = time.perf_counter()
            engine.log_probs([waveform])
            taken.append(time.perf_counter() - start)
    for (engine, seconds, memory), taken in zip(opened, times, strict=True):
        yield Measured(
            engine=engine.name,
            precision=engine.precision,
            speed=len(waveform) / SAMPLE_RATE / median(taken),
            open_seconds=seconds,
            memory=memory,
            parity=compare(expected, engine.log_probs([waveform])),
        )


def _resident() -> float:
    """Resident memory of this process in MB; 0 where the system does not say."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return 0.0
    return int(path.read_text(encoding="utf-8").split("VmRSS:")[1].split()[0]) / 1000
