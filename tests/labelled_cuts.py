"""Small files of cuts with transcripts, for what reads labelled speech."""

import gzip
import json
from pathlib import Path

import soundfile


def cut(
    audio: Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    phones: str | None = None,
    text: str | None = None,
    label: str | None = None,
    language: str | None = None,
    speaker: str | None = None,
    name: str | None = None,
) -> dict:
    """A lhotse MonoCut as the dictionary that a line of `cuts.jsonl.gz` holds; `audio` need not exist."""
    info = soundfile.info(audio) if audio.exists() and audio.stat().st_size > 100 else None
    rate, num_samples = (info.samplerate, info.frames) if info else (16_000, 16_000)
    name = name or audio.stem
    duration = num_samples / rate - start if duration is None else duration
    custom = {key: value for key, value in {"phones": phones, "label": label}.items() if value is not None}
    return {
        "id": name,
        "start": start,
        "duration": duration,
        "channel": 0,
        "supervisions": [
            {
                "id": name,
                "recording_id": name,
                "start": 0.0,
                "duration": duration,
                "text": text,
                "language": language,
                "speaker": speaker,
                "custom": custom or None,
            }
        ],
        "recording": {
            "id": name,
            "sources": [{"type": "file", "channels": [0], "source": str(audio)}],
            "sampling_rate": rate,
            "num_samples": num_samples,
            "duration": num_samples / rate,
        },
        "type": "MonoCut",
    }


def write_cuts(folder: Path, cuts: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in cuts)
    return folder
