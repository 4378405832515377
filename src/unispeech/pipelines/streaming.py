"""Sound as it comes -> phones that stay and phones that may still change.

Shapes in this file: S samples, T frames, N vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform, check_waveform
from unispeech.decoding.decoder import LogProbs, find_seam, shifted
from unispeech.decoding.greedy import TokenSpan
from unispeech.frames import SAMPLE_RATE, Seconds, hop, num_frames
from unispeech.pipelines.recordings import split_waveform
from unispeech.pipelines.transcriber import Transcriber
from unispeech.results import Phone, Transcript


@dataclass(frozen=True, kw_only=True)
class Partial:
    """What is known after some of the sound."""

    new: list[Phone]
    """The phones that have become stable since the partial before."""
    provisional: Transcript
    """What follows all that is stable, and may change as more is heard."""
    name_stable: Callable[[], Transcript]
    """Gives `stable`."""

    @property
    def stable(self) -> Transcript:
        """All that stays; every later one begins with it. Written when it is asked for: long after hours."""
        return self.name_stable()


class StreamingTranscriber:
    """Transcribes sound while it is being made.

    Every `step_seconds` of new sound the network hears the last `context_seconds` and all that is not stable
    yet. Frames that lie `delay_seconds` back become stable: what they say does not change any more. So a
    phone is shown provisionally after at most `step_seconds`, and is stable after at most `delay_seconds` +
    `step_seconds`, plus the time of one pass of the network; phones that run together without a blank between
    them wait for each other. Memory does not grow with the length but for the phones themselves, and neither
    does the time of a pass.

    While up to `context_seconds` + `delay_seconds` have been heard, the network hears all of it: a recording
    shorter than `delay_seconds` ends as it does offline. Scaling takes what the network hears.

    Times are spikes, the frames in which a phone is named, whatever the transcriber's `times` say: where a
    phone ends is known only when the next one has come.

    Args:
        transcriber: Its network, vocabulary and decoder do the work. A decoder with a language model starts
            anew at each stable part.
        step_seconds: New sound that is waited for before the network runs, above 0.
        delay_seconds: How far back frames become stable, at least 0. More is nearer to the offline result.
        context_seconds: Stable sound that the network goes on hearing, at least 0.

    Raises:
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        step_seconds: Seconds = 0.5,
        delay_seconds: Seconds = 2.0,
        context_seconds: Seconds = 6.0,
    ) -> None:
        if not step_seconds > 0:
            raise ValueError(f"`step_seconds` must be positive, but is {step_seconds}.")
        for name, value in (("delay_seconds", delay_seconds), ("context_seconds", context_seconds)):
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, but is {value}.")
        self.transcriber = transcriber
        self.emitter = transcriber.emitter
        self._hop = hop(self.emitter.strides)
        self._step = max(round(step_seconds * SAMPLE_RATE), 1)
        self._delay = round(delay_seconds * SAMPLE_RATE / self._hop)
        self._context = round(context_seconds * SAMPLE_RATE / self._hop)
        self._start()

    @property
    def latency(self) -> Seconds:
        """Most seconds from a sound until the network that may make it stable has heard enough."""
        return (self._delay * self._hop + self._step) / SAMPLE_RATE

    def _start(self) -> None:
        """Forget everything."""
        self._blocks: list[Waveform] = []
        self._num_samples = 0  # in all
        self._num_new = 0  # since the network ran
        self._offset = 0  # frame at which the samples that are held begin
        self._settled = 0  # frames whose log-probabilities do not change any more
        self._decoded = 0  # frames of which the spans are stable
        self._kept: LogProbs = np.zeros((0, self.emitter.num_symbols), np.float32)  # settled, not decoded
        self._stable: list[TokenSpan] = []
        self._num_named = 0  # of them that partials have named
        self._num_told = 0  # phones that they gave
        self._provisional: list[TokenSpan] = []

    def feed(self, samples: npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> Partial | None:
        """Take the next block of sound.

        Args:
            samples: (S,) float samples, any number but 0.
            sample_rate: Their rate in Hz, 16000.

        Returns:
            What is known now, if there was enough new sound for the network to run; None otherwise.

        Raises:
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape, or are not finite.
        """
        block = check_waveform(samples, sample_rate=sample_rate, name="samples")
        has_run = False
        # However much comes at once, a pass is bounded.
        for piece in split_waveform(block):
            self._blocks.append(piece.copy())  # a caller may use his buffer again
            self._num_samples += len(piece)
            self._num_new += len(piece)
            if self._num_new >= self._step:
                self._run(is_last=False)
                has_run = True
        return self._partial() if has_run else None

    def finish(self) -> Transcript:
        """Say that the sound has ended; the next block begins another recording.

        Returns:
            All that was said.
        """
        if self._num_samples:
            self._run(is_last=True)
        transcript = self.transcriber.name_spans(self._stable, self._num_samples / SAMPLE_RATE)
        self._start()
        return transcript

    def run(self, blocks: Iterable[npt.ArrayLike], sample_rate: int = SAMPLE_RATE) -> Iterator[Partial]:
        """Transcribe blocks as they come, to their end.

        Args:
            blocks: (S_i,) float samples.
            sample_rate: Their rate in Hz, 16000.

        Yields:
            What is known whenever the network has run; in the last one nothing is provisional.
        """
        for block in blocks:
            partial = self.feed(block, sample_rate)
            if partial is not None:
                yield partial
        num_told = self._num_told
        transcript = self.finish()
        nothing = Transcript(audio="", duration=transcript.duration, text="")
        yield Partial(new=transcript.phones[num_told:], provisional=nothing, name_stable=lambda: transcript)

    def _run(self, *, is_last: bool) -> None:
        """Let the network hear what is held, and settle what lies far enough back."""
        waveform = np.concatenate(self._blocks)
        self._blocks, self._num_new = [waveform], 0
        [heard] = self.emitter.emit([waveform])
        num_total = num_frames(self._num_samples, self.emitter.kernels, self.emitter.strides)
        if not len(heard):  # silence so far
            heard = self._silence(num_total - self._offset)
        settled = num_total if is_last else max(num_total - self._delay, self._settled)
        fresh = heard[self._settled - self._offset :]  # (T, N) frames that were not settled
        self._kept = np.concatenate([self._kept, fresh[: settled - self._settled]])
        unsettled = fresh[settled - self._settled :]
        self._settled = settled
        self._decode(unsettled, is_last=is_last)
        self._forget()

    def _decode(self, unsettled: LogProbs, *, is_last: bool) -> None:
        """Make spans stable as far as a seam in what is settled; the rest is provisional."""
        decoder, blank = self.transcriber.decoder, self.transcriber.vocabulary.blank
        seam = len(self._kept) if is_last else find_seam(self._kept, blank, is_late=True)
        if seam:
            self._stable += shifted(decoder.decode(self._kept[:seam]), self._decoded)
            self._kept = self._kept[seam:].copy()
            self._decoded += seam
        rest = np.concatenate([self._kept, unsettled])
        self._provisional = list(shifted(decoder.decode(rest), self._decoded)) if len(rest) else []

    def _forget(self) -> None:
        """Let go of sound that the network need not hear any more, by whole frames."""
        first = max(self._settled - self._context, self._offset)
        self._blocks = [self._blocks[0][(first - self._offset) * self._hop :].copy()]
        self._offset = first

    def _silence(self, num_rows: int) -> LogProbs:
        """(T, N) log-probabilities that are sure of the blank."""
        rows = np.full((max(num_rows, 0), self.emitter.num_symbols), -30.0, np.float32)
        rows[:, self.transcriber.vocabulary.blank] = 0.0
        return rows

    def _partial(self) -> Partial:
        """What is known now."""
        seconds, spans, count = self._num_samples / SAMPLE_RATE, self._stable, len(self._stable)
        new = self.transcriber.name_spans(spans[self._num_named :], seconds).phones
        self._num_named, self._num_told = count, self._num_told + len(new)
        return Partial(
            new=new,
            provisional=self.transcriber.name_spans(self._provisional, seconds),
            # Spans are only ever added, so that the first of them are those of now.
            name_stable=lambda: self.transcriber.name_spans(spans[:count], seconds),
        )
