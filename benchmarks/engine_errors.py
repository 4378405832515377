"""Speed against phone error rate: every engine and precision that runs here, beside transformers in float32.

    python benchmarks/engine_errors.py data/multi/dev-* [--most 150] [--model examples/checkpoint]
        [--engines "torch float32" ...]
        [--output benchmarks/results/engine-errors.json] [--figure docs/engines.svg]
    python benchmarks/engine_errors.py --figure docs/engines.svg     # draws what was measured before

Reads the first utterances of each set, runs them in batches of 8 of similar length, each batch by every
engine in turn, and decodes greedily. Prints the phone error rate of each set and engine; the row "all" pools
the sets, "changed" is how far it is from the first engine's, relative, with the 95 % interval of 2,000
resamplings of the utterances, the same ones for both engines. Speed is seconds of audio by the
seconds that the networks took. Writes all of it to the output, and draws the figure from there.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import kaldialign
import numpy as np
import torch
import transformers

from unispeech.audio import load_audio, normalise_waveform
from unispeech.data.cuts import CutFiles
from unispeech.decoding.greedy import greedy
from unispeech.engines.choice import open_engine
from unispeech.engines.comparison import CANDIDATES
from unispeech.engines.engine import Engine
from unispeech.engines.torch_engine import TorchEngine
from unispeech.text import Vocabulary

BATCH = 8


NAMES = ["transformers float32", *(f"{name} {precision}" for name, precision in CANDIDATES)]


def contenders(model: Path, names: Sequence[str]) -> dict[str, Engine]:
    """Name of each engine and precision -> it."""
    found: dict[str, Engine] = {}
    if NAMES[0] in names:
        peer = transformers.UniSpeechForCTC.from_pretrained(model).eval()
        found[NAMES[0]] = TorchEngine(peer)
    for name, precision in CANDIDATES:
        if f"{name} {precision}" not in names:
            continue
        try:
            found[f"{name} {precision}"] = open_engine(
                model, model, engine=name, precision=precision, device="cpu"
            )
        except (ImportError, ValueError) as error:
            print(f"{name} {precision}: {error}")
    return found


def measure(folder: Path, most: int, engines: dict[str, Engine], vocabulary: Vocabulary) -> dict[str, object]:
    """Phones of each utterance of a set, and each engine's errors in it and seconds in all."""
    cuts = [cut for cut in CutFiles(folder) if "phones" in (cut.supervisions[0].custom or {})]
    cuts = cuts[:most]
    waves = [normalise_waveform(load_audio(cut.recording.sources[0].source)) for cut in cuts]
    order = sorted(range(len(cuts)), key=lambda number: len(waves[number]))
    heard: dict[str, dict[int, list[str]]] = {name: {} for name in engines}
    seconds = dict.fromkeys(engines, 0.0)
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        for name, engine in engines.items():
            start = time.perf_counter()
            found = engine.log_probs([waves[row] for row in rows])
            seconds[name] += time.perf_counter() - start
            for row, log_probs in zip(rows, found, strict=True):
                spans = greedy(np.array(log_probs), vocabulary.blank)
                heard[name][row] = vocabulary.decode([span.token for span in spans])
    said = [cut.supervisions[0].custom["phones"].split() for cut in cuts]
    return {
        "audio_seconds": sum(map(len, waves)) / 16_000,
        "phones": [len(phones) for phones in said],
        "errors": {
            name: [kaldialign.edit_distance(said[row], answers[row])["total"] for row in range(len(cuts))]
            for name, answers in heard.items()
        },
        "seconds": seconds,
    }


def pooled(sets: dict[str, dict]) -> dict:
    """All sets as one."""
    rows = list(sets.values())
    names = rows[0]["errors"]
    return {
        "audio_seconds": sum(row["audio_seconds"] for row in rows),
        "phones": [phones for row in rows for phones in row["phones"]],
        "errors": {name: [errors for row in rows for errors in row["errors"][name]] for name in names},
        "seconds": {name: sum(row["seconds"][name] for row in rows) for name in names},
    }


def rate_of(row: dict, name: str) -> float:
    """The phone error rate of an engine in %."""
    return 100 * sum(row["errors"][name]) / sum(row["phones"])


def change_of(row: dict, name: str, base: str) -> str:
    """How far an engine's errors are from another's, in %, with the interval."""
    errors, expected = (np.array(row["errors"][which]) for which in (name, base))
    picks = np.random.default_rng(0).integers(len(errors), size=(2000, len(errors)))
    low, high = np.percentile(100 * (errors[picks].sum(1) / expected[picks].sum(1) - 1), [2.5, 97.5])
    return f"{100 * (errors.sum() / expected.sum() - 1):+.2f} % ({low:+.2f} to {high:+.2f})"


def show(sets: dict[str, dict]) -> None:
    """Print the table."""
    rows = {**sets, "**all**": pooled(sets)}
    names = list(rows["**all**"]["errors"])
    print(f"\n| set | utterances | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for folder, row in rows.items():
        cells = [f"{rate_of(row, name):.2f} %" for name in names]
        print(f"| {folder} | {len(row['phones'])} | {' | '.join(cells)} |")
    whole = rows["**all**"]
    changes = [change_of(whole, name, names[0]) for name in names[1:]]
    print(f"| changed | | | {' | '.join(changes)} |")
    speeds = [f"{whole['audio_seconds'] / whole['seconds'][name]:.0f}" for name in names]
    print(f"| audio seconds a second | | {' | '.join(speeds)} |")


def draw(result: dict, path: Path) -> None:
    """Speed against phone error rate, one mark for each engine."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "unispeech"
    whole = pooled(result["sets"])
    figure, axes = plt.subplots(figsize=(7, 4))
    rates = {name: rate_of(whole, name) for name in whole["errors"]}
    speeds = {name: whole["audio_seconds"] / whole["seconds"][name] for name in rates}
    for place, name in enumerate(sorted(rates, key=lambda name: speeds[name])):
        is_narrow = name.endswith(("int8", "bf16"))
        color = "tab:blue" if is_narrow else "tab:gray"
        axes.plot(speeds[name], rates[name], "s" if is_narrow else "o", color=color)
        axes.annotate(
            name,
            (speeds[name], rates[name]),
            textcoords="offset points",
            xytext=(0, 12 + 15 * (place % 5)),  # names of neighbours stand above one another
            ha="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6},
        )
    axes.set_ylim(min(rates.values()) - 1, max(rates.values()) + 2)
    axes.set_xlim(0, 1.2 * max(speeds.values()))
    axes.set_xlabel("seconds of audio in a second")
    axes.set_ylabel("phone error rate, %")
    axes.set_title(
        f"{len(whole['phones'])} utterances of {len(result['sets'])} sets, {result['machine']}", size=9
    )
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure where sets are given, and draw where a figure is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--most", type=int, default=150)
    parser.add_argument("--model", type=Path, default=Path("examples/checkpoint"))
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/engine-errors.json"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--note", default="quiet", help="how busy the machine was")
    options = parser.parse_args()
    if options.sets:
        threads = int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
        engines, vocabulary = contenders(options.model, options.engines), Vocabulary.load(options.model)
        sets = {}
        for folder in options.sets:
            sets[folder.name] = measure(folder, options.most, engines, vocabulary)
            print(folder.name, flush=True)
        machine = f"{threads} threads, {options.note}"
        result = {"model": str(options.model), "machine": machine, "sets": sets}
        options.output.write_text(json.dumps(result) + "\n", encoding="utf-8")
    show(json.loads(options.output.read_text(encoding="utf-8"))["sets"])
    if options.figure:
        draw(json.loads(options.output.read_text(encoding="utf-8")), options.figure)


if __name__ == "__main__":
    main()
