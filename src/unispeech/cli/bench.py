"""`unispeech bench`: every engine on this machine, in one table."""

from pathlib import Path
from typing import Literal


def bench(
    model: Path, audio: Path | None = None, /, *, seconds: float = 10.0, repeats: int = 5
) -> Literal[0]:
    """Measure every engine and precision on this machine: speed, memory, agreement with the plain path.

    Speed is seconds of audio per second, the engines taking turns, the median of the passes. Agreement is
    the share of frames whose best symbol is that of torch in float32, and the largest difference of a
    log-probability. What an engine needs that is not here is said beside its name.

    Examples:
      unispeech bench examples/checkpoint
      unispeech bench examples/checkpoint talk.wav --seconds 30

    Args:
        model: A model directory.
        audio: A recording to run on, repeated or cut to the length; the carried sentences without it.
        seconds: Length of what is run, above 0.
        repeats: Passes of each engine.

    Returns:
        0.
    """
    import numpy as np
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from unispeech.audio import load_audio, normalise_waveform
    from unispeech.engines.comparison import Measured, measure_engines
    from unispeech.engines.quantisation import speech
    from unispeech.frames import SAMPLE_RATE
    from unispeech.tokenizer_files import read_do_normalize

    if not 0 < seconds < float("inf"):
        raise ValueError(f"`--seconds` must be positive and finite, but is {seconds}.")
    if repeats < 1:
        raise ValueError(f"`--repeats` must be at least 1, but is {repeats}.")
    sound = np.concatenate(speech()) if audio is None else load_audio(audio)
    waveform = np.resize(sound, max(round(seconds * SAMPLE_RATE), 400))
    if read_do_normalize(model):
        waveform = normalise_waveform(waveform)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for name in ("audio s / s", "opens in s", "MB", "frames agree %", "largest difference"):
        table.add_column(name, justify="right")
    with Console(stderr=True).status("measuring"):
        for found in measure_engines(model, waveform, repeats=repeats):
            if not isinstance(found, Measured):
                table.add_row(*found)
                continue
            table.add_row(
                f"{found.engine} {found.precision}",
                f"{found.speed:.1f}",
                f"{found.open_seconds:.2f}",
                f"{found.memory:.0f}",
                f"{100 * found.parity.frame_agreement:.2f}",
                f"{found.parity.largest_difference:.1e}",
            )
    Console(width=120, highlight=False).print(table)
    return 0
