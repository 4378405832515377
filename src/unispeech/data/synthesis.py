"""Text files -> a corpus of synthetic speech with phone times, of any size, reproducible from a seed.

A corpus is a folder with a part `train` and, if asked for, a part `dev` of other sentences and speakers:

    DIR/synthesis.json                 what it was made of; a rerun with other settings is refused
    DIR/train/cuts.jsonl.gz            lhotse cuts of the part, audio relative to this file
    DIR/train/shard-00000/*.flac       16 kHz mono, with the shard's own cuts beside them

A shard is a fixed stretch of the plan, spoken in order by a fresh espeak-ng process, so that its bytes depend
on the settings alone, and a finished one is kept when the command runs again.
"""

import hashlib
import json
import math
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unispeech.data.cuts import CUTS
from unispeech.data.espeak import EspeakProcess
from unispeech.data.sentences import read_sentences
from unispeech.data.synthesis_plan import Part, Size, SynthesisSettings, divide, plan_shard
from unispeech.data.synthesis_shard import Cut, Shard, make_shard, read_shard, trim_shard, write_cuts
from unispeech.errors import ManifestError
from unispeech.frames import Seconds

Progress = Callable[[str, Seconds, int], None]
"""Called with a part's name, its seconds and its utterances so far."""

_RECORD = "synthesis.json"


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What was made of a part."""

    cuts: Path
    """Its manifest."""
    num_utterances: int
    """Cuts in it."""
    seconds: Seconds
    """Audio in it."""
    num_speakers: int
    """Different speakers in it."""
    left_out: Mapping[str, int]
    """Why sentences of the plan were not spoken, and how many."""


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """What was made."""

    parts: Mapping[str, PartReport]
    """By name: train, dev."""
    num_sentences: int
    """Sentences that could be taken."""
    left_out: Mapping[str, int]
    """Why lines of the texts were not taken, and how many."""


def synthesise_corpus(
    texts: Sequence[Path],
    output: Path,
    settings: SynthesisSettings,
    size: Size,
    *,
    jobs: int = 1,
    library: str | None = None,
    on_progress: Progress | None = None,
) -> CorpusReport:
    """Speak text files.

    Sentences are taken in an order drawn from the seed, and again in another order when they are used up.
    What is there already is kept, so an interrupted run continues and a larger size extends a corpus; a
    smaller one cuts it down.

    Args:
        texts: UTF-8 files with a sentence per line, at least one file.
        output: Folder of the corpus: new, empty, or made by the same settings.
        settings: Language, speakers, noise.
        size: Of all parts together.
        jobs: Shards made at a time; the result does not depend on it.
        library: Path of another libespeak-ng.
        on_progress: Told about every shard; None tells nobody.

    Returns:
        What was made, and what was left out why.

    Raises:
        ImportError: If espeak-ng or lhotse is not installed.
        ManifestError: If the texts have no sentence to speak, or the record of an earlier run is broken.
        ValueError: If `output` holds something else, or `jobs` or `size` is not positive.
    """
    if jobs < 1:
        raise ValueError(f"`jobs` must be at least 1, but is {jobs}.")
    if size.is_reached(0.0, 0) or not (size.seconds is None or math.isfinite(size.seconds)):
        raise ValueError("`size` must be positive and finite, but is not; give --hours or --sentences.")
    if find_spec("lhotse") is None:
        raise ImportError("cuts need lhotse, which is not installed; pip install 'unispeech[train]'")
    sentences, left_out = read_sentences(texts, num_words=settings.num_words)
    parts = divide(sentences, settings)
    if not parts[0].sentences:
        raise ManifestError(
            f"{texts[0]}: must have sentences for two parts, but has {len(sentences)} in all."
        )
    with EspeakProcess(settings.voice, library=library) as espeak:
        _claim(output, settings, sentences, espeak.version)
    shares = [1.0] if len(parts) == 1 else [1 - settings.dev, settings.dev]
    reports = {}
    for part, share in zip(parts, shares, strict=True):
        folder, target = output / part.name, size.share(share)

        def speak(number: int, *, part: Part = part, folder: Path = folder) -> Shard:
            plan = plan_shard(part, number, settings)
            return make_shard(_place(folder, number), plan, voice=settings.voice, library=library)

        tell = None if on_progress is None else partial(on_progress, part.name)
        shards = _make_shards(folder, speak, target, jobs, tell)
        reports[part.name] = _assemble(folder, shards, target)
    return CorpusReport(parts=reports, num_sentences=len(sentences), left_out=left_out)


def _claim(output: Path, settings: SynthesisSettings, sentences: Sequence[str], version: str) -> None:
    """Write down what the corpus is made of, or check that it is the same."""
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    record: dict[str, Any] = asdict(settings) | {"sentences": digest, "espeak-ng": version}
    record = json.loads(json.dumps(record))  # tuples become lists, as they come back from the file
    path = output / _RECORD
    if not path.exists():
        if output.exists() and any(entry.name != f".{_RECORD}.unfinished" for entry in output.iterdir()):
            raise ValueError(
                f"{output}: must be new, empty or a corpus of this command, but holds other files."
            )
        output.mkdir(parents=True, exist_ok=True)
        beside = output / f".{_RECORD}.unfinished"
        beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, path)
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ManifestError(
            f"{path}: must say what the corpus was made of, but is broken; choose another folder."
        ) from None
    other = [key for key in record if before.get(key) != record[key]]
    if other:
        names = ", ".join(other)
        raise ValueError(
            f"{output}: must be made by the same settings, but {names} differ; choose another folder."
        )


def _make_shards(
    folder: Path,
    speak: Callable[[int], Shard],
    size: Size,
    jobs: int,
    on_progress: Callable[[Seconds, int], None] | None,
) -> list[Shard]:
    """Take finished shards and make more, in order, until they reach the size."""
    shards: list[Shard] = []
    seconds, utterances, begun = 0.0, 0, 0
    waiting: deque[Future[Shard]] = deque()

    def begin(pool: ThreadPoolExecutor, number: int) -> Future[Shard]:
        return pool.submit(lambda: read_shard(_place(folder, number)) or speak(number))

    with ThreadPoolExecutor(jobs) as pool:
        while not size.is_reached(seconds, utterances):
            while not waiting or (len(waiting) < jobs and not _is_likely(size, shards, len(waiting))):
                waiting.append(begin(pool, begun))
                begun += 1
            shard = waiting.popleft().result()
            more = sum(cut["duration"] for cut in shard.cuts)
            if not shard.is_whole and not size.is_reached(seconds + more, utterances + len(shard.cuts)):
                shard = speak(len(shards))
                more = sum(cut["duration"] for cut in shard.cuts)
            if not shard.cuts:
                why = ", ".join(f"{count} times {reason}" for reason, count in shard.left_out.items())
                raise ManifestError(f"{shard.folder}: must have speakable sentences, but has none ({why}).")
            shards.append(shard)
            seconds += more
            utterances += len(shard.cuts)
            if on_progress is not None:
                on_progress(seconds, utterances)
    return shards


def _place(folder: Path, number: int) -> Path:
    """Name the folder of a shard."""
    return folder / f"shard-{number:05d}"


def _is_likely(size: Size, shards: Sequence[Shard], num_waiting: int) -> bool:
    """Say whether the shards and those that are being made will do, if these are like those."""
    growth = 1 + num_waiting / len(shards) if shards else 1
    seconds = sum(cut["duration"] for shard in shards for cut in shard.cuts)
    return size.is_reached(seconds * growth, int(sum(len(shard.cuts) for shard in shards) * growth))


def _assemble(folder: Path, shards: Sequence[Shard], size: Size) -> PartReport:
    """Write the manifest of a part: the cuts of its shards, up to the size; the rest is taken away."""
    cuts: list[Cut] = []
    seconds = 0.0
    left_out: Counter[str] = Counter()
    for shard in shards:
        left_out.update(shard.left_out)
        num_cuts = 0
        for cut in shard.cuts:
            if size.is_reached(seconds, len(cuts)):
                break
            cuts.append(_moved(cut, shard.folder.name))
            seconds += cut["duration"]
            num_cuts += 1
        if num_cuts < len(shard.cuts):
            trim_shard(shard, num_cuts)
    for extra in set(folder.glob("shard-*")) - {shard.folder for shard in shards}:
        shutil.rmtree(extra)
    write_cuts(folder / CUTS, cuts)
    return PartReport(
        cuts=folder / CUTS,
        num_utterances=len(cuts),
        seconds=seconds,
        num_speakers=len({cut["supervisions"][0]["speaker"] for cut in cuts}),
        left_out=left_out,
    )


def _moved(cut: Cut, folder: str) -> Cut:
    """Name the audio of a cut from outside its shard."""
    (source,) = cut["recording"]["sources"]
    moved = source | {"source": f"{folder}/{source['source']}"}
    return cut | {"recording": cut["recording"] | {"sources": [moved]}}
