"""Give utterances of a corpus other silences before and behind: none at all, or up to some seconds.

    python recipes/edges.py data/multi/train-mixed -o data/multi/train-edges --hours 4

A network whose features are normalised over the whole utterance, as the group norm of `base` does, takes the
share of silence that a corpus happens to have for granted: cut tightly or padded with zeros, the same words
become others. Half of the utterances lose what is quieter than their speech at both ends; then each end gets
nothing, digital silence or faint noise. Writes FLAC files and cuts with the phones, without times.
"""

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from unispeech.audio import load_audio
from unispeech.frames import SAMPLE_RATE

Cut = dict[str, Any]

TRIM = 0.5
"""Chance that an utterance loses its silent ends."""

QUIET_DB = 40.0
"""How much quieter than the loudest hundredth of a second silence is."""

MARGIN = 0.02
"""Seconds of silence that are left where it is cut."""

BARE = 0.3
"""Chance that nothing is put at an end."""


def main() -> None:
    """Draw, trim, pad, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="folder with cuts.jsonl.gz of whole recordings")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--longest", type=float, default=1.0, help="seconds at an end")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with gzip.open(options.source / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        cuts = [json.loads(line) for line in file]
    rng, seconds, made = random.Random(options.seed), 0.0, []
    (options.output / "audio").mkdir(parents=True, exist_ok=True)
    while seconds < 3600 * options.hours:
        made.append(write(options.output, f"edges-{len(made):05}", rng.choice(cuts), options.longest, rng))
        seconds += made[-1]["duration"]
    with gzip.open(options.output / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut, ensure_ascii=False) + "\n" for cut in made)
    print(f"{options.output}: {len(made)} utterances, {seconds / 3600:.2f} h")


def write(folder: Path, name: str, cut: Cut, longest: float, rng: random.Random) -> Cut:
    """Write an utterance with other ends; returns its cut."""
    sound = load_audio(Path(cut["recording"]["sources"][0]["source"]))
    if rng.random() < TRIM:
        sound = trimmed(sound)
    sound = np.concatenate([silence(longest, rng), sound * rng.uniform(0.3, 1.0), silence(longest, rng)])
    path = folder / "audio" / f"{name}.flac"
    soundfile.write(path, np.clip(sound, -1.0, 1.0), SAMPLE_RATE)
    spoken, duration = cut["supervisions"][0], len(sound) / SAMPLE_RATE
    placed = {"id": name, "start": 0.0, "duration": duration, "channel": 0}
    supervision = {
        **placed, "recording_id": name, "language": spoken.get("language"),
        "custom": {"phones": spoken["custom"]["phones"]},
    }  # fmt: skip
    recording = {
        "id": name, "sources": [{"type": "file", "channels": [0], "source": str(path.resolve())}],
        "sampling_rate": SAMPLE_RATE, "num_samples": len(sound), "duration": duration, "channel_ids": [0],
    }  # fmt: skip
    return {**placed, "supervisions": [supervision], "recording": recording, "type": "MonoCut"}


def trimmed(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without what is quiet at both ends, but for a margin."""
    step = SAMPLE_RATE // 100
    frames = sound[: len(sound) // step * step].reshape(-1, step)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-QUIET_DB / 10))
    if not len(loud):
        return sound
    margin = round(MARGIN * SAMPLE_RATE)
    return sound[max(0, loud[0] * step - margin) : (loud[-1] + 1) * step + margin]


def silence(longest: float, rng: random.Random) -> npt.NDArray[np.float64]:
    """What is put at an end: nothing, zeros or faint noise."""
    length = 0 if rng.random() < BARE else round(rng.uniform(0.0, longest) * SAMPLE_RATE)
    level = 0.0 if rng.random() < 0.5 else 10 ** rng.uniform(-4.5, -2.5)
    return np.random.default_rng(rng.randrange(2**32)).normal(size=length) * level


if __name__ == "__main__":
    main()
