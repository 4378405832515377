"""A stretch of the plan -> a folder of 16 kHz flac files and the cuts that describe them."""

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from unispeech.data.acoustics import Waveform, add_noise, add_reverb, set_level
from unispeech.data.cuts import CUTS, open_cut_file
from unispeech.data.espeak import EspeakProcess, Speech, TimedPhone, TimedWord
from unispeech.data.espeak_phones import PhoneError, language_of
from unispeech.data.synthesis_plan import PlannedUtterance
from unispeech.frames import SAMPLE_RATE, Seconds

_STATE = "shard.json"
_SILENCE: tuple[Seconds, Seconds] = (0.05, 0.3)
_LEVEL_DB = (-30.0, -16.0)
_DECAY: tuple[Seconds, Seconds] = (0.15, 0.7)
_DIRECT_DB = (0.0, 12.0)
_BEFORE: Seconds = 0.02  # what espeak-ng sounds before its first mark and after its last phone
_AFTER: Seconds = 0.05
_TIME_DIGITS = 5  # 10 microseconds: finer than a sample

Cut = dict[str, Any]
"""A lhotse MonoCut as its manifest line."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A finished shard."""

    folder: Path
    """Where it lies."""
    cuts: list[Cut]
    """Its cuts; the audio is named relative to `folder`."""
    left_out: Mapping[str, int]
    """Why planned sentences were not spoken, and how many."""
    is_whole: bool
    """Whether all of the plan is there; else `trim_shard` has taken away the end."""


def read_shard(folder: Path) -> Shard | None:
    """Read what `make_shard` has written.

    Args:
        folder: Where it would lie.

    Returns:
        The shard, or None if there is none, or what there is is broken: it must be made again.
    """
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        with gzip.open(folder / CUTS, "rt", encoding="utf-8") as file:
            return Shard(folder=folder, cuts=[json.loads(line) for line in file], **state)
    except (OSError, EOFError, ValueError, TypeError):
        return None


def trim_shard(shard: Shard, num_cuts: int) -> Shard:
    """Take the end of a shard away: what the corpus does not use.

    Args:
        shard: The shard.
        num_cuts: How many of its cuts to keep, at least 1 and fewer than there are.

    Returns:
        What is left.
    """
    kept = replace(shard, cuts=shard.cuts[:num_cuts], is_whole=False)
    _write_state(shard.folder, kept)  # first: from now on it is made again when more of it is needed
    write_cuts(shard.folder / CUTS, kept.cuts)
    for cut in shard.cuts[num_cuts:]:
        (shard.folder / f"{cut['id']}.flac").unlink(missing_ok=True)
    return kept


def _write_state(folder: Path, shard: Shard) -> None:
    """Write what is not in the cuts."""
    state = {"left_out": shard.left_out, "is_whole": shard.is_whole}
    (folder / _STATE).write_text(json.dumps(state, sort_keys=True) + "\n", encoding="utf-8")


def make_shard(
    folder: Path, plan: Iterable[PlannedUtterance], *, voice: str, library: str | None = None
) -> Shard:
    """Speak a stretch of the plan.

    The shard is written beside and renamed: a folder of this name is finished.

    Args:
        folder: Where it goes; what is there is replaced.
        plan: What to speak, in this order.
        voice: Language or voice of the corpus.
        library: Path of another libespeak-ng.

    Returns:
        The shard.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    cuts: list[Cut] = []
    left_out: Counter[str] = Counter()
    language = language_of(voice)
    with ExitStack() as stack:
        processes: dict[str, EspeakProcess] = {}
        for utterance in plan:
            name = utterance.speaker.voice
            if name not in processes:
                processes[name] = stack.enter_context(EspeakProcess(name, library=library))
            try:
                speech = _speak(processes[name], utterance)
            except PhoneError as error:
                left_out[str(error).split(":")[0]] += 1
                continue
            waveform, shift = lay_out(speech, utterance)
            samples = np.round(waveform * 32767).astype(np.int16)
            soundfile.write(unfinished / f"{utterance.id}.flac", samples, SAMPLE_RATE)
            cuts.append(_describe(utterance, speech, len(samples), shift, language))
    write_cuts(unfinished / CUTS, cuts)
    shard = Shard(folder=folder, cuts=cuts, left_out=left_out, is_whole=True)
    _write_state(unfinished, shard)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    return shard


def write_cuts(path: Path, cuts: Iterable[Cut]) -> None:
    """Write a manifest beside and rename it; the same cuts give the same bytes.

    Args:
        path: Ends in .jsonl.gz.
        cuts: Its lines.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with open_cut_file(unfinished) as file:
        for cut in cuts:
            file.write(json.dumps(cut, ensure_ascii=False) + "\n")
    os.replace(unfinished, path)


def _speak(process: EspeakProcess, utterance: PlannedUtterance) -> Speech:
    """Speak one utterance; one without any phone cannot be used either."""
    speaker = utterance.speaker
    speech = process.synthesise(
        utterance.text,
        variant=speaker.variant,
        rate=utterance.rate,
        pitch=speaker.pitch,
        pitch_range=speaker.pitch_range,
    )
    if not speech.phones or not np.any(speech.samples):
        raise PhoneError("text must be heard, but is not")
    return speech


def lay_out(speech: Speech, utterance: PlannedUtterance) -> tuple[Waveform, Seconds]:
    """Cut speech to its phones, put silence around it, bring it to 16 kHz, and into its room and noise.

    Args:
        speech: What espeak-ng gave, with at least one phone.
        utterance: Says which degradations, and the seed of what is left to draw.

    Returns:
        (S,) samples at 16 kHz, at most 0.99, and the seconds to add to the times of `speech`.
    """
    rng = np.random.default_rng(utterance.seed)
    rate = speech.sample_rate
    first, last = speech.phones[0].start, speech.phones[-1].end
    begin = max(0, round((first - _BEFORE) * rate))
    end = min(len(speech.samples), round((last + _AFTER) * rate))
    lead, trail = (round(rng.uniform(*_SILENCE) * rate) for _ in range(2))
    padded = np.pad(speech.samples[begin:end].astype(np.float32) / 32768, (lead, trail))
    waveform: npt.NDArray[np.float32] = soxr.resample(padded, rate, SAMPLE_RATE)
    shift = (lead - begin) / rate
    spoken = slice(round((first + shift) * SAMPLE_RATE), round((last + shift) * SAMPLE_RATE))
    if utterance.is_reverberant:
        decay, direct_db = rng.uniform(*_DECAY), rng.uniform(*_DIRECT_DB)
        waveform = add_reverb(waveform, decay=decay, direct_db=direct_db, sample_rate=SAMPLE_RATE, rng=rng)
    if utterance.snr_db is not None:
        waveform = add_noise(
            waveform, snr_db=utterance.snr_db, speech=spoken, sample_rate=SAMPLE_RATE, rng=rng
        )
    return set_level(waveform, level_db=rng.uniform(*_LEVEL_DB), speech=spoken), shift


def _describe(
    utterance: PlannedUtterance, speech: Speech, num_samples: int, shift: Seconds, language: str
) -> Cut:
    """Write the cut of one utterance; its audio is named relative to the shard."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    duration = num_samples / SAMPLE_RATE
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=[0], source=f"{utterance.id}.flac")],
        sampling_rate=SAMPLE_RATE,
        num_samples=num_samples,
        duration=duration,
    )
    tiers: dict[str, Sequence[TimedPhone | TimedWord]] = {"phone": speech.phones, "word": speech.words or []}
    alignment = {}
    for tier, stretches in tiers.items():
        items = []
        for name, start, end in stretches:
            begin, stop = round(start + shift, _TIME_DIGITS), round(end + shift, _TIME_DIGITS)
            items.append(AlignmentItem(name, begin, round(stop - begin, _TIME_DIGITS)))
        if items:
            alignment[tier] = items
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration,
        text=utterance.text,
        language=language,
        speaker=f"espeak-{utterance.speaker.name}",
        alignment=alignment,
        custom={"phones": " ".join(phone.phone for phone in speech.phones)},
    )
    cut = MonoCut(
        id=utterance.id,
        start=0.0,
        duration=duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )
    return dict(cut.to_dict())
