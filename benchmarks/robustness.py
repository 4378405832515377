"""Phone error rate of recordings as they are, and of what telephones, rooms and editors make of them.

    python benchmarks/robustness.py data/multi/dev-speechocean data/multi/dev-voices
        [--models examples/checkpoint runs/multi-l/last] [--most 100]
        [--output benchmarks/results/robustness.json] [--figure docs/robustness.png]
    python benchmarks/robustness.py --figure docs/robustness.png     # draws what was measured before

Every model hears the same sounds: the first utterances of each set, changed in one way at a time. Decodes
greedily in float32 and pools the sets. Brackets hold the 95 % interval over utterances.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unispeech.audio import Waveform, load_audio, normalise_waveform
from unispeech.data.acoustics import add_noise, add_reverb
from unispeech.data.augmentation import change_speed, through_microphone, through_telephone
from unispeech.data.cuts import CutFiles
from unispeech.decoding.greedy import greedy
from unispeech.engines.choice import open_engine
from unispeech.frames import SAMPLE_RATE
from unispeech.metrics import error_rate
from unispeech.text import Vocabulary

BATCH = 8


def noisy(snr_db: float) -> Callable[[Waveform, np.random.Generator], Waveform]:
    """Noise of any colour at this ratio."""
    return lambda sound, rng: add_noise(
        sound, snr_db=snr_db, speech=slice(None), sample_rate=SAMPLE_RATE, rng=rng
    )


def in_room(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """A room of half a second, its sound as strong as the voice."""
    return add_reverb(sound, decay=0.5, direct_db=0.0, sample_rate=SAMPLE_RATE, rng=rng)


def tilted(tilt_db: float) -> Callable[[Waveform, np.random.Generator], Waveform]:
    """A microphone that is duller or brighter."""
    return lambda sound, rng: through_microphone(sound, tilt_db, np.zeros(7))


def padded(seconds: float, level: float = 0.0) -> Callable[[Waveform, np.random.Generator], Waveform]:
    """Silence before and behind, digital or of this level beside the loudest sample."""

    def pad(sound: Waveform, rng: np.random.Generator) -> Waveform:
        size = round(seconds * SAMPLE_RATE)
        ends = rng.normal(0.0, level * float(np.abs(sound).max(initial=0.0)), (2, size))
        return np.concatenate([ends[0], sound, ends[1]]).astype(np.float32)

    return pad


def cropped(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """Without the ends that are 40 dB under the loudest hundredth of a second."""
    step = SAMPLE_RATE // 100
    frames = sound[: len(sound) // step * step].reshape(-1, step)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 1e-4)
    return sound[loud[0] * step : (loud[-1] + 1) * step] if len(loud) else sound


CHANGES: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "as recorded": lambda sound, rng: sound,
    "telephone": lambda sound, rng: through_telephone(sound),
    "noise, 20 dB": noisy(20.0),
    "noise, 10 dB": noisy(10.0),
    "noise, 5 dB": noisy(5.0),
    "room": in_room,
    "duller, 6 dB an octave": tilted(-6.0),
    "brighter, 6 dB an octave": tilted(6.0),
    "a fifth slower and lower": lambda sound, rng: change_speed(sound, 0.8),
    "a quarter faster and higher": lambda sound, rng: change_speed(sound, 1.25),
    "silent ends cut off": cropped,
    "0.3 s of zeros at both ends": padded(0.3),
    "1 s of zeros at both ends": padded(1.0),
    "1 s of faint noise at both ends": padded(1.0, 0.003),
    "3 s of faint noise at both ends": padded(3.0, 0.003),
}
"""What is done to a sound -> how."""


def measure(model: Path, folders: Sequence[Path], most: int) -> dict[str, dict[str, float]]:
    """Error rate and its interval, in %, for each change of the sound."""
    engine = open_engine(model, model, engine="torch", precision="float32", device="cpu")
    vocabulary = Vocabulary.load(model)
    cuts = [cut for folder in folders for cut in list(CutFiles([folder]))[:most]]
    sounds = [load_audio(cut.recording.sources[0].source) for cut in cuts]
    said = [cut.supervisions[0].custom["phones"].split() for cut in cuts]
    order = sorted(range(len(cuts)), key=lambda number: len(sounds[number]))
    found = {}
    for name, change in CHANGES.items():
        heard: dict[int, list[str]] = {}
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            changed = [normalise_waveform(change(sounds[row], np.random.default_rng(row))) for row in rows]
            for row, log_probs in zip(rows, engine.log_probs(changed), strict=True):
                spans = greedy(np.array(log_probs), vocabulary.blank)
                heard[row] = vocabulary.decode([span.token for span in spans])
        rate = error_rate(said, [heard[row] for row in range(len(cuts))])
        found[name] = {"rate": 100 * rate.rate, "low": 100 * rate.low, "high": 100 * rate.high}
        print(f"{model}: {name}: {100 * rate.rate:.1f} %", flush=True)
    return found


def show(models: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table."""
    print(f"\n| sound | {' | '.join(models)} |\n|---|{'---|' * len(models)}")
    for name in CHANGES:
        rows = [found[name] for found in models.values()]
        cells = [f"{row['rate']:.1f} ({row['low']:.1f} to {row['high']:.1f})" for row in rows]
        print(f"| {name} | {' | '.join(cells)} |")


def draw(result: dict, path: Path) -> None:
    """A line for each change, a mark for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    places = np.arange(len(CHANGES))
    for number, (model, found) in enumerate(result["models"].items()):
        rates, lows, highs = (
            np.array([found[name][key] for name in CHANGES]) for key in ("rate", "low", "high")
        )
        axes.errorbar(
            rates, places + 0.15 * number, xerr=[rates - lows, highs - rates], fmt="os^Dv"[number % 5],
            label=model, capsize=2, markersize=5, linewidth=1,
        )  # fmt: skip
    axes.set_yticks(places, list(CHANGES))
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(
        f"phone error rate, %, {result['num_utterances']} utterances of {len(result['sets'])} sets"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure where sets are given, and draw where a figure is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--most", type=int, default=100)
    parser.add_argument("--models", nargs="+", type=Path, default=[Path("examples/checkpoint")])
    parser.add_argument("--names", nargs="+", help="of the models, if not their folders")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/robustness.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    names = options.names or [str(model) for model in options.models]
    if len(names) != len(options.models):
        parser.error(f"--names must be as many as --models, {len(options.models)}, but are {len(names)}.")
    if options.sets:
        pairs = zip(names, options.models, strict=True)
        models = {name: measure(model, options.sets, options.most) for name, model in pairs}
        count = sum(min(options.most, len(list(CutFiles([folder])))) for folder in options.sets)
        result = {"sets": [folder.name for folder in options.sets], "num_utterances": count, "models": models}
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not options.output.is_file():
        parser.error(f"{options.output}: nothing was measured yet; name sets of cuts.")
    result = json.loads(options.output.read_text(encoding="utf-8"))
    show(result["models"])
    if options.figure:
        draw(result, options.figure)


if __name__ == "__main__":
    main()
