"""Long recordings: time and memory against length.

    python benchmarks/long.py [--model examples/checkpoint] [--minutes 5 15 60] [--kind speech|noise]
                              [--rate 44100] [--window-seconds 30]

Each length runs in a process of its own, on a wav file that is written to a temporary folder block by block:
the example recordings one after another with pauses, or noise of changing level. Prints seconds, seconds of
audio per second, and the highest resident memory above that of the model after its first pass of a second
(`VmHWM` of Linux is read and reset by way of /proc/self/clear_refs).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

EXAMPLES = Path(__file__).parents[1] / "examples"


def write_recording(path: Path, minutes: float, kind: str, rate: int) -> None:
    """Write sound of a length, a piece at a time."""
    remaining = round(minutes * 60 * rate)
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_16") as file:
        for piece in pieces(kind, rate):
            file.write(piece[:remaining])
            remaining -= len(piece)
            if remaining <= 0:
                return


def pieces(kind: str, rate: int) -> Iterator[np.ndarray]:
    """Make sound without an end.

    Yields:
        Samples, a sentence or a pause at a time.
    """
    rng = np.random.default_rng(0)
    files = sorted((EXAMPLES / "recordings").glob("*.flac"))
    spoken = [soxr.resample(samples, own, rate) for samples, own in map(soundfile.read, files)]
    while True:
        for samples in spoken:
            if kind == "noise":
                level = np.repeat(rng.uniform(0.0, 0.2, size=len(samples) // 2000 + 1), 2000)
                yield rng.normal(size=len(samples)) * level[: len(samples)]
            else:
                yield samples
            yield rng.normal(size=rng.integers(rate // 5, rate)) * 1e-3


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{name}:")[1].split()[0]) / 1000


def measure(path: Path, model: str, window_seconds: float) -> dict[str, float]:
    """Transcribe one file and measure."""
    from unispeech import Transcriber

    transcriber = Transcriber(model, window_seconds=window_seconds)
    transcriber.transcribe(np.random.default_rng(0).normal(size=16000).astype(np.float32), 16000)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = resident("VmRSS"), time.perf_counter()
    transcript = transcriber.transcribe(path)
    seconds = time.perf_counter() - start
    return {
        "minutes": transcript.duration / 60,
        "seconds": seconds,
        "phones": len(transcript.phones),
        "memory": resident("VmHWM") - before,
    }


def main() -> None:
    """Print a row for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(EXAMPLES / "checkpoint"))
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 60])
    parser.add_argument("--kind", choices=["speech", "noise"], default="speech")
    parser.add_argument("--rate", type=int, default=44_100)
    parser.add_argument("--window-seconds", type=float, default=30.0)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, options.model, options.window_seconds)))
        return
    print("| minutes | seconds | audio s / s | MB above the model | phones |")
    print("|---|---|---|---|---|")
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.wav"
            write_recording(path, minutes, options.kind, options.rate)
            command = [sys.executable, __file__, "--one", str(path), "--model", options.model]
            command += ["--window-seconds", str(options.window_seconds)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        speed, memory = 60 * row["minutes"] / row["seconds"], row["memory"]
        print(f"| {row['minutes']:g} | {row['seconds']:.1f} | {speed:.1f} | {memory:.0f} | {row['phones']} |")


if __name__ == "__main__":
    main()
