"""`unispeech synthesise`: speak text files with espeak-ng, phone times kept."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

LINE_SECONDS = 30.0
"""How often progress is told where stderr is no terminal."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Voices:
    """Who speaks."""

    speakers: str | None = None
    """How many speakers (40), or which: f1,m3,en-gb+f2 (variants of espeak-ng). Without it, all."""
    unseen_speakers: str | None = None
    """The same for the dev part; no variant may be in both. Without it, twelve that are kept for it."""
    rate_range: Annotated[tuple[int, int], Parameter(negative="")] = (130, 200)
    """Slowest and fastest speaker, words per minute."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is heard beside the voice."""

    noise_snr_db: Annotated[tuple[float, float] | None, Parameter(negative="")] = None
    """Least and greatest ratio of speech to noise in dB; without it there is no noise."""
    noise_prob: float = 0.5
    """Share of noisy utterances, where a ratio is given."""
    reverb_prob: float = 0.0
    """Share of utterances in a room."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much of what."""

    hours: float | None = None
    """Audio to make, dev part included; 1 where neither this nor --sentences is given."""
    sentences: int | None = None
    """Utterances to make, dev part included, instead of --hours."""
    words: Annotated[tuple[int, int], Parameter(negative="")] = (2, 14)
    """Shortest and longest sentence to take, in words."""
    dev: float = 0.0
    """Share of sentences and audio that is held out, spoken by speakers of its own."""


def synthesise(
    texts: list[Path],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    language: str,
    seed: int,
    amount: Amount = Amount(),
    voices: Voices = Voices(),
    surroundings: Surroundings = Surroundings(),
    jobs: int = 1,
    library: str | None = None,
) -> int:
    """Speak text files with espeak-ng (extra espeak): flac files and lhotse cuts with phone times.

    The same seed gives the same bytes. What is there already is kept: an interrupted run continues, and a
    larger size extends the corpus.

    Example: unispeech synthesise en.txt -o corpus --language en --seed 1 --hours 2 --dev 0.05

    Args:
        texts: UTF-8 files with a sentence per line.
        output: Folder of the corpus; it gets train/cuts.jsonl.gz and, with --dev, dev/cuts.jsonl.gz.
        language: Language or voice of espeak-ng, such as en, en-gb, fr.
        seed: Where every draw comes from.
        amount: How much of what.
        voices: Who speaks.
        surroundings: What is heard beside the voice.
        jobs: Processes at a time; the result does not depend on it.
        library: Path of another libespeak-ng.

    Returns:
        0; what cannot be made is an error.
    """
    from unispeech.data.espeak import EspeakProcess
    from unispeech.data.espeak_speakers import TRAIN_VARIANTS, UNSEEN_VARIANTS, choose_speakers
    from unispeech.data.synthesis import synthesise_corpus
    from unispeech.data.synthesis_plan import Size, SynthesisSettings

    if amount.hours is not None and amount.sentences is not None:
        raise ValueError("`hours` must not be given together with `sentences`, but is.")
    with EspeakProcess(language, library=library) as espeak:
        installed = espeak.variants
    people = {
        part: choose_speakers(
            _choice(choice), voice=language, defaults=defaults, installed=installed, seed=seed
        )
        for part, choice, defaults in (
            ("speakers", voices.speakers, TRAIN_VARIANTS),
            ("unseen_speakers", voices.unseen_speakers, UNSEEN_VARIANTS),
        )
    }
    settings = SynthesisSettings(
        voice=language,
        seed=seed,
        dev=amount.dev,
        num_words=amount.words,
        rate_range=voices.rate_range,
        noise_snr_db=surroundings.noise_snr_db,
        noise_prob=surroundings.noise_prob,
        reverb_prob=surroundings.reverb_prob,
        speakers=people["speakers"],
        unseen_speakers=people["unseen_speakers"],
    )
    hours = 1.0 if amount.hours is None else amount.hours
    size = Size(seconds=hours * 3600) if amount.sentences is None else Size(utterances=amount.sentences)
    with _progress() as tell:
        report = synthesise_corpus(
            texts, output, settings, size, jobs=jobs, library=library, on_progress=tell
        )
    _warn("lines not taken", report.left_out)
    for name, part in report.parts.items():
        _warn(f"{name}: sentences not spoken", part.left_out)
        counts = (
            f"{part.num_utterances} utterances, {part.num_speakers} speakers, {part.seconds / 3600:.3f} h"
        )
        print(f"{part.cuts}: {counts}")
    return 0


def _choice(text: str | None) -> int | list[str] | None:
    """Read a number of speakers or their names."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return [name.strip() for name in text.split(",")]


@contextmanager
def _progress() -> Iterator[Callable[[str, float, int], None]]:
    """Show on stderr how much audio there is: a spinner on a terminal, a line now and then elsewhere.

    Yields:
        What is told of the progress: part, seconds, utterances.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        # The first utterances take seconds, with a process for each voice.
        begun = bars.add_task("speaking")
        tasks = {}

        def tell(part: str, seconds: float, utterances: int) -> None:
            bars.update(begun, visible=False)
            if part not in tasks:
                tasks[part] = bars.add_task("")
            bars.update(tasks[part], description=_amount(part, seconds, utterances))

        yield tell


def _lines() -> Callable[[str, float, int], None]:
    """What writes a line of progress, the first after `LINE_SECONDS`."""
    told = time.monotonic()

    def tell(part: str, seconds: float, utterances: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= LINE_SECONDS:
            told = now
            print(_amount(part, seconds, utterances), file=sys.stderr)

    return tell


def _amount(part: str, seconds: float, utterances: int) -> str:
    return f"{part}: {seconds / 3600:.2f} h, {utterances} utterances"


def _warn(what: str, left_out: Mapping[str, int]) -> None:
    """Say on stderr what was left out, if anything was."""
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        print(f"{what}: {reasons}", file=sys.stderr)
