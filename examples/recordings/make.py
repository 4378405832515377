"""Speak the example recordings and write `reference.json`: `.venv/bin/python examples/recordings/make.py`."""

import json
import zlib
from pathlib import Path

import numpy as np
import soundfile

from unispeech.data.espeak import EspeakProcess
from unispeech.data.espeak_speakers import Speaker
from unispeech.data.synthesis_plan import PlannedUtterance
from unispeech.data.synthesis_shard import lay_out
from unispeech.frames import SAMPLE_RATE

FOLDER = Path(__file__).parent

# Name, speaker (of those that no training data has), words per minute, pitch, sentence.
SENTENCES = [
    ("birds", "paul", 150, 50, "Five yellow birds flew quickly over the quiet harbor."),
    ("tea", "steph", 165, 50, "Would you join us for a cup of hot ginger tea?"),
    ("baker", "m3", 160, 45, "The baker measures sugar while her children choose the cherries."),
    ("moon", "grandma", 145, 50, "Thank you for watching the moon rise with me."),
    ("breeze", "Denis", 155, 55, "A gentle breeze moved through the tall oak trees."),
    ("coin", "linda", 170, 50, "My brother found a shiny coin beneath the wooden bridge."),
]


def main() -> None:
    """Write the recordings and their phones beside this file."""
    reference = []
    for name, variant, rate, pitch, text in SENTENCES:
        speaker = Speaker(name=variant, voice="en", variant=variant, pitch=pitch, pitch_range=55)
        utterance = PlannedUtterance(
            id=name,
            text=text,
            speaker=speaker,
            rate=rate,
            snr_db=None,
            is_reverberant=False,
            seed=(zlib.crc32(name.encode()),),
        )
        with EspeakProcess(speaker.voice) as espeak:
            speech = espeak.synthesise(
                text, variant=variant, rate=rate, pitch=pitch, pitch_range=speaker.pitch_range
            )
        waveform, shift = lay_out(speech, utterance)
        soundfile.write(FOLDER / f"{name}.flac", np.round(waveform * 32767).astype(np.int16), SAMPLE_RATE)
        phones = [
            {"phone": phone, "start": round(start + shift, 4), "end": round(end + shift, 4)}
            for phone, start, end in speech.phones
        ]
        reference.append({"audio": f"{name}.flac", "text": text, "phones": phones})
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in reference)
    (FOLDER / "reference.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
