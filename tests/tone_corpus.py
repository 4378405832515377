"""A corpus that a tiny network learns in seconds: every phone is a tone of its own, between silences."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

SAMPLE_RATE = 16_000
TONES = {"a": 300.0, "b": 700.0, "c": 1500.0, "d": 3000.0}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [16, 8, 4],
    "conv_stride": [8, 8, 5],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_dropout": 0.1,
    "layerdrop": 0.1,
    "classifier_proj_size": 8,
    "mask_time_length": 2,
}
"""A network with the published frame rate, 320 samples."""


def write_corpus(folder: Path, count: int = 24, *, seed: int = 0, with_times: bool = True) -> Path:
    """Write recordings and `cuts.jsonl.gz` with phones, their times, text and a label (the first phone)."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    cuts = [_utterance(folder, f"tones-{seed}-{number}", random, with_times) for number in range(count)]
    CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl.gz")
    return folder


def _utterance(folder: Path, name: str, random: np.random.Generator, with_times: bool) -> MonoCut:
    pieces: list[np.ndarray] = [np.zeros(800)]
    items, clock = [], 800
    phones = [str(phone) for phone in random.choice(list(TONES), size=int(random.integers(2, 6)))]
    for phone in phones:
        length = int(random.integers(1600, 3200))
        pieces.append(0.3 * np.sin(2 * np.pi * TONES[phone] * np.arange(length) / SAMPLE_RATE))
        items.append(AlignmentItem(phone, clock / SAMPLE_RATE, length / SAMPLE_RATE))
        pieces.append(np.zeros(640))
        clock += length + 640
    wave = np.concatenate(pieces) + 0.003 * random.standard_normal(clock)
    path = folder / f"{name}.wav"
    soundfile.write(path, wave, SAMPLE_RATE)
    recording = Recording.from_file(path, recording_id=name)
    supervision = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0.0,
        duration=recording.duration,
        text=" ".join(phones),
        language="en",
        custom={"phones": " ".join(phones), "label": phones[0]},
        alignment={"phone": items} if with_times else None,
    )
    return MonoCut(
        id=name,
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )


def write_recipe(path: Path, train: Path, dev: Path | None = None, **sections: dict[str, Any]) -> Path:
    """Write a recipe for the tiny network; `sections` are laid over its defaults, None leaves a key out."""
    import yaml

    recipe: dict[str, dict[str, Any]] = {
        "model": {"config": TINY, "layerdrop": 0.1},
        "data": {"train": str(train), "dev": str(dev) if dev else [], "batch_seconds": 4.0},
        "masking": {"time_prob": 0.1},
        "objective": {},
        "optim": {"learning_rate": 5e-3},
        "schedule": {"num_updates": 6, "warmup_fraction": 0.2},
        "runtime": {"precision": "float32", "log_every": 2, "validate_every": 3, "save_every": 2},
    }
    for name, section in sections.items():
        merged = recipe.get(name, {}) | section
        recipe[name] = {key: value for key, value in merged.items() if value is not None}
    path.write_text(yaml.safe_dump(recipe))
    return path
