"""Ours and transformers' `pipeline` over audio files, each run in a process of its own.

    python benchmarks/pipeline_race.py JSON

runs one contender and prints what it measured as JSON; `race` starts such processes. Loading the model and
the last recording come before the clock and before the memory that counts as the model's.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What runs."""

    name: str
    """In the table."""
    model: str
    """A model directory."""
    threads: int
    """Of torch; graph engines take what the process may use."""
    batch_size: int = 0
    """Of transformers' pipeline; 0: ours."""
    chunk_seconds: float = 0.0
    """`chunk_length_s` of the pipeline; 0: none."""
    engine: str = "auto"
    """Of ours."""
    precision: str = "float32"
    """Of ours."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was measured."""

    engine: str
    """What ran."""
    seconds: float
    """For all files, from opening them to the last transcript."""
    memory: float
    """MB at the highest above what the process held with the model loaded and run once."""
    padding: float | None
    """Share of the computed frames that is padding; None where it was not counted."""
    phones: int
    """Symbols that were recognised, which tells that it ran."""


def race(
    contender: Contender, paths: Sequence[Path], rounds: int = 1, *, first: Path | None = None
) -> list[Run]:
    """Run a contender over files.

    Args:
        contender: What runs.
        paths: Wav files at 16 kHz.
        rounds: How often, each in a new process.
        first: What it runs before the clock; None: the last of the files.

    Returns:
        What was measured, each time.
    """
    task = json.dumps({
        "contender": asdict(contender),
        "paths": [str(path) for path in paths],
        "first": str(first or paths[-1]),
    })
    found = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, __file__, task], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{contender.name}: {done.stderr.strip().splitlines()[-1]}")
        found.append(Run(**json.loads(done.stdout.strip().splitlines()[-1])))
    return found


def measure(contender: Contender, paths: Sequence[str], first: str) -> Run:
    """Run a contender in this process."""
    run, engine, count = (open_pipeline if contender.batch_size else open_ours)(contender)
    run([first])
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest starts anew
    count(reset=True)
    start = time.perf_counter()
    phones = run(paths)
    seconds = time.perf_counter() - start
    return Run(
        engine=engine,
        seconds=seconds,
        memory=status("VmHWM") - before,
        padding=count(reset=False),
        phones=phones,
    )


Opened = tuple[Callable[[Sequence[str]], int], str, Callable[..., float | None]]


def open_ours(contender: Contender) -> Opened:
    """What transcribes files, its name, and what counts padding."""
    from unispeech import Transcriber
    from unispeech.frames import num_frames

    transcriber = Transcriber(
        contender.model,
        engine=contender.engine,  # type: ignore[arg-type]
        precision=contender.precision,  # type: ignore[arg-type]
    )
    engine: Any = transcriber.engine
    frames = {"own": 0, "computed": 0}
    if engine.name == "torch":
        import torch

        torch.set_num_threads(contender.threads)

        def see(module: Any, given: tuple[Any, ...], settings: Any) -> None:
            frames["computed"] += len(given[0]) * num_frames(given[0].shape[1])

        engine.model.register_forward_pre_hook(see, with_kwargs=True)
        original = engine.log_probs

        def log_probs(waveforms: Sequence[Any], **settings: Any) -> Any:
            found = original(waveforms, **settings)
            frames["own"] += sum(map(len, found))
            return found

        engine.log_probs = log_probs
    else:
        make_feed = engine.feed

        def feed_counted(waveform: Any, length: int, moments: Any = None) -> Any:
            frames["own"] += num_frames(len(waveform), engine.kernels, engine.strides)
            frames["computed"] += length
            return make_feed(waveform, length, moments)

        engine.feed = feed_counted

    def count(*, reset: bool) -> float:
        if reset:
            frames.update(own=0, computed=0)
        return 1 - frames["own"] / max(frames["computed"], 1)

    def run(paths: Sequence[str]) -> int:
        return sum(len(transcript.phones) for _, transcript in transcriber.transcribe_many(paths))  # type: ignore[union-attr]

    return run, f"{engine.name} {engine.precision}", count


def open_pipeline(contender: Contender) -> Opened:
    """The same of transformers."""
    import soundfile
    import torch
    import transformers

    torch.set_num_threads(contender.threads)
    processor = transformers.Wav2Vec2Processor.from_pretrained(contender.model)
    pipe = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.UniSpeechForCTC.from_pretrained(contender.model),
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    settings: dict[str, Any] = {"batch_size": contender.batch_size}
    if contender.chunk_seconds:
        settings["chunk_length_s"] = contender.chunk_seconds

    def read(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        for path in paths:
            samples, rate = soundfile.read(path, dtype="float32")
            yield {"raw": samples, "sampling_rate": rate}

    def run(paths: Sequence[str]) -> int:
        return sum(len(found["text"].split()) for found in pipe(read(paths), **settings))

    return run, "transformers float32", lambda reset: None


def status(field: str) -> float:
    """A field of this process's memory in MB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{field}:")[1].split()[0]) / 1000


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(measure(Contender(**asked["contender"]), asked["paths"], asked["first"]))))
