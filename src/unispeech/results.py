"""What a recording gives: phones, words, segments; times are in seconds, scores in [0, 1]."""

from dataclasses import dataclass, field

from unispeech.frames import Seconds


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A symbol that may have been said."""

    phone: str
    """The symbol as the vocabulary writes it."""
    prob: float
    """Its mean probability where it may have been said, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A transcript that may be the right one."""

    text: str
    """Phones separated by spaces; characters joined, words separated by spaces."""
    log_prob: float
    """Natural log of its probability, by the sound alone."""
    score: float
    """`log_prob` and what language models and hotwords add; readings are ranked by it."""


@dataclass(frozen=True, kw_only=True)
class Phone:
    """One recognised symbol of the vocabulary: a phone, or a character for spelling models."""

    phone: str
    """The symbol as the vocabulary writes it."""
    start: Seconds
    """Where it begins, from the start of the recording."""
    end: Seconds
    """Where it ends; at least `start`."""
    score: float
    """Mean probability of the symbol over the frames in which the network names it, in [0, 1]; from a model
    that is calibrated, the probability that it was said."""
    alternatives: list[Candidate] | None = None
    """What may have been said here, the most probable first, this symbol among them; None: not asked for."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """A stretch of symbols between two word boundaries of the vocabulary."""

    word: str
    """The symbols joined without a space."""
    start: Seconds
    """Start of the first symbol."""
    end: Seconds
    """End of the last symbol."""
    score: float
    """Mean of the symbols' scores, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of speech: from one silence to the next, or as somebody marked it."""

    start: Seconds
    """Where it begins."""
    end: Seconds
    """Where it ends."""
    text: str
    """What was said in it, in the form of the text of the whole."""
    score: float
    """Mean of its symbols' scores, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """Everything that is known of one recording."""

    audio: str
    """The path as the caller gave it."""
    duration: Seconds
    """Length of the recording."""
    text: str
    """Phones separated by spaces; characters joined, words separated by spaces."""
    phones: list[Phone] = field(default_factory=list)
    """The symbols in the order of time; empty for silence or too short a recording."""
    words: list[Word] | None = None
    """The words, or None where the vocabulary has no word boundary."""
    segments: list[Segment] = field(default_factory=list)
    """The stretches between silences, or those that were asked for; empty for silence."""
    nbest: list[Reading] | None = None
    """The most probable transcripts, the best first, this one; None where they were not asked for."""


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """A label that may fit."""

    label: str
    """As the model names it."""
    score: float
    """Its probability, in [0, 1]: all labels add up to 1, unless the model gives several at once."""


@dataclass(frozen=True, kw_only=True)
class ClassifiedWindow:
    """A stretch of a long recording with its labels."""

    start: Seconds
    """Where it begins, from the start of the recording."""
    end: Seconds
    """Where it ends."""
    labels: list[LabelScore]
    """Those that fit best, the best first."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Which labels fit one recording."""

    audio: str
    """The path as the caller gave it."""
    duration: Seconds
    """Length of the recording."""
    labels: list[LabelScore]
    """Those that fit best, the best first; empty where the recording is too short for a frame."""
    windows: list[ClassifiedWindow] | None = None
    """The same of each window, in the order of time; None where the recording went through whole."""
