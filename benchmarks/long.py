"""Long recordings: time and memory against length.

    python benchmarks/long.py [--model examples/checkpoint] [--minutes 5 15 60] [--kind speech|noise]
                              [--rate 44100] [--window-seconds 20] [--work transcribe classify embed]

`classify` runs the network of the recogniser under a head of ten labels with random weights; `embed` takes
the vectors block by block and keeps none, as `unispeech embed` does on its way to the disk. Each length
runs in a process of its own, on a wav file that is written to a temporary folder block by block: the
example recordings one after another with pauses, or noise of changing level. Prints seconds, seconds of
audio per second, what came out (phones, windows, vectors), and the highest resident memory above that of
the model after its first pass of a second (`VmHWM` of Linux is read and reset by way of
/proc/self/clear_refs).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

WORK = ("transcribe", "classify", "embed")
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


def open_work(work: str, model: str, window_seconds: float) -> Callable[[Path], tuple[float, int]]:
    """Load what does the work.

    Returns:
        What takes a file and gives its length in seconds and how much came out.
    """
    import torch

    from unispeech import Classifier, Embedder, Transcriber
    from unispeech.checkpoints.huggingface import load_model

    if work == "transcribe":
        transcriber = Transcriber(model, window_seconds=window_seconds)

        def transcribe(path: Path) -> tuple[float, int]:
            transcript = transcriber.transcribe(path)
            return transcript.duration, len(transcript.phones)

        return transcribe
    if work == "classify":
        torch.manual_seed(0)
        network = load_model(
            model, head="classification", allow_missing=True, num_labels=10, dtype=torch.float32
        )
        classifier = Classifier(network, do_normalize=True, window_seconds=window_seconds)

        def classify(path: Path) -> tuple[float, int]:
            found = classifier.classify(path)
            return found.duration, len(found.windows or ())

        return classify
    embedder = Embedder(model, window_seconds=window_seconds)

    def embed(path: Path) -> tuple[float, int]:
        [(_, embedding)] = embedder.embed_many([path])
        assert not isinstance(embedding, Exception), embedding
        return embedding.duration, sum(len(block) for block in embedding.blocks)

    return embed


def measure(path: Path, work: str, model: str, window_seconds: float) -> dict[str, float]:
    """Do the work on one file and measure."""
    run = open_work(work, model, window_seconds)
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).normal(size=16000) * 0.1
        soundfile.write(Path(folder) / "short.wav", noise, 16000)
        run(Path(folder) / "short.wav")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, start = resident("VmRSS"), time.perf_counter()
    duration, count = run(path)
    seconds = time.perf_counter() - start
    memory = resident("VmHWM") - before
    return {"minutes": duration / 60, "seconds": seconds, "count": count, "memory": memory}


def main() -> None:
    """Print a row for each work and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(EXAMPLES / "checkpoint"))
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 60])
    parser.add_argument("--kind", choices=["speech", "noise"], default="speech")
    parser.add_argument("--rate", type=int, default=44_100)
    parser.add_argument("--window-seconds", type=float, default=20.0)
    parser.add_argument("--work", choices=WORK, nargs="+", default=WORK)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, *options.work, options.model, options.window_seconds)))
        return
    print("| work | minutes | seconds | audio s / s | MB above the model | came out |")
    print("|---|---|---|---|---|---|")
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.wav"
            write_recording(path, minutes, options.kind, options.rate)
            for work in options.work:
                command = [sys.executable, __file__, "--one", str(path), "--work", work]
                command += ["--model", options.model, "--window-seconds", str(options.window_seconds)]
                row = json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                )
                speed = 60 * row["minutes"] / row["seconds"]
                cells = [work, f"{row['minutes']:g}", f"{row['seconds']:.1f}", f"{speed:.1f}"]
                cells += [f"{row['memory']:.0f}", str(row["count"])]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
