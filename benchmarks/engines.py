"""Every engine beside transformers in float32, one interleaved run.

    python benchmarks/engines.py [--size base large] [--seconds 10] [--repeats 7] [--threads 2]
                                 [--processor-time] [--model examples/checkpoint] [--parts one folder start]

`one`: an utterance, random weights of the size, the engines in turn; medians, the ratio to transformers, the
largest difference of a log-probability, and the share of the matrix-product peak of the precision, which is
measured first. Convolutions of random weights are narrowed in int8 whatever they would name: PER is measured
on a trained checkpoint, see docs/engines.md. `folder`: 200 recordings of 1 to 20 s against transformers in
padded batches of 8 by length. `start`: a cold process that transcribes 3 s, from a cached engine.

--processor-time counts processor seconds, for machines that others use too: run on one core by taskset then.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers

from unispeech import UniSpeechConfig, UniSpeechForCTC
from unispeech.configuration import LARGE
from unispeech.engines.choice import is_installed, open_engine
from unispeech.engines.graph_engine import on_grid
from unispeech.engines.network import recogniser_of
from unispeech.engines.quantisation import find_limits, speech
from unispeech.engines.torch_engine import TorchEngine
from unispeech.frames import num_frames

SIZES = {"base": {}, "large": LARGE}


def flops(config: UniSpeechConfig, num_samples: int) -> float:
    """Operations of a pass: twice the products of all convolutions and matrices."""
    total, length, channels = 0.0, num_samples, 1
    for dim, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        total += 2 * length * dim * channels * kernel
        channels = dim
    hidden = config.hidden_size
    total += 2 * length * channels * hidden
    grouped = hidden // config.num_conv_pos_embedding_groups
    total += 2 * length * hidden * grouped * config.num_conv_pos_embeddings
    layer = 4 * hidden * hidden + 2 * hidden * config.intermediate_size + 2 * length * hidden
    return total + 2 * length * layer * config.num_hidden_layers


def peak(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """The best matrix product of torch here, in operations per second."""
    size = 2048
    if dtype == torch.int8:
        x = torch.randint(-9, 9, (size, size), dtype=dtype)
        product: Callable[[], object] = lambda: torch._int_mm(x, x)  # noqa: E731
    else:
        y = torch.randn(size, size).to(dtype)
        product = lambda: y @ y  # noqa: E731
    times = []
    for _ in range(6):
        start = clock()
        product()
        times.append(clock() - start)
    return 2 * size**3 / min(times)


def narrow_engine(model: UniSpeechForCTC) -> object:
    """OpenVINO in int8 with all places narrowed."""
    from unispeech.engines.openvino_engine import OpenvinoEngine, run_places, serialised

    recogniser = recogniser_of(model)
    plain = OpenvinoEngine(serialised(recogniser, {}), "float32")
    seen = run_places(recogniser, plain, speech()[:2])
    limits = find_limits(seen, is_uneven=recogniser.has_group_norm)
    return OpenvinoEngine(serialised(recogniser, limits), "int8")


def contenders(model: UniSpeechForCTC) -> dict[str, tuple[torch.dtype, Callable[[list[np.ndarray]], object]]]:
    """Name of each engine -> its precision and what runs a batch."""
    peer = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**model.config.to_diff_dict())).eval()
    peer.load_state_dict(model.state_dict())
    entries: list[tuple[str, torch.dtype, object]] = [
        ("transformers float32", torch.float32, TorchEngine(peer)),
        ("torch float32", torch.float32, TorchEngine(model)),
        ("torch bf16", torch.bfloat16, TorchEngine(model, precision="bf16")),
    ]
    if is_installed("openvino"):
        entries.append(("openvino float32", torch.float32, open_engine(model, None, engine="openvino")))
        try:
            engine = open_engine(model, None, engine="openvino", precision="bf16")
            entries.append(("openvino bf16", torch.bfloat16, engine))
        except ValueError as error:
            print(f"openvino bf16: {error}")
        entries.append(("openvino int8", torch.int8, narrow_engine(model)))
    if is_installed("onnxruntime"):
        entries.append(("onnxruntime float32", torch.float32, open_engine(model, None, engine="onnxruntime")))
    return {name: (dtype, engine.log_probs) for name, dtype, engine in entries}  # type: ignore[attr-defined]


def race_one(size: str, options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """One utterance."""
    torch.manual_seed(0)
    model = UniSpeechForCTC(UniSpeechConfig(**SIZES[size])).eval()
    waveform = np.resize(np.concatenate(speech()), round(options.seconds * 16_000))
    runs = contenders(model)
    work = flops(model.config, len(waveform))
    peaks = {dtype: peak(dtype, clock) for dtype in (torch.float32, torch.bfloat16, torch.int8)}
    [expected] = runs["torch float32"][1]([waveform])
    differences = {name: np.abs(run([waveform])[0] - expected).max() for name, (_, run) in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, (_, run) in runs.items():
            start = clock()
            run([waveform])
            times[name].append(clock() - start)
    base = statistics.median(times["transformers float32"])
    print(f"\n{size}, {options.seconds:g} s, {work / 1e9:.0f} GFLOP\n")
    print("| engine | ms | least to most | ratio | share of peak | difference |\n|---|---|---|---|---|---|")
    for name, (dtype, _) in runs.items():
        middle = statistics.median(times[name])
        spread = f"{1e3 * min(times[name]):.0f} to {1e3 * max(times[name]):.0f}"
        share = work / middle / peaks[dtype]
        print(
            f"| {name} | {1e3 * middle:.0f} | {spread} | {base / middle:.2f} | {100 * share:.0f} % | "
            f"{differences[name]:.1e} |"
        )


def race_folder(size: str, options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Recordings of 1 to 20 s, the peer in padded batches of 8 of similar length."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    runs = contenders(UniSpeechForCTC(UniSpeechConfig(**SIZES[size])).eval())
    lengths = sorted(rng.uniform(1, 20, size=options.recordings) * 16_000, reverse=True)
    waves = [rng.normal(size=round(length)).astype(np.float32) for length in lengths]
    frames = [num_frames(len(wave)) for wave in waves]
    print(
        f"\n{size}, {len(waves)} recordings, {sum(lengths) / 16_000:.0f} s; "
        f"padded frames of a graph engine {100 * (sum(map(on_grid, frames)) / sum(frames) - 1):.2f} %\n"
    )
    print("| engine | s | ratio |\n|---|---|---|")
    base = None
    for name, (_, run) in runs.items():
        width = 8 if name.startswith("t") else 1
        start = clock()
        for first in range(0, len(waves), width):
            run(waves[first : first + width])
        taken = clock() - start
        base = base or taken
        print(f"| {name} | {taken:.1f} | {base / taken:.2f} |", flush=True)


def measure_start(options: argparse.Namespace) -> None:
    """A cold process, the engine cached."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "three.wav"
        soundfile.write(path, np.resize(speech()[0], 48_000) * 0.1, 16_000)
        command = [sys.executable, "-m", "unispeech", "transcribe", str(path), "-m", options.model]
        print("\n| start | s |\n|---|---|")
        for engine in ("torch", "openvino"):
            times = []
            for _ in range(options.repeats + 1):
                start = time.perf_counter()
                subprocess.run([*command, "--engine", engine], check=True, capture_output=True)
                times.append(time.perf_counter() - start)
            print(f"| {engine} | {statistics.median(times[1:]):.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["base", "large"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--model", default="examples/checkpoint")
    parser.add_argument(
        "--parts", nargs="+", choices=["one", "folder", "start"], default=["one", "folder", "start"]
    )
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {options.threads} threads")
    for size in options.size:
        if "one" in options.parts:
            race_one(size, options, clock)
        if "folder" in options.parts:
            race_folder(size, options, clock)
    if "start" in options.parts:
        measure_start(options)


if __name__ == "__main__":
    main()
