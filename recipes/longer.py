"""Put utterances of a corpus one behind the other: long utterances for a network that has heard short ones.

    python recipes/longer.py data/multi/train-mixed -o data/multi/train-long --hours 6 --seconds 4 12.5

Three times in four the same voice goes on in the same language, else anybody speaks next. Between two
utterances lie 0.05 to 0.5 s of faint noise. Writes FLAC files and cuts with the phones of all, without times.
"""

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from unispeech.audio import load_audio
from unispeech.frames import SAMPLE_RATE

Cut = dict[str, Any]

SAME_VOICE = 0.75
"""Chance that who has spoken goes on."""

PAUSE = (0.05, 0.5)
"""Shortest and longest pause in seconds."""

GAIN = (0.5, 1.0)
"""Least and greatest factor of an utterance's level."""


def main() -> None:
    """Read, join, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="folder with cuts.jsonl.gz of whole recordings")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seconds", type=float, nargs=2, default=(4.0, 12.5), help="shortest and longest")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with gzip.open(options.source / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        cuts = [json.loads(line) for line in file]
    rng, seconds, made = random.Random(options.seed), 0.0, []
    (options.output / "audio").mkdir(parents=True, exist_ok=True)
    for number, chain in enumerate(chains(cuts, options.seconds, rng)):
        made.append(write(options.output, f"long-{number:05}", chain, rng))
        seconds += made[-1]["duration"]
        if seconds >= 3600 * options.hours:
            break
    with gzip.open(options.output / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut, ensure_ascii=False) + "\n" for cut in made)
    print(f"{options.output}: {len(made)} utterances, {seconds / 3600:.2f} h")


def chains(cuts: list[Cut], seconds: tuple[float, float], rng: random.Random) -> Iterator[list[Cut]]:
    """Draw utterances that are put together, without an end.

    Yields:
        At least two each, between the shortest and the longest length with pauses of the longest kind.
    """
    voices: dict[tuple[str, str], list[Cut]] = defaultdict(list)
    for cut in cuts:
        voices[voice_of(cut)].append(cut)
    while True:
        wanted, chain = rng.uniform(*seconds), [rng.choice(cuts)]
        length = chain[0]["duration"]
        while length < wanted:
            is_same = rng.random() < SAME_VOICE
            follower = rng.choice(voices[voice_of(chain[-1])] if is_same else cuts)
            length += PAUSE[1] + follower["duration"]
            if length > seconds[1]:
                break
            chain.append(follower)
        if len(chain) > 1:
            yield chain


def voice_of(cut: Cut) -> tuple[str, str]:
    """Who speaks which language."""
    supervision = cut["supervisions"][0]
    return supervision.get("speaker") or "", supervision.get("language") or ""


def write(folder: Path, name: str, chain: list[Cut], rng: random.Random) -> Cut:
    """Write the sound of several utterances; returns their cut."""
    noise, pieces = np.random.default_rng(rng.randrange(2**32)), []
    for cut in chain:
        samples = load_audio(Path(cut["recording"]["sources"][0]["source"]))
        pause = noise.normal(size=round(rng.uniform(*PAUSE) * SAMPLE_RATE)) * 10 ** rng.uniform(-4.5, -3)
        pieces += [pause, samples * rng.uniform(*GAIN)]
    sound = np.concatenate(pieces[1:])
    path = folder / "audio" / f"{name}.flac"
    soundfile.write(path, np.clip(sound, -1.0, 1.0), SAMPLE_RATE)
    first, duration = chain[0]["supervisions"][0], len(sound) / SAMPLE_RATE
    phones = " ".join(cut["supervisions"][0]["custom"]["phones"] for cut in chain)
    placed = {"id": name, "start": 0.0, "duration": duration, "channel": 0}
    supervision = {
        **placed, "recording_id": name, "language": first.get("language"), "custom": {"phones": phones},
    }  # fmt: skip
    recording = {
        "id": name, "sources": [{"type": "file", "channels": [0], "source": str(path.resolve())}],
        "sampling_rate": SAMPLE_RATE, "num_samples": len(sound), "duration": duration, "channel_ids": [0],
    }  # fmt: skip
    return {**placed, "supervisions": [supervision], "recording": recording, "type": "MonoCut"}


if __name__ == "__main__":
    main()
