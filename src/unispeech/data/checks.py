"""Can this utterance be trained on? What there is to learn of it, and every reason against it."""

import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unispeech.audio import AudioInfo, audio_info, load_audio
from unispeech.data.g2p import TURKIC_CAPITALS, join_words
from unispeech.data.shards import Packed, check_name, pack
from unispeech.data.utterances import BadLine, Utterance
from unispeech.errors import ManifestError
from unispeech.frames import SAMPLE_RATE, Seconds, num_frames
from unispeech.phones import ARPABET_TO_IPA, WORD_BOUNDARY, arpabet_to_ipa, phones_by_word

Units = Literal["phones", "characters", "label", "none"]

Reason = Literal[
    "bad-line",
    "no-recording",
    "no-segment",
    "duplicate-id",
    "missing-audio",
    "unreadable-audio",
    "past-end",
    "empty-transcript",
    "no-phones",
    "unknown-symbol",
    "too-short",
    "too-long",
    "too-many-labels",
]

BROKEN = frozenset({"bad-line", "missing-audio", "unreadable-audio", "past-end"})
"""Reasons that point to a broken corpus; the others are found in every sound one."""

Phonemise = Callable[[str, str | None], list[list[str]]]
"""Orthography and language -> the phones of every word; a ValueError where it fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """An utterance or a line that cannot be trained on."""

    id: str
    """Name of the utterance as far as it is known, else the empty string."""
    source: str
    """Where it is written: `path:line`, or the path of a file in a folder."""
    reason: Reason
    """The kind of fault."""
    detail: str
    """The fault in words."""
    audio: str | None = None
    """The recording, where the line names one."""
    language: str | None = None
    """Its language, where that is known."""
    duration: Seconds = 0.0
    """Length of the utterance as far as it is known, else 0."""


class UntrainableError(ManifestError):
    """Raised and caught within the checks: why one utterance is rejected."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnable:
    """What there is to learn of an utterance."""

    text: str | None = None
    """Transcript: the orthography as it is, or reduced to what is spelled where characters are the units."""
    phones: str | None = None
    """Phones separated by spaces; None where characters or labels are the units."""
    label: str | None = None
    """Class; None unless labels are the units."""
    symbols: tuple[str, ...] = ()
    """The targets of CTC in order; empty for labels, which CTC has none of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainable:
    """An utterance that passed every check."""

    utterance: Utterance
    """What the corpus says of it."""
    learnable: Learnable
    """What there is to learn of it."""
    info: AudioInfo
    """What the header of its recording says."""
    start: Seconds
    """Where it begins in the recording."""
    duration: Seconds
    """How long it is."""
    packed: Packed | None = None
    """Its audio for a shard; None where recordings stay where they are."""


def rejection_of_line(line: BadLine) -> Rejection:
    """Report a line that gave no utterance.

    Args:
        line: What the reader said.

    Returns:
        The rejection.
    """
    return Rejection(id=line.id, source=line.source, reason=line.reason, detail=line.detail)


def read_header(utterance: Utterance, *, decode: bool = False) -> AudioInfo | UntrainableError:
    """Read how long a recording is, from its header or by decoding it.

    Args:
        utterance: Whose recording.
        decode: Decode the whole recording, which finds its true length, and damage behind the header.

    Returns:
        What the header says, with the true length if it was decoded, or why the recording cannot be used.
    """
    try:
        info = audio_info(utterance.audio)
        if decode:
            # Of an mp3 the header may only estimate the length.
            num_samples = len(load_audio(utterance.audio, sample_rate=info.sample_rate))
            info = replace(info, num_samples=num_samples, duration=num_samples / info.sample_rate)
    except FileNotFoundError:
        return UntrainableError("missing-audio", f"{utterance.audio}: there is no such file.")
    except (OSError, ManifestError) as error:
        return UntrainableError("unreadable-audio", str(error))
    return info


def span_of(utterance: Utterance, info: AudioInfo) -> tuple[Seconds, Seconds]:
    """Lay an utterance into its recording.

    Args:
        utterance: The utterance.
        info: What the recording's header says.

    Returns:
        Start and duration in seconds.

    Raises:
        UntrainableError: If a segment does not lie in the recording. An end up to 0.1 s behind it is cut off.
    """
    if not utterance.is_segment:
        return 0.0, info.duration
    end = info.duration if utterance.duration is None else utterance.start + utterance.duration
    if utterance.start >= info.duration or end > info.duration + 0.1:
        raise UntrainableError(
            "past-end",
            f"segment must lie in the {info.duration:.3f} s of {utterance.audio}, "
            f"but runs {utterance.start:.3f} to {end:.3f}.",
        )
    return utterance.start, min(end, info.duration) - utterance.start


def pack_audio(
    utterance: Utterance, info: AudioInfo, *, max_seconds: Seconds | None = None
) -> tuple[AudioInfo, Packed | None] | UntrainableError:
    """Encode the audio of an utterance for a shard.

    Args:
        utterance: Whose audio.
        info: What its recording's header says.
        max_seconds: What is longer is not encoded; None sets no limit.

    Returns:
        What the header should say (of whole recordings the true length), and the audio; or why it cannot be
        used.
    """
    try:
        check_name(utterance.id)
    except ManifestError as error:
        return UntrainableError("bad-line", str(error))
    try:
        start, duration = span_of(utterance, info)
        if max_seconds is not None and duration > max_seconds:
            return info, None
        if utterance.is_segment:
            return info, pack(utterance.audio, info.sample_rate, start, duration)
        packed = pack(utterance.audio, info.sample_rate)
    except UntrainableError as error:
        return error
    except (OSError, ManifestError) as error:
        return UntrainableError("unreadable-audio", str(error))
    duration = packed.num_samples / info.sample_rate
    return replace(info, num_samples=packed.num_samples, duration=duration), packed


def learnable_of(
    utterance: Utterance,
    units: Units,
    *,
    phonemise: Phonemise | None = None,
    word_boundaries: bool = False,
    as_written: bool = False,
) -> Learnable:
    """Find what is to be learnt of an utterance.

    Args:
        utterance: The utterance, its language filled in.
        units: What the model is to learn.
        phonemise: Makes phones of the text where the corpus gives none; None where nothing can.
        word_boundaries: Whether phones keep `|` between words.
        as_written: Whether ARPAbet stays; else it becomes IPA.

    Returns:
        Text, phones or label, and the symbols; for the units "none" the text if there is one, and no symbols.

    Raises:
        UntrainableError: If there is nothing to learn.
    """
    if units == "none":
        return Learnable(text=utterance.text)
    if units == "label":
        if not utterance.label:
            raise UntrainableError("empty-transcript", "utterance must have a label, but has none.")
        return Learnable(text=utterance.text, label=utterance.label)
    if units == "characters":
        text = spelled_text(utterance.text or "", utterance.language)
        if not text:
            raise UntrainableError("empty-transcript", "utterance must have a transcript, but has none.")
        return Learnable(text=text, symbols=tuple(text.replace(" ", WORD_BOUNDARY)))
    words = phones_by_word(utterance.phones or "", is_separated=utterance.is_separated) or _say(
        utterance, phonemise
    )
    # IPA has no capital letters, so ARPAbet is known by its symbols.
    is_arpabet = all(phone.rstrip("012") in ARPABET_TO_IPA for word in words for phone in word)
    if is_arpabet and not as_written:
        words = [arpabet_to_ipa(word) for word in words]
    symbols = join_words(words, word_boundary=word_boundaries)
    return Learnable(text=utterance.text, phones=" ".join(symbols), symbols=tuple(symbols))


def _say(utterance: Utterance, phonemise: Phonemise | None) -> list[list[str]]:
    """The phones of each word of an utterance for which the corpus gives none."""
    if not utterance.text or not utterance.text.strip():
        raise UntrainableError(
            "empty-transcript", "utterance must have phones or a transcript, but has neither."
        )
    if phonemise is None:
        raise UntrainableError(
            "no-phones",
            "utterance must have phones, but has only text; name a lexicon or a g2p to make them.",
        )
    try:
        words = [word for word in phonemise(utterance.text, utterance.language) if word]
    except ValueError as error:
        raise UntrainableError("no-phones", f"{utterance.text!r}: {error}") from None
    if not words:
        raise UntrainableError(
            "empty-transcript", f"utterance must be spoken, but {utterance.text!r} is not."
        )
    return words


def spelled_text(text: str, language: str | None = None) -> str:
    """Reduce orthography to what is spelled: letters, digits, apostrophes within words; in lower case.

    Punctuation and symbols go, hyphens and dashes part words. Nothing is spelled out: digits stay digits.

    Args:
        text: Orthography.
        language: Language tag; Turkish and Azerbaijani have two letters i.

    Returns:
        Words separated by single spaces, in composed Unicode form (NFC); empty where nothing is left.
    """
    text = unicodedata.normalize("NFC", text)
    if language is not None and language.partition("-")[0] in {"tr", "az"}:
        text = text.translate(TURKIC_CAPITALS)
    text = text.lower().replace("\u2019", "'").replace("\u02bc", "'")
    kept = []
    for index, character in enumerate(text):
        is_letter = unicodedata.category(character)[0] in "LMN"
        within = 0 < index < len(text) - 1 and text[index - 1].isalpha() and text[index + 1].isalpha()
        if is_letter or (character == "'" and within):
            kept.append(character)
        elif character.isspace() or unicodedata.category(character) == "Pd":
            kept.append(" ")
    return " ".join("".join(kept).split())


def check_length(symbols: Sequence[str], duration: Seconds, *, max_seconds: Seconds | None = None) -> None:
    """Hold an utterance to what a model with the published frames can learn from.

    Args:
        symbols: Targets of CTC; empty where there are none.
        duration: Length of the utterance.
        max_seconds: Longest utterance wanted; None sets no limit.

    Raises:
        UntrainableError: If it gives no frame, fewer frames than CTC needs (one for every symbol, one more
            between two equal neighbours), or is too long.
    """
    frames = num_frames(int(duration * SAMPLE_RATE))
    if frames == 0:
        raise UntrainableError(
            "too-short", f"utterance must last 0.025 s for one frame, but lasts {duration:.3f} s."
        )
    if max_seconds is not None and duration > max_seconds:
        raise UntrainableError(
            "too-long", f"utterance must last at most {max_seconds:g} s, but lasts {duration:.3f} s."
        )
    num_repeats = sum(a == b for a, b in itertools.pairwise(symbols))
    if len(symbols) + num_repeats > frames:
        raise UntrainableError(
            "too-many-labels",
            f"utterance must have at least {len(symbols) + num_repeats} frames for {len(symbols)} symbols "
            f"with {num_repeats} repeats, but has {frames}.",
        )
