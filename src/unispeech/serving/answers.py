"""Results -> the answers of the API: OpenAI's forms, and ours where it has none."""

import math
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from unispeech.formats.json import NUM_DECIMALS
from unispeech.results import Classification, Phone, Transcript
from unispeech.text import Vocabulary

Granularity = Literal["word", "segment", "phone"]


class Usage(BaseModel):
    """What was used."""

    type: Literal["duration"] = "duration"
    """That it is time."""
    seconds: float
    """Length of the recording."""


class Transcription(BaseModel):
    """What was said."""

    text: str
    """Phones separated by spaces; characters joined, words separated by spaces."""
    usage: Usage
    """What was used."""


class SpokenPhone(BaseModel):
    """A phone, or a character of a model that spells."""

    phone: str
    """The symbol."""
    start: float
    """Where it begins, in seconds."""
    end: float
    """Where it ends."""
    score: float
    """How probable it is, in [0, 1]."""


class SpokenWord(BaseModel):
    """A word."""

    word: str
    """Its symbols."""
    start: float
    """Where it begins, in seconds."""
    end: float
    """Where it ends."""
    score: float
    """Mean of its symbols' scores."""


class SpokenSegment(BaseModel):
    """A stretch between silences."""

    id: int
    """Its number, from 0."""
    seek: int = 0
    """Always 0: there is no window to seek in."""
    start: float
    """Where it begins, in seconds."""
    end: float
    """Where it ends."""
    text: str
    """What was said."""
    tokens: list[int]
    """Ids of its symbols in the vocabulary."""
    temperature: float = 0.0
    """Always 0: nothing is drawn at random."""
    avg_logprob: float
    """Mean natural log of its symbols' scores."""
    compression_ratio: float
    """Bytes of the text over those of its compressed form."""
    no_speech_prob: float = 0.0
    """Always 0: a segment is where symbols were heard."""
    score: float
    """Mean of its symbols' scores."""


class VerboseTranscription(BaseModel):
    """What was said, with times."""

    task: Literal["transcribe"] = "transcribe"
    """What was done."""
    language: str
    """The language that was asked for; `unknown` where none was."""
    duration: float
    """Length of the recording in seconds."""
    text: str
    """As in `Transcription`."""
    segments: list[SpokenSegment] | None = None
    """Where they were asked for."""
    words: list[SpokenWord] | None = None
    """Where they were asked for."""
    phones: list[SpokenPhone] | None = None
    """Where they were asked for."""
    usage: Usage
    """What was used."""


class ScoredLabel(BaseModel):
    """A label that may fit."""

    label: str
    """As the model names it."""
    score: float
    """Its probability."""


class LabelledWindow(BaseModel):
    """A stretch of a long recording."""

    start: float
    """Where it begins, in seconds."""
    end: float
    """Where it ends."""
    labels: list[ScoredLabel]
    """The best first."""


class Labels(BaseModel):
    """Which labels fit."""

    duration: float
    """Length of the recording in seconds."""
    labels: list[ScoredLabel]
    """The best first; empty where the recording is too short."""
    windows: list[LabelledWindow] | None = None
    """The same of each window of a long recording."""
    usage: Usage
    """What was used."""


def to_transcription(transcript: Transcript) -> Transcription:
    """Give the text alone.

    Args:
        transcript: What the recording gave.
    """
    return Transcription(text=transcript.text, usage=_usage(transcript.duration))


def to_verbose(
    transcript: Transcript,
    vocabulary: Vocabulary,
    *,
    language: str | None,
    granularities: Sequence[Granularity],
) -> VerboseTranscription:
    """Give the text with times.

    Args:
        transcript: What the recording gave.
        vocabulary: The symbols.
        language: What was asked for.
        granularities: Which times.
    """
    wanted = set(granularities)
    return VerboseTranscription(
        language=language or "unknown",
        duration=_rounded(transcript.duration),
        text=transcript.text,
        segments=_segments(transcript, vocabulary) if "segment" in wanted else None,
        words=[
            SpokenWord(
                word=word.word,
                start=_rounded(word.start),
                end=_rounded(word.end),
                score=_rounded(word.score),
            )
            for word in transcript.words or []
        ]
        if "word" in wanted
        else None,
        phones=spoken_phones(transcript.phones) if "phone" in wanted else None,
        usage=_usage(transcript.duration),
    )


def spoken_phones(phones: Sequence[Phone]) -> list[SpokenPhone]:
    """Give phones with rounded times.

    Args:
        phones: What was recognised.
    """
    return [
        SpokenPhone(
            phone=phone.phone,
            start=_rounded(phone.start),
            end=_rounded(phone.end),
            score=_rounded(phone.score),
        )
        for phone in phones
    ]


def to_labels(classification: Classification, top_k: int) -> Labels:
    """Give the best labels.

    Args:
        classification: What the recording gave, with all labels.
        top_k: How many to give.
    """

    def best(scores: Sequence[object]) -> list[ScoredLabel]:
        return [ScoredLabel.model_validate(score, from_attributes=True) for score in scores[:top_k]]

    windows = classification.windows
    return Labels(
        duration=_rounded(classification.duration),
        labels=best(classification.labels),
        windows=None
        if windows is None
        else [
            LabelledWindow(start=_rounded(w.start), end=_rounded(w.end), labels=best(w.labels))
            for w in windows
        ],
        usage=_usage(classification.duration),
    )


def _segments(transcript: Transcript, vocabulary: Vocabulary) -> list[SpokenSegment]:
    """The segments with what OpenAI's have."""
    ids = {symbol: index for index, symbol in enumerate(vocabulary.symbols)}
    middles = [(phone.start + phone.end) / 2 for phone in transcript.phones]
    found = []
    for number, segment in enumerate(transcript.segments):
        first, last = bisect_left(middles, segment.start), bisect_right(middles, segment.end)
        phones = transcript.phones[first:last]
        encoded = segment.text.encode()
        found.append(
            SpokenSegment(
                id=number,
                start=_rounded(segment.start),
                end=_rounded(segment.end),
                text=segment.text,
                tokens=[ids[phone.phone] for phone in phones],
                avg_logprob=_rounded(_mean_log(phones)),
                compression_ratio=_rounded(len(encoded) / len(zlib.compress(encoded))),
                score=_rounded(segment.score),
            )
        )
    return found


def _mean_log(phones: Sequence[Phone]) -> float:
    """Mean natural log of the scores; a score may be rounded to 0."""
    return sum(math.log(max(phone.score, 1e-10)) for phone in phones) / max(len(phones), 1)


def _usage(duration: float) -> Usage:
    return Usage(seconds=_rounded(duration))


def _rounded(value: float) -> float:
    return round(value, NUM_DECIMALS)
