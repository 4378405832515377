"""A recording and its text -> when every phone and word is said.

Shapes in this file: S samples, T frames, N vocabulary, L tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from unispeech.audio import Waveform, check_waveform, load_audio
from unispeech.data.g2p import Phonemizer
from unispeech.decoding.alignment import WILDCARD, align, num_frames_needed, num_repeats
from unispeech.decoding.decoder import LogProbs
from unispeech.decoding.extents import extents
from unispeech.decoding.extents_acoustics import measure
from unispeech.decoding.greedy import TokenSpan
from unispeech.engines.torch_engine import Precision
from unispeech.errors import AlignmentError
from unispeech.frames import SAMPLE_RATE, Seconds, hop, num_frames
from unispeech.pipelines.recordings import OnProgress
from unispeech.pipelines.segments import split_at_pauses
from unispeech.pipelines.spelling import STAR, SpelledWord, Speller
from unispeech.pipelines.transcriber import Transcriber
from unispeech.results import Phone, Transcript, Word

_NO_FRAMES = np.zeros((0, 1), np.float32)

SILENCES = frozenset({"sil", "SIL", "sp", "SP", "spn", "SPN", "nsn", "pau", "h#", "<sil>", "<SIL>", "[sil]"})
"""Symbols that some vocabularies have for what is not speech: allowed between all tokens of an alignment."""


class Aligner:
    """Finds when a known text is said: audio and text in, phones and words with times out.

    The best path through the CTC graph of the text says in which frames each symbol is named, `extents` how
    long it lasts. Silence and pauses need not stand in the text. Text that is not said, or speech that is
    not in the text, has to be marked by a `*`, a wildcard, or its neighbours' times are wrong.

    Recordings of any length run in windows, as in `Transcriber`. Memory grows with the length: by its samples
    (230 MB an hour), its (T, N) log-probabilities (36 MB an hour for 50 symbols) and 70 MB an hour of marks.

    Args:
        model: A model directory or a Hub id, or a transcriber, whose model, vocabulary and windows are taken.
        phonemizer: Says how text is spoken, for a model that writes phones; None: texts come as phones.
        language: Tag of the phones in a vocabulary that has phones for each language apart.
        wildcard: Whether a word that cannot be spelled becomes a wildcard; else it is an error.
        device: As in `Transcriber`.
        precision: As in `Transcriber`.
        window_seconds: Most seconds that the network hears at once.

    Raises:
        CheckpointError: If the directory lacks weights or vocabulary, or the vocabulary does not fit.
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        model: str | Path | Transcriber,
        *,
        phonemizer: Phonemizer | None = None,
        language: str | None = None,
        wildcard: bool = False,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        window_seconds: Seconds = 20.0,
    ) -> None:
        if not isinstance(model, Transcriber):
            model = Transcriber(model, device=device, precision=precision, window_seconds=window_seconds)
        self.transcriber = model
        self.vocabulary = model.vocabulary
        self.speller = Speller(self.vocabulary, phonemizer=phonemizer, language=language, wildcard=wildcard)

    def align(
        self,
        audio: str | Path | npt.ArrayLike,
        text: str,
        *,
        is_phones: bool = False,
        sample_rate: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Transcript:
        """Align one recording.

        Args:
            audio: Path of an audio file of any kind, or (S,) float samples.
            text: What is said: words and punctuation, or phones; `*` stands for something else.
            is_phones: Whether `text` holds phones, separated by spaces, with `|` between words or without.
            sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.
            on_progress: Called with seconds of audio as the network has heard them; None for nobody.

        Returns:
            The phones and words of the text with their times. `text` of the result is that of the phones;
            `words` are spelled as in the given text, and None for phones without `|`. A wildcard is the phone
            and the word `*`, except where it stands for a word that could not be spelled.

        Raises:
            AlignmentError: If the text needs more frames than there are, holds words that cannot be spelled,
                or is empty; or if the recording is silent.
            ManifestError: If the file is not audio.
            OSError: If the file cannot be opened.
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape, are not finite, or `sample_rate` is missing
                for samples or given for a file.
        """
        words = self.speller.spell_phones(text) if is_phones else self.speller.spell_text(text)
        if not words:
            raise AlignmentError("`text` must hold at least one word or phone, but holds none.")
        if isinstance(audio, str | Path):
            if sample_rate is not None:
                raise ValueError(
                    f"`sample_rate` must be None for a file, which states its own, but is {sample_rate}."
                )
            waveform, name = load_audio(audio), str(audio)
        else:
            if sample_rate is None:
                raise ValueError("`sample_rate` must be the rate of the samples in Hz, but is None.")
            waveform, name = check_waveform(audio, sample_rate=sample_rate, name="audio"), ""
        tokens = [token for word in words for token in word.tokens]
        self._check_room(waveform, tokens, name)
        log_probs = self._hear(waveform, on_progress)
        if not len(log_probs):
            raise AlignmentError(f"{name or '`audio`'}: must hold sound, but is silent from start to end.")
        spans = align(log_probs, tokens, self.vocabulary.blank, fillers=self._fillers(tokens))
        phones = self._phones(spans, log_probs, waveform)
        has_words = not is_phones or len(words) > 1
        transcript = Transcript(
            audio=name,
            duration=len(waveform) / SAMPLE_RATE,
            text=self.vocabulary.join(phone.phone for phone in phones)
            if self.vocabulary.kind == "phones"
            else " ".join(word.word for word in words),
            phones=phones,
            words=_words(words, phones) if has_words else None,
        )
        return replace(transcript, segments=split_at_pauses(transcript, self.transcriber.max_pause))

    def _hear(self, waveform: Waveform, on_progress: OnProgress | None) -> LogProbs:
        """Run the network, window by window."""
        parts = [_NO_FRAMES]
        for part in self.transcriber.log_probs(waveform, SAMPLE_RATE):
            parts.append(part)
            if on_progress is not None:
                on_progress(len(part) * hop(self.transcriber.engine.strides) / SAMPLE_RATE)
        return np.concatenate(parts[1:] or parts)

    def _check_room(self, waveform: Waveform, tokens: Sequence[int], name: str) -> None:
        """Refuse a text that cannot fit before the network runs."""
        engine = self.transcriber.engine
        step = hop(engine.strides) / SAMPLE_RATE
        found = num_frames(len(waveform), engine.kernels, engine.strides)
        needed, repeats = num_frames_needed(tokens), num_repeats(tokens)
        if found < needed:
            raise AlignmentError(
                f"{name or '`audio`'}: the recording must have at least {needed} frames "
                f"({needed * step:.2f} s) for {len(tokens)} symbols"
                f"{f' with {repeats} repeats' if repeats else ''}, but has {found} "
                f"({len(waveform) / SAMPLE_RATE:.2f} s); check that it belongs to the text."
            )

    def _fillers(self, tokens: Sequence[int]) -> list[int]:
        """What may be said between tokens: silence, and word boundaries, which no model writes everywhere."""
        vocabulary = self.vocabulary
        fillers = {index for index, symbol in enumerate(vocabulary.symbols) if symbol in SILENCES}
        if vocabulary.word_boundary is not None:
            fillers.add(vocabulary.word_boundary)
        return sorted(fillers - set(tokens) - {vocabulary.blank})

    def _phones(
        self, spans: Sequence[TokenSpan], log_probs: npt.NDArray[np.float32], waveform: Waveform
    ) -> list[Phone]:
        """Name the spans and give them their extents."""
        engine = self.transcriber.engine
        times = extents(
            spans,
            log_probs,
            self.vocabulary.blank,
            acoustics=measure(waveform, len(log_probs), engine.kernels, engine.strides),
            kernels=engine.kernels,
            strides=engine.strides,
        )
        return [
            Phone(
                phone=STAR if span.token == WILDCARD else self.vocabulary.symbols[span.token],
                start=start,
                end=min(end, len(waveform) / SAMPLE_RATE),
                score=span.score,
            )
            for span, (start, end) in zip(spans, times, strict=True)
        ]


def _words(words: Sequence[SpelledWord], phones: Sequence[Phone]) -> list[Word]:
    """Give every word the times of its phones."""
    bounds = accumulate((len(word.tokens) for word in words), initial=0)
    return [
        Word(
            word=word.word,
            start=phones[first].start,
            end=phones[last - 1].end,
            score=sum(phone.score for phone in phones[first:last]) / (last - first),
        )
        for word, (first, last) in zip(words, pairwise(bounds), strict=True)
    ]
