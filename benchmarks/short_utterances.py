"""Short utterances one by one, where a GPU waits for launches: CUDA graphs beside the plain pass.

    python benchmarks/short_utterances.py [--size base] [--size large] [--device cuda] [--repeats 30]
                                          [--seconds 0.5 1 2 5 10]

transformers in float32 (with TF32 off, torch's default), our plain pass and the replayed one, in float32 and
bf16, in turn on the same waveform, which goes to the device and the scores back in each; medians with
quartiles. A GPU is wanted for the replays; without one the rest is timed. Random weights.
The report goes to benchmarks/results/DATE-short.md, or where --output says.
"""

import argparse
import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from unispeech import UniSpeechConfig, UniSpeechForCTC
from unispeech.configuration import LARGE
from unispeech.engines.torch_engine import TorchEngine
from unispeech.frames import SAMPLE_RATE

Run = Callable[[list[np.ndarray]], object]

SIZES = {"base": {}, "large": LARGE}


def contenders(size: str, device: torch.device) -> dict[str, Run]:
    """Name -> what runs one utterance to its log-probabilities."""
    torch.manual_seed(0)
    model = UniSpeechForCTC(UniSpeechConfig(**SIZES[size])).eval().to(device)
    peer = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**model.config.to_diff_dict())).eval()
    peer.load_state_dict(model.state_dict())
    runs: dict[str, Run] = {
        "transformers float32": TorchEngine(peer.to(device), precision="float32").log_probs,
        "float32": TorchEngine(model, precision="float32").log_probs,
        "bf16": TorchEngine(model, precision="bf16").log_probs,
    }
    if device.type == "cuda":
        runs["float32, replayed"] = TorchEngine(model, precision="float32", cuda_graphs=True).log_probs
        runs["bf16, replayed"] = TorchEngine(model, precision="bf16", cuda_graphs=True).log_probs
    return runs


def time_each(runs: dict[str, Run], waveform: np.ndarray, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each repeat, all contenders in turn; the scores are on the host when one ends."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-3, repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run([waveform])
            if repeat >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def report(
    size: str, runs: dict[str, Run], lengths: list[float], repeats: int, say: Callable[[str], None]
) -> None:
    """A table of one size: a row for each length."""
    say(f"\n## {size}: milliseconds, median (quartiles), and times as fast as transformers\n")
    say(f"| seconds | {' | '.join(runs)} |")
    say("|---" * (len(runs) + 1) + "|")
    for seconds in lengths:
        noise = np.random.default_rng(0).normal(size=round(seconds * SAMPLE_RATE)).astype(np.float32)
        times = time_each(runs, noise, repeats)
        peer = statistics.median(times["transformers float32"])
        cells = []
        for values in times.values():
            low, middle, high = statistics.quantiles(values, n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f}), {peer / middle:.2f}")
        say(f"| {seconds:g} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", action="append", choices=[*SIZES], help="default: both")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1, 2, 5, 10])
    today = datetime.date.today().isoformat()
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / f"results/{today}-short.md")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    say(f"# Short utterances, {today}\n")
    say(f"`python benchmarks/short_utterances.py {' '.join(sys.argv[1:])}` on {where}; Python ")
    say(f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}.")
    for size in arguments.size or SIZES:
        report(size, contenders(size, device), arguments.seconds, arguments.repeats, say)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
