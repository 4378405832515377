"""What to speak: settings, and the plan that follows from them and a seed, utterance by utterance."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unispeech.data.espeak import RATE_RANGE
from unispeech.data.espeak_speakers import Speaker
from unispeech.frames import Seconds

_RATE_SPREAD = 0.06

# First numbers of the seeds, so that no two draws share a generator; espeak_speakers has 1 and 2.
_SPLIT, _ORDER, _UTTERANCE, _SPEAKER_RATE = 11, 12, 13, 14


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """What determines every byte of a corpus but its size."""

    voice: str
    """Language or voice of espeak-ng."""
    seed: int
    """Where every draw comes from; 0 or more."""
    speakers: tuple[Speaker, ...]
    """Who speaks the part `train`."""
    unseen_speakers: tuple[Speaker, ...] = ()
    """Who speaks the part `dev`."""
    dev: float = 0.0
    """Share of the sentences, and of the corpus, that goes to `dev`; in [0, 1)."""
    rate_range: tuple[int, int] = (130, 200)
    """Slowest and fastest speaker, words per minute."""
    num_words: tuple[int, int] = (2, 14)
    """Shortest and longest sentence that is taken."""
    noise_snr_db: tuple[float, float] | None = None
    """Range of the noise; None adds none."""
    noise_prob: float = 0.5
    """Share of noisy utterances, where there is a range."""
    reverb_prob: float = 0.0
    """Share of utterances in a room."""
    shard_size: int = 50
    """Utterances that are planned for a shard."""

    def __post_init__(self) -> None:
        for name in ("noise_prob", "reverb_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], but is {getattr(self, name)}.")
        if not 0 <= self.dev < 1:
            raise ValueError(f"`dev` must lie in [0, 1), but is {self.dev}.")
        for name, least in (("seed", 0), ("shard_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, but is {getattr(self, name)}.")
        low, high = self.rate_range
        if not RATE_RANGE[0] <= low <= high <= RATE_RANGE[1]:
            raise ValueError(f"`rate_range` must rise within {list(RATE_RANGE)}, but is {[low, high]}.")
        if not 1 <= self.num_words[0] <= self.num_words[1]:
            raise ValueError(f"`num_words` must rise from at least 1, but is {list(self.num_words)}.")
        if self.noise_snr_db is not None and not (
            -math.inf < self.noise_snr_db[0] <= self.noise_snr_db[1] < math.inf
        ):
            raise ValueError(f"`noise_snr_db` must rise and be finite, but is {list(self.noise_snr_db)}.")
        shared = {s.variant for s in self.speakers} & {s.variant for s in self.unseen_speakers}
        if self.dev and shared:
            known = min(shared, key=str)
            raise ValueError(f"`unseen_speakers` must share no variant with `speakers`, but share {known}.")
        if self.dev and not self.unseen_speakers:
            raise ValueError("`unseen_speakers` must not be empty where `dev` is not 0, but is.")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a part to make: whichever is given."""

    seconds: Seconds | None = None
    """Audio, pauses included."""
    utterances: int | None = None
    """Utterances."""

    def share(self, part: float) -> "Size":
        """Return the size of a part of the corpus.

        Args:
            part: In [0, 1].

        Returns:
            That share of the seconds, or of the utterances, rounded to at least one.
        """
        if self.seconds is not None:
            return Size(seconds=self.seconds * part)
        return Size(utterances=max(1, round((self.utterances or 0) * part)))

    def is_reached(self, seconds: Seconds, utterances: int) -> bool:
        """Say whether so much is enough.

        Args:
            seconds: Audio there is.
            utterances: Utterances there are.

        Returns:
            True from the size on.
        """
        if self.seconds is not None:
            return seconds >= self.seconds
        return utterances >= (self.utterances or 0)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a corpus."""

    name: str
    """train or dev."""
    number: int
    """Its number among the seeds."""
    sentences: tuple[str, ...]
    """What may be spoken."""
    speakers: tuple[Speaker, ...]
    """By whom."""


@dataclass(frozen=True, kw_only=True)
class PlannedUtterance:
    """One utterance to be spoken."""

    id: str
    """Name of the cut and of the file."""
    text: str
    """The sentence."""
    speaker: Speaker
    """Who speaks it."""
    rate: int
    """Words per minute."""
    snr_db: float | None
    """Speech over noise; None where there is none."""
    is_reverberant: bool
    """Whether it sounds in a room."""
    seed: tuple[int, ...]
    """Of the generator of everything else: pauses, level, noise, room."""


def divide(sentences: Sequence[str], settings: SynthesisSettings) -> list[Part]:
    """Part the sentences, and the speakers with them.

    Args:
        sentences: All different.
        settings: Whose `dev` is the share of the sentences that is held out.

    Returns:
        train, and dev where `dev` is not 0.
    """
    order = np.random.default_rng([settings.seed, _SPLIT]).permutation(len(sentences))
    num_dev = int(np.ceil(settings.dev * len(sentences)))
    shuffled = [sentences[i] for i in order]
    train = Part(name="train", number=0, sentences=tuple(shuffled[num_dev:]), speakers=settings.speakers)
    if num_dev == 0:
        return [train]
    dev = Part(name="dev", number=1, sentences=tuple(shuffled[:num_dev]), speakers=settings.unseen_speakers)
    return [train, dev]


def plan_shard(part: Part, shard: int, settings: SynthesisSettings) -> Iterator[PlannedUtterance]:
    """Say what a shard holds; it depends on nothing but the arguments.

    Args:
        part: The part.
        shard: Number of the shard, from 0; there is no last one, sentences come again.
        settings: How.

    Yields:
        `shard_size` utterances, fewer only where the part has no sentences.
    """
    language = settings.voice.split("-")[0]
    num_sentences = len(part.sentences)
    for i in range(shard * settings.shard_size, (shard + 1) * settings.shard_size if num_sentences else 0):
        turn, place = divmod(i, num_sentences)
        order = np.random.default_rng([settings.seed, _ORDER, part.number, turn]).permutation(num_sentences)
        seed = (settings.seed, _UTTERANCE, part.number, i)
        rng = np.random.default_rng(seed)
        number = int(rng.integers(len(part.speakers)))
        is_noisy = rng.random() < settings.noise_prob
        is_reverberant = rng.random() < settings.reverb_prob
        snr_db = None
        if settings.noise_snr_db is not None and is_noisy:
            snr_db = float(rng.uniform(*settings.noise_snr_db))
        yield PlannedUtterance(
            id=f"{language}-{part.name}-{i:06d}",
            text=part.sentences[order[place]],
            speaker=part.speakers[number],
            rate=_draw_rate(part, number, settings, rng),
            snr_db=snr_db,
            is_reverberant=is_reverberant,
            seed=(*seed, 1),
        )


def _draw_rate(part: Part, number: int, settings: SynthesisSettings, rng: np.random.Generator) -> int:
    """Draw a rate around the speaker's own, within the settings' range."""
    low, high = settings.rate_range
    habit = np.random.default_rng([settings.seed, _SPEAKER_RATE, part.number, number]).uniform(low, high)
    rate = habit * (1 + _RATE_SPREAD * rng.standard_normal())
    return int(np.clip(round(float(rate)), low, high))
