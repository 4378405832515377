"""Every engine beside transformers in float32: an utterance, a folder, an hour, a cold start.

    python benchmarks/engines.py [--part one] [--part profile] [--part folder] [--part hour] [--part start]
                                 [--size base] [--size large] [--model examples/checkpoint] [--threads 2]
                                 [--seconds 10] [--repeats 7] [--processor-time]
                                 [--recordings 200] [--minutes 60] [--batch-size 1 8 16]
                                 [--chunk-seconds 10 20 30] [--rounds 1] [--only "openvino int8"]

`one`: an utterance, random weights of each size, the engines in turn; medians, the ratio to transformers, the
largest difference of a log-probability, and the share of the matrix-product peak of the precision, which is
measured first. NNCF's own int8 stands beside ours where the package is installed. Convolutions of random
weights are narrowed in int8 whatever they would name: PER is measured on a trained checkpoint, see
docs/engines.md. `folder`: recordings of 1 to 20 s against transformers' pipeline
with each batch size, which gets them in the order of the folder, as a user would call it. `hour`: one file
against the pipeline with the chunk_length_s and batch size that were fastest on its first minute. Both are
made of the carried sentences; each contender runs in a process of its own, files read, text and times made.
--model may be base or large there: random weights of that size, all narrowed in int8; --only leaves the
other engines out.
`start`: cold processes, the engine cached. `profile`: where OpenVINO's time goes in int8.

--processor-time counts processor seconds in `one`, for machines that others use too: on one core by taskset.
The report goes to benchmarks/results/DATE-engines.md, or where --output says.
"""

import argparse
import datetime
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers

import unispeech
from pipeline_race import Contender, Run, race
from unispeech import UniSpeechConfig, UniSpeechForCTC
from unispeech.checkpoints.huggingface import save_model
from unispeech.configuration import LARGE
from unispeech.engines.cache import Made
from unispeech.engines.choice import cached, is_installed, open_engine
from unispeech.engines.network import recogniser_of
from unispeech.engines.quantisation import find_limits, see_places, speech
from unispeech.engines.torch_engine import TorchEngine
from unispeech.frames import SAMPLE_RATE, num_frames
from unispeech.text import Vocabulary

Say = Callable[[str], None]
"""Takes a line of the report."""

PARTS = ("one", "profile", "folder", "hour", "start")
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


def make_narrow(model: UniSpeechForCTC) -> Made:
    """An engine of OpenVINO in int8 with all places narrowed, as random weights are left at nothing else."""
    from unispeech.engines.openvino_engine import OpenvinoEngine, look_at, serialised

    recogniser = recogniser_of(model)
    plain = OpenvinoEngine(serialised(recogniser, {}), "float32")
    seen = see_places(plain, speech()[:2], look_at(recogniser))
    return serialised(recogniser, find_limits(seen, is_uneven=recogniser.has_group_norm))


def make_narrow_onnx(model: UniSpeechForCTC) -> Made:
    """The same for ONNX Runtime, which narrows products only."""
    from unispeech.engines.onnx_engine import OnnxEngine, drawn, look_at

    recogniser = recogniser_of(model)
    plain = OnnxEngine(drawn(recogniser, {}), "float32")
    seen = see_places(plain, speech()[:2], look_at(recogniser))
    limits = find_limits(seen, is_uneven=recogniser.has_group_norm)
    return drawn(recogniser, {place: found for place, found in limits.items() if found.means is not None})


def by_nncf(model: UniSpeechForCTC) -> Callable[[list[np.ndarray]], object]:
    """OpenVINO in int8 as NNCF's own post-training quantisation makes it of our float32 graph."""
    import nncf

    from unispeech.engines.openvino_engine import OpenvinoEngine, core, serialised
    from unispeech.engines.openvino_graph import draw_openvino

    recogniser = recogniser_of(model)
    engine = OpenvinoEngine(serialised(recogniser, {}), "float32")
    feeds = [engine.feed(part, num_frames(len(part), engine.kernels, engine.strides)) for part in speech()]
    graph = nncf.quantize(
        draw_openvino(recogniser, {}),
        nncf.Dataset([dict(feed) for feed in feeds]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
    )
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    request = core().compile_model(graph, "CPU", settings).create_infer_request()
    engine.run = lambda feed: request.infer(dict(feed), share_inputs=True)[0]  # type: ignore[method-assign]
    return engine.log_probs


def contenders(model: UniSpeechForCTC) -> dict[str, tuple[torch.dtype, Callable[[list[np.ndarray]], object]]]:
    """Name of each engine -> its precision and what runs a batch."""
    peer = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**model.config.to_diff_dict())).eval()
    peer.load_state_dict(model.state_dict())
    entries: list[tuple[str, torch.dtype, object]] = [
        ("transformers float32", torch.float32, TorchEngine(peer)),
        ("torch float32", torch.float32, TorchEngine(model)),
    ]
    if has_bf16_unit():
        entries.append(("torch bf16", torch.bfloat16, TorchEngine(model, precision="bf16")))
    if is_installed("openvino"):
        entries.append(("openvino float32", torch.float32, open_engine(model, None, engine="openvino")))
        if has_bf16_unit():
            engine = open_engine(model, None, engine="openvino", precision="bf16")
            entries.append(("openvino bf16", torch.bfloat16, engine))
        from unispeech.engines.openvino_engine import OpenvinoEngine

        entries.append(("openvino int8", torch.int8, OpenvinoEngine(make_narrow(model), "int8")))
    if is_installed("onnxruntime"):
        entries.append(("onnxruntime float32", torch.float32, open_engine(model, None, engine="onnxruntime")))
        from unispeech.engines.onnx_engine import OnnxEngine

        entries.append(("onnxruntime int8", torch.int8, OnnxEngine(make_narrow_onnx(model), "int8")))
    found = {name: (dtype, engine.log_probs) for name, dtype, engine in entries}  # type: ignore[attr-defined]
    if is_installed("openvino") and is_installed("nncf"):
        found["openvino int8 by NNCF"] = (torch.int8, by_nncf(model))
    return found


def race_one(say: Say, size: str, options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """One utterance."""
    torch.manual_seed(0)
    model = UniSpeechForCTC(UniSpeechConfig(**SIZES[size])).eval()
    waveform = np.resize(np.concatenate(speech()), round(options.seconds * 16_000))
    runs = contenders(model)
    work = flops(model.config, len(waveform))
    peaks = {dtype: peak(dtype, clock) for dtype in {dtype: None for dtype, _ in runs.values()}}
    [expected] = runs["torch float32"][1]([waveform])
    differences = {name: np.abs(run([waveform])[0] - expected).max() for name, (_, run) in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, (_, run) in runs.items():
            start = clock()
            run([waveform])
            times[name].append(clock() - start)
    base = statistics.median(times["transformers float32"])
    say(f"\n## One utterance: {size}, {options.seconds:g} s, {work / 1e9:.0f} GFLOP\n")
    tops = ", ".join(f"{str(dtype).removeprefix('torch.')} {top / 1e9:.0f}" for dtype, top in peaks.items())
    say(f"Best matrix product here, G operations/s: {tops}. Median of {options.repeats}.\n")
    say("| engine | ms | least to most | ratio | share of peak | difference |\n|---|---|---|---|---|---|")
    for name, (dtype, _) in runs.items():
        middle = statistics.median(times[name])
        spread = f"{1e3 * min(times[name]):.0f} to {1e3 * max(times[name]):.0f}"
        share = work / middle / peaks[dtype]
        say(
            f"| {name} | {1e3 * middle:.0f} | {spread} | {base / middle:.2f} | {100 * share:.0f} % | "
            f"{differences[name]:.1e} |"
        )


def carried_sound(num_samples: int, seed: int) -> np.ndarray:
    """The carried sentences over and over, from a place that the seed draws."""
    sentences = np.concatenate(speech()) * 0.1
    start = int(np.random.default_rng(seed).integers(len(sentences)))
    return np.resize(np.roll(sentences, -start), num_samples)


def model_directory(name: str, folder: Path) -> str:
    """A model directory as it is, or one of random weights of a size."""
    if name not in SIZES:
        return name
    symbols = Vocabulary.load("examples/checkpoint")
    torch.manual_seed(0)
    config = UniSpeechConfig(**SIZES[name], vocab_size=len(symbols), pad_token_id=symbols.blank)
    model = UniSpeechForCTC(config).eval()
    save_model(model, folder / name, symbols, do_normalize=True)
    if is_installed("openvino"):
        cached("openvino", "int8", folder / name, lambda: make_narrow(model))
    return str(folder / name)


def ours(model: str, options: argparse.Namespace) -> list[Contender]:
    """Our engines that there are here."""
    pairs = [("torch", "float32")]
    if is_installed("openvino"):
        pairs += [("openvino", "float32"), ("openvino", "bf16"), ("openvino", "int8")]
    contenders = [
        Contender(
            name=f"{engine} {precision}",
            model=model,
            threads=options.threads,
            engine=engine,
            precision=precision,
        )
        for engine, precision in pairs
        if precision != "bf16" or has_bf16_unit()
    ]
    return [one for one in contenders if not options.only or one.name in options.only]


def peer(model: str, options: argparse.Namespace, batch_size: int, chunk: float = 0.0) -> Contender:
    """The pipeline of transformers."""
    return Contender(
        name=f"transformers pipeline, batch_size={batch_size}",
        model=model,
        threads=options.threads,
        batch_size=batch_size,
        chunk_seconds=chunk,
    )


def row(name: str, runs: list[Run], references: list[float], audio: float) -> str:
    """A line of a table: time, speed, ratios, padding, memory."""
    times = [run.seconds for run in runs]
    middle = statistics.median(times)
    spread = f"{min(times):.1f} to {max(times):.1f}"
    ratios = " | ".join(f"{reference / middle:.2f}" for reference in references)
    padding = "" if runs[0].padding is None else f"{100 * runs[0].padding:.1f} %"
    memory = max(run.memory for run in runs)
    return (
        f"| {name} | {middle:.1f} | {spread} | {audio / middle:.1f} | {ratios} | {padding} | {memory:.0f} |"
    )


def race_folder(say: Say, options: argparse.Namespace, folder: Path) -> None:
    """Recordings of 1 to 20 s."""
    model = model_directory(options.model, folder)
    lengths = np.random.default_rng(0).uniform(1, 20, size=options.recordings)
    paths = [folder / f"{number:03}.wav" for number in range(len(lengths))]
    for number, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        soundfile.write(path, carried_sound(round(length * SAMPLE_RATE), number), SAMPLE_RATE)
    say(f"\n## A folder: {options.model}, {len(paths)} recordings of 1 to 20 s, {sum(lengths):.0f} s\n")
    peers = {size: race(peer(model, options, size), paths, options.rounds) for size in options.batch_size}
    middles = {size: statistics.median(run.seconds for run in runs) for size, runs in peers.items()}
    best = min(middles, key=lambda size: middles[size])
    usual = 8 if 8 in middles else best
    references = [middles[usual], middles[best]]
    say(
        f"| engine | s | least to most | audio s/s | to batch_size={usual} | to the best, {best} | "
        "padding | MB above the model |\n|---|---|---|---|---|---|---|---|"
    )
    for size, runs in peers.items():
        say(row(peer(model, options, size).name, runs, references, sum(lengths)))
    for contender in ours(model, options):
        say(row(contender.name, race(contender, paths, options.rounds), references, sum(lengths)))


def race_hour(say: Say, options: argparse.Namespace, folder: Path) -> None:
    """One long file."""
    model, seconds = model_directory(options.model, folder), 60 * options.minutes
    start, path = folder / "start.wav", folder / "long.wav"
    for place, length in ((start, min(seconds, 60)), (path, seconds)):
        with soundfile.SoundFile(place, "w", SAMPLE_RATE, 1) as file:
            for number in range(-(-round(length) // 60)):
                file.write(
                    carried_sound(60 * SAMPLE_RATE, number)[: round((length - 60 * number) * SAMPLE_RATE)]
                )
    say(f"\n## One file of {options.minutes:g} minutes: {options.model}\n")
    tried = {
        (chunk, size): race(peer(model, options, size, chunk), [start])[0].seconds
        for chunk in options.chunk_seconds
        for size in options.batch_size
    }
    chunk, size = min(tried, key=lambda pair: tried[pair])
    shown = ", ".join(f"{chunk:g} s by {size}: {taken:.1f} s" for (chunk, size), taken in tried.items())
    say(f"The pipeline's chunk_length_s and batch_size on the first {min(seconds, 60):.0f} s: {shown}.\n")
    say(
        "| engine | s | least to most | audio s/s | to the pipeline | padding | MB above the model |\n"
        "|---|---|---|---|---|---|---|"
    )
    best = peer(model, options, size, chunk)
    runs = race(best, [path], options.rounds, first=start)
    references = [statistics.median(run.seconds for run in runs)]
    say(row(f"transformers pipeline, chunk_length_s={chunk:g}, batch_size={size}", runs, references, seconds))
    for contender in ours(model, options):
        runs = race(contender, [path], options.rounds, first=start)
        say(row(contender.name, runs, references, seconds))


KINDS = {
    "FullyConnectedQuantizedLegacy": "products of 8 bits",
    "FullyConnected": "products",
    "Subgraph": "attention",
    "GroupConvolution": "positional convolution",
    "MatMul": "first convolution",
}
"""OpenVINO's kind of node -> what it is here."""


def profile(say: Say, size: str, options: argparse.Namespace) -> None:
    """Where OpenVINO's time goes, as its own counters have it: int8, one short and one long utterance."""
    from unispeech.engines.openvino_engine import OpenvinoEngine, core
    from unispeech.engines.openvino_graph import openvino

    torch.manual_seed(0)
    made = make_narrow(UniSpeechForCTC(UniSpeechConfig(**SIZES[size])).eval())
    engine = OpenvinoEngine(made, "int8")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    model = core().read_model(made.parts[0], openvino.Tensor(np.frombuffer(made.parts[1], np.uint8)))
    request = core().compile_model(model, "CPU", settings).create_infer_request()
    say(f"\n## Where the time goes: {size}, int8\n\n| seconds | part | ms | share |\n|---|---|---|---|")
    for seconds in (options.seconds, 3 * options.seconds):
        waveform = carried_sound(round(seconds * SAMPLE_RATE), 0)
        feed = dict(engine.feed(waveform, num_frames(len(waveform), engine.kernels, engine.strides)))
        times: dict[str, list[float]] = {}
        for _ in range(options.repeats + 1):
            request.infer(feed)
            spent: dict[str, float] = {}
            for node in request.profiling_info:
                kind = KINDS.get(node.node_type, "all else")
                spent[kind] = spent.get(kind, 0.0) + 1e3 * node.real_time.total_seconds()
            for kind, taken in spent.items():
                times.setdefault(kind, []).append(taken)
        middles = {kind: statistics.median(taken[1:]) for kind, taken in times.items()}
        for kind, middle in sorted(middles.items(), key=lambda pair: -pair[1]):
            say(f"| {seconds:g} | {kind} | {middle:.0f} | {100 * middle / sum(middles.values()):.0f} % |")


def measure_start(say: Say, options: argparse.Namespace, folder: Path) -> None:
    """Cold processes, the engine cached by the first."""
    path = folder / "three.wav"
    soundfile.write(path, carried_sound(3 * SAMPLE_RATE, 0), SAMPLE_RATE)
    transcribe = ["transcribe", str(path), "-m", "examples/checkpoint", "--engine"]
    wanted = {"--help": (["--help"], "0.4")}
    if is_installed("openvino"):
        wanted["transcribe 3s.wav, openvino, cached"] = ([*transcribe, "openvino"], "1.5")
    wanted["transcribe 3s.wav, torch"] = ([*transcribe, "torch"], "")
    say("\n## A cold start: examples/checkpoint\n")
    say("| unispeech | s | least to most | wanted, s |\n|---|---|---|---|")
    for name, (arguments, most) in wanted.items():
        times = []
        for _ in range(options.repeats + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "unispeech", *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        times = times[1:]
        spread = f"{min(times):.2f} to {max(times):.2f}"
        say(f"| {name} | {statistics.median(times):.2f} | {spread} | {most} |")


def has_bf16_unit() -> bool:
    """Whether the processor multiplies in bf16; engines that emulate it are left out."""
    information = Path("/proc/cpuinfo")
    return information.exists() and "_bf16" in information.read_text(encoding="utf-8", errors="replace")


def describe(threads: int) -> str:
    """Machine, versions and commit."""
    processor, information = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), processor)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    versions = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    versions += [f"{name} {version(name)}" for name in ("openvino", "onnxruntime") if is_installed(name)]
    versions += [f"unispeech {unispeech.__version__}", f"commit {commit or 'unknown'}"]
    unit = "with a bf16 unit" if has_bf16_unit() else "without a bf16 unit, so that bf16 is left out"
    return f"{processor}, {threads} threads, {unit}; {', '.join(versions)}"


def report(say: Say, options: argparse.Namespace) -> None:
    """The parts that were asked for."""
    say(f"# Engines beside transformers, {datetime.date.today()}\n")
    say(f"`python benchmarks/engines.py {' '.join(sys.argv[1:])}`\n")
    say(f"{describe(options.threads)}.")
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    if "one" in options.part:
        for size in options.size:
            race_one(say, size, options, clock)
    if "profile" in options.part and is_installed("openvino"):
        for size in options.size:
            profile(say, size, options)
    with tempfile.TemporaryDirectory() as folder:
        if "folder" in options.part:
            race_folder(say, options, Path(folder))
        if "hour" in options.part:
            race_hour(say, options, Path(folder))
        if "start" in options.part:
            measure_start(say, options, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--size", choices=list(SIZES), action="append")
    parser.add_argument("--model", default="examples/checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--chunk-seconds", type=float, nargs="+", default=[10.0, 20.0, 30.0])
    parser.add_argument("--rounds", type=int, default=1, help="passes over the folder and the long file")
    parser.add_argument("--only", action="append", help="our only engines in `folder` and `hour`")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/DATE-engines.md")
    options = parser.parse_args()
    options.part = options.part or list(PARTS)
    options.size = options.size or list(SIZES)
    name = f"{datetime.date.today()}-engines.md"
    path = options.output or Path(__file__).parent / "results" / name
    with path.open("a", encoding="utf-8") as file:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=file, flush=True)

        report(say, options)


if __name__ == "__main__":
    main()
