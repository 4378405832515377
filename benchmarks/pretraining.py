"""A pre-training step of ours beside the same step assembled from transformers, and what feeds it.

    python benchmarks/pretraining.py [--size tiny --size base] [--precision float32] [--repeats 5]
                                     [--part step|compile|padding|pipeline] [--utterances N]
                                     [--profile] [--quick] [--output FILE]

A step is forward, loss, backward and a fused AdamW, in training mode, on the same waveforms, without
labels. The peer is transformers' `Wav2Vec2ForPreTraining` with masks and negatives drawn as its published
example draws them (`_compute_mask_indices`, `_sample_negative_indices`), which is part of its step as it is
of ours. Each runs in a process of its own, and they take turns, so that a drift of the machine's speed
touches all alike. Peak memory is the high-water mark of those processes, less what was resident before the
first step: gradients, optimiser and activations. "Of the matrix rate" is the work of the peer's products
and convolutions, in ours' time, as a share of what products of two 4,096 x 4,096 matrices reach here, in
the same precision and just before; on a GPU this is the model-FLOP utilisation, for which --utterances
fills the card. Results are printed, and written to benchmarks/results/DATE-pretraining.md.
"""

import argparse
import datetime
import itertools
import logging
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

import unispeech
import unispeech.models.pretraining
from unispeech.configuration import LARGE
from unispeech.data.batches import BatchLoader, make_loader
from unispeech.engines.compilation import compile_layers
from unispeech.frames import SAMPLE_RATE, num_frames

QUICK = "quick"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        conv_dim=(256,) * 7,
    ),
    "base": {},
    "large": LARGE,
    QUICK: dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7
    ),
}
BATCHES = {"tiny": (6, 10.0), "base": (2, 10.0), "large": (2, 10.0), QUICK: (2, 1.0)}
"""Utterances and seconds of each in the batch of a size."""
SHARED = dict(mask_time_prob=0.65, mask_time_length=10, num_negatives=100, layerdrop=0.0)
"""Settings of both: the masks of the paper; no LayerDrop, which would draw different layers."""

Step = Callable[[], None]
Say = Callable[[str], None]
"""Takes a piece of the report."""


def our_step(size: str, precision: str, device: torch.device) -> tuple[Step, nn.Module]:
    """A step of ours on waveforms that do not change."""
    torch.manual_seed(0)
    config = unispeech.UniSpeechConfig(**SIZES[size], **SHARED)
    model = unispeech.UniSpeechForPreTraining(config).to(device).train()
    waveforms, mask = make_batch(size, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with precise(device, precision):
            output = model(waveforms, mask)
        (output.loss / output.num_targets).backward()
        with record_function("part: optimiser"):
            optimizer.step()
            optimizer.zero_grad()

    return step, model


def their_step(size: str, precision: str, device: torch.device) -> tuple[Step, nn.Module]:
    """The same from transformers' parts, as its example for pre-training wav2vec 2.0 puts them together."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**SIZES[size], **SHARED)
    model = transformers.Wav2Vec2ForPreTraining(config).to(device).train()
    waveforms, mask = make_batch(size, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    width = int(model._get_feat_extract_output_lengths(waveforms.shape[1]))

    def step() -> None:
        shape = (len(waveforms), width)
        frames = model._get_feature_vector_attention_mask(width, mask)
        masked = _compute_mask_indices(
            shape, config.mask_time_prob, config.mask_time_length, attention_mask=frames, min_masks=2
        )
        negatives = _sample_negative_indices(shape, config.num_negatives, masked)
        with precise(device, precision):
            output = model(
                waveforms,
                attention_mask=mask,
                mask_time_indices=torch.from_numpy(masked).to(device),
                sampled_negative_indices=torch.from_numpy(negatives).to(device),
            )
        (output.loss / int(masked.sum())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, model


def compiled_step(size: str, precision: str, device: torch.device) -> tuple[Step, nn.Module]:
    """A step of ours with compiled layers."""
    step, model = our_step(size, precision, device)
    compile_layers(model)
    return step, model


def make_batch(size: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, S) noise and its mask, all ones."""
    utterances, seconds = BATCHES[size]
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.randn(utterances, int(seconds * SAMPLE_RATE), generator=generator)
    return waveforms.to(device), torch.ones(waveforms.shape, dtype=torch.long, device=device)


def precise(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def awaited(step: Step, device: torch.device) -> Step:
    """The step, over only when the device is done with it."""

    def run() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


# ---- processes of their own


class Racer:
    """A step in a process of its own, as its users run it.

    The process is forked before this one has computed anything, which spares it the imports.

    Args:
        make: Makes the step.
        case: Size, precision and device.
    """

    def __init__(self, make: Callable[..., tuple[Step, nn.Module]], case: tuple[str, str, str]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, *case), daemon=True)
        self._process.start()
        theirs.close()
        self.peak: float = self._pipe.recv()
        """Gigabytes that two steps take at most."""

    def ask(self, what: str) -> float:
        """Seconds of a step, its operations, or the rate of the machine's matrix products.

        Args:
            what: "step", "work" or "rate".
        """
        self._pipe.send(what)
        return float(self._pipe.recv())

    def end(self) -> None:
        """Give the memory back."""
        self._pipe.send("")
        self._process.join()


def _serve(
    pipe: Any,
    make: Callable[..., tuple[Step, nn.Module]],
    size: str,
    precision: str,
    device_type: str,
) -> None:
    device = torch.device(device_type)
    step, _ = make(size, precision, device)
    is_cuda = device_type == "cuda"
    before = torch.cuda.memory_allocated() if is_cuda else _resident()
    step()
    step()
    peak = torch.cuda.max_memory_allocated() if is_cuda else _high_water()
    pipe.send((peak - before) / 1e9)
    answers = {
        "step": lambda: seconds_of(awaited(step, device)),
        "work": lambda: count_work(step),
        "rate": lambda: matrix_rate(device, precision),
    }
    while question := pipe.recv():
        pipe.send(answers[question]())


def seconds_of(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _resident() -> int:
    """Bytes that are resident now; where the system does not tell, at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _high_water()
    return pages * resource.getpagesize()


def _high_water() -> int:
    """Bytes that were resident at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---- steps


def matrix_rate(device: torch.device, precision: str) -> float:
    """Operations a second of products of large matrices, the best of five."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(4096, 4096, dtype=dtype, device=device) for _ in range(2))
    multiply = awaited(lambda: one @ other, device)
    multiply()
    return 2 * 4096**3 / min(seconds_of(multiply) for _ in range(5))


def count_work(step: Callable[[], object]) -> int:
    """Operations of the products and convolutions of a step, two for each multiply-add."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def steps(say: Say, arguments: argparse.Namespace, device: torch.device) -> None:
    """Speed and memory of both, by size and precision."""
    say("## A step\n")
    say(
        "| size | precision | batch | ours, audio s/s | transformers, audio s/s | ratio "
        "| of the matrix rate | ours, GB | transformers, GB | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for size, precision in itertools.product(arguments.size, arguments.precision):
        case = (size, precision, device.type)
        ours, peer = racers = [Racer(make, case) for make in (our_step, their_step)]
        work, rate = peer.ask("work"), ours.ask("rate")
        rounds = race(racers, arguments.repeats)
        for racer in racers:
            racer.end()
        utterances, seconds = BATCHES[size]
        mine, theirs = (statistics.median(taken) for taken in rounds)
        audio = utterances * seconds
        say(
            f"| {size} | {precision} | {utterances} x {seconds:g} s | {audio / mine:.2f} "
            f"| {audio / theirs:.2f} | {ratio(rounds[1], rounds[0]):.2f} "
            f"| {work / mine / rate:.0%} | {ours.peak:.2f} | {peer.peak:.2f} | {ours.peak / peer.peak:.2f} |"
        )


def compiled(say: Say, arguments: argparse.Namespace, device: torch.device) -> None:
    """Steps of ours with compiled layers beside plain ones."""
    say("\n## Compiled layers\n")
    say("| size | precision | plain, audio s/s | compiled, audio s/s | ratio |\n|---|---|---|---|---|")
    for size, precision in itertools.product(arguments.size, arguments.precision):
        case = (size, precision, device.type)
        racers = [Racer(make, case) for make in (our_step, compiled_step)]
        plain, fused = race(racers, arguments.repeats)
        for racer in racers:
            racer.end()
        audio = BATCHES[size][0] * BATCHES[size][1]
        say(
            f"| {size} | {precision} | {audio / statistics.median(plain):.2f} "
            f"| {audio / statistics.median(fused):.2f} | {ratio(plain, fused):.2f} |"
        )


def race(racers: Sequence[Racer], repeats: int) -> list[list[float]]:
    """Seconds of a step of each, which take turns."""
    rounds = [[racer.ask("step") for racer in racers] for _ in range(repeats)]
    return [list(taken) for taken in zip(*rounds, strict=True)]


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the ratios of steps that were made one after the other."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


# ---- padding and the pipeline


def draw_durations(count: int) -> np.ndarray:
    """Seconds like those of a corpus of read and spontaneous speech: log-normal around 5, from 1 to 20."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(5.0), 0.6, count), 1.0, 20.0).round(3)


def write_corpus(folder: Path, durations: np.ndarray, *, with_audio: bool) -> Path:
    """Tones of the given lengths as FLAC, and their cuts; without audio, the cuts alone."""
    folder.mkdir()
    cuts = []
    for number, duration in enumerate(durations):
        path, samples = folder / f"{number}.flac", int(duration * SAMPLE_RATE)
        if with_audio:
            clock = np.arange(samples) / SAMPLE_RATE
            noise = np.random.default_rng(number).normal(0, 0.02, samples)
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * (100 + number) * clock) + noise, SAMPLE_RATE)
        recording = Recording(
            id=str(number),
            sources=[AudioSource(type="file", channels=[0], source=str(path))],
            sampling_rate=SAMPLE_RATE,
            num_samples=samples,
            duration=samples / SAMPLE_RATE,
        )
        supervision = SupervisionSegment(str(number), str(number), 0.0, recording.duration)
        cuts.append(MonoCut(str(number), 0.0, recording.duration, 0, [supervision], recording=recording))
    CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl.gz")
    return folder


def padding(say: Say, arguments: argparse.Namespace, folder: Path) -> None:
    """The share of computed frames that are padding, in an epoch of batches as the loader makes them."""
    say("\n## Padding\n")
    say(
        "| utterances | hours | `batch_seconds` | batches | padding, of computed frames |\n"
        "|---|---|---|---|---|"
    )
    for count in (200,) if arguments.quick else (500, 2000, 10_000):
        durations = draw_durations(count)
        corpus = write_corpus(folder / f"padding-{count}", durations, with_audio=False)
        for batch_seconds in (40.0,) if arguments.quick else (20.0, 40.0, 100.0):
            plan = make_loader(corpus, batch_seconds=batch_seconds).plan
            computed = valid = num_batches = 0
            for batch in plan.epoch(0):
                lengths = [num_frames(cut.num_samples) for cut in batch.cuts]
                computed += len(lengths) * max(lengths)
                valid += sum(lengths)
                num_batches += 1
            say(
                f"| {count:,} | {durations.sum() / 3600:.1f} | {batch_seconds:g} | {num_batches:,} "
                f"| {1 - valid / computed:.2%} |"
            )


def pipeline(say: Say, arguments: argparse.Namespace, folder: Path, device: torch.device) -> None:
    """The same steps fed from FLAC files and from tensors in memory, whole epochs in turn."""
    size, precision = arguments.size[0], arguments.precision[-1]
    durations = draw_durations(60)
    if arguments.quick:
        durations = durations[:8] / 5
    corpus = write_corpus(folder / "speech", durations, with_audio=True)
    # Without a draw every epoch has the batches that the tensors in memory have.
    batch_seconds = 4.0 if size == QUICK else max(BATCHES[size][0] * BATCHES[size][1], 20.0)
    settings: dict[str, Any] = {"batch_seconds": batch_seconds, "shuffle": False}
    prepared = [batch for batch in make_loader(corpus, **settings)]
    audio = sum(float(batch["num_samples"].sum()) for batch in prepared) / SAMPLE_RATE
    model = unispeech.UniSpeechForPreTraining(unispeech.UniSpeechConfig(**SIZES[size], **SHARED))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    loaders = {workers: make_loader(corpus, num_workers=workers, **settings) for workers in (0, 1)}

    def train(batches: BatchLoader | list[Any]) -> float:
        started = time.perf_counter()
        for batch in batches:
            with precise(device, precision):
                output = model(batch["input_values"].to(device), batch["attention_mask"].to(device))
            (output.loss / output.num_targets.clamp(min=1)).backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    train(prepared[:1])
    train(loaders[1])  # starts the worker, which stays
    seconds: dict[str, list[float]] = {}
    for _ in range(1 if arguments.quick else 3):
        seconds.setdefault("tensors in memory", []).append(train(prepared))
        for workers, loader in loaders.items():
            seconds.setdefault(f"files, `num_workers` {workers}", []).append(train(loader))
    say(f"\n## The input pipeline\n\nEpochs of {audio:.0f} s, size {size}, {precision}.\n")
    say("| fed from | audio s/s | time against tensors in memory |\n|---|---|---|")
    plain = seconds["tensors in memory"]
    for name, taken in seconds.items():
        say(f"| {name} | {audio / statistics.median(taken):.1f} | {ratio(taken, plain):.3f} |")


# ---- the profile

NOT_IN_A_PART = "other"
BACKWARD = "autograd::engine::evaluate_function: "


def mark_parts(model: unispeech.UniSpeechForPreTraining) -> None:
    """Give every part of the model a name in the profile; the innermost name counts."""
    names = {
        "unispeech.feature_extractor": "convolutions",
        "unispeech.encoder.pos_conv_embed": "positional convolution",
        "quantizer": "quantizer",
        "project_q": "quantizer",
        "project_hid": "quantizer",
        "ctc_proj": "CTC",
    }
    for name, module in model.named_modules():
        part = names.get(name)
        if name.endswith(".attention"):
            part = "attention without its products"
        elif isinstance(module, nn.Linear) and ".layers." in name:
            part = "encoder products"
        elif isinstance(module, nn.Dropout):
            part = "dropout"
        elif isinstance(module, nn.LayerNorm) or "intermediate_act_fn" in name:
            part = "norms and activations" if "feature_extractor" not in name else None
        if part is not None:
            module.forward = _named(part, module.forward)
    rooms = unispeech.models.pretraining
    for function, part in (
        ("contrastive_loss", "contrastive task"),
        ("sample_negatives", "contrastive task"),
        ("ctc_loss", "CTC"),
    ):
        setattr(rooms, function, _named(part, getattr(rooms, function)))


def _named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(f"part: {part}"):
            return function(*args, **kwargs)

    return call


def profiled(say: Say, size: str, precision: str, device: torch.device) -> None:
    """What costs what in one step of ours: own time of every operator, by part and direction."""
    step, model = our_step(size, precision, device)
    mark_parts(model)
    step()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as record:
        awaited(step, device)()
    events = [
        event
        for event in record.events()
        if "evaluate_function" not in event.name or event.cpu_parent is None
    ]
    part_of = {}
    for event in events:
        part = _part_around(event)
        if part is not None and event.sequence_nr >= 0 and event.scope == 0:
            part_of.setdefault(event.sequence_nr, part)
    times: dict[tuple[str, int], float] = {}
    for event in record.events():
        node = event
        while node.cpu_parent is not None and not node.name.startswith(BACKWARD):
            node = node.cpu_parent
        is_backward = node.name.startswith(BACKWARD)
        part = part_of.get(node.sequence_nr, NOT_IN_A_PART) if is_backward else _part_around(event)
        key = (part or NOT_IN_A_PART, int(is_backward))
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        times[key] = times.get(key, 0.0) + own / 1e3
    total = sum(times.values())
    say(f"\n## Profile: {size}, {precision}\n")
    say("| part | forward, ms | backward, ms | share |\n|---|---|---|---|")
    both = {part: [times.get((part, way), 0.0) for way in (0, 1)] for part, _ in times}
    for part, (ahead, back) in sorted(both.items(), key=lambda item: -sum(item[1])):
        say(f"| {part} | {ahead:.0f} | {back:.0f} | {(ahead + back) / total:.1%} |")


def _part_around(event: Any) -> str | None:
    """The innermost named part that an event lies in."""
    while event is not None:
        if event.name.startswith("part: "):
            return str(event.name.removeprefix("part: "))
        event = event.cpu_parent
    return None


# ---- the report


def describe(device: torch.device) -> str:
    """Machine, versions and commit."""
    processor, has_bf16 = platform.processor() or platform.machine(), "bf16 unit unknown"
    information = Path("/proc/cpuinfo")
    if information.exists():
        text = information.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), processor)
        has_bf16 = "with a bf16 unit" if "_bf16" in text else "without a bf16 unit"
    where = torch.cuda.get_device_name() if device.type == "cuda" else processor
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return (
        f"{where}, {torch.get_num_threads()} threads, {has_bf16}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"unispeech {unispeech.__version__}, commit {found.stdout.strip() or 'unknown'}"
    )


def report(say: Say, arguments: argparse.Namespace, device: torch.device) -> None:
    """The whole report, line by line."""
    say(f"# Pre-training beside transformers, {datetime.date.today()}\n")
    say(f"`python benchmarks/pretraining.py {' '.join(sys.argv[1:])}`\n")
    say(f"{describe(device)}; median of {arguments.repeats}.\n")
    if "step" in arguments.part:
        steps(say, arguments, device)
    if "compile" in arguments.part:
        compiled(say, arguments, device)
    with tempfile.TemporaryDirectory() as folder:
        if "padding" in arguments.part:
            padding(say, arguments, Path(folder))
        if "pipeline" in arguments.part:
            pipeline(say, arguments, Path(folder), device)
    if arguments.profile:
        for size in arguments.size:
            for precision in arguments.precision:
                profiled(say, size, precision, device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--precision", choices=["float32", "bf16"], action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["step", "compile", "padding", "pipeline"], action="append")
    parser.add_argument("--utterances", type=int, help="of 10 s in a batch; default: 6 of tiny, else 2")
    parser.add_argument("--profile", action="store_true", help="also say which part costs what")
    parser.add_argument("--quick", action="store_true", help="the smallest of everything; writes no file")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU where there is one")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/DATE-pretraining.md")
    arguments = parser.parse_args()
    arguments.size = arguments.size or ([QUICK] if arguments.quick else ["tiny", "base"])
    arguments.precision = arguments.precision or (["float32"] if arguments.quick else ["float32", "bf16"])
    arguments.part = arguments.part or ["step", "padding", "pipeline"]
    if arguments.quick:
        arguments.repeats = 1
    if arguments.utterances:
        BATCHES.update({size: (arguments.utterances, BATCHES[size][1]) for size in arguments.size})
    logging.getLogger("lhotse").setLevel(logging.ERROR)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.device_count() else "cpu"))
    lines = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    report(say, arguments, device)
    if arguments.output is None and not arguments.quick:
        results = Path(__file__).parent / "results"
        arguments.output = results / f"{datetime.date.today()}-pretraining.md"
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
