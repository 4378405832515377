"""Waveforms of any length -> log-probabilities of their frames.

Shapes in this file: B batch, S samples, T frames, N vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress

import numpy as np

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.engine import Engine
from unispeech.frames import Seconds, receptive_field
from unispeech.pipelines.passes import Passes
from unispeech.pipelines.turns import in_turn
from unispeech.pipelines.voice import Vad
from unispeech.pipelines.windows import Survey

SILENCE_PEAK = 2.0 / 32768
"""A recording that strays no further than this from its mean is silence: two steps of 16-bit audio, -84 dB.

Normalisation would blow the rounding noise of such a recording up to the level of speech.
"""


class Emitter(Passes):
    """Runs a recogniser over recordings: short ones whole and in batches, long ones in windows.

    Args:
        engine: A recogniser, as for `Passes`.
        do_normalize: As for `Passes`.
        window_seconds: As for `Passes`.
        overlap_seconds: As for `Passes`.
        batch_seconds: As for `Passes`.
        vad: As for `Passes`.

    Raises:
        ImportError: As for `Passes`.
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        do_normalize: bool,
        window_seconds: Seconds,
        overlap_seconds: Seconds,
        batch_seconds: Seconds,
        vad: Vad = "energy",
    ) -> None:
        super().__init__(
            engine,
            do_normalize=do_normalize,
            window_seconds=window_seconds,
            overlap_seconds=overlap_seconds,
            batch_seconds=batch_seconds,
            vad=vad,
        )
        self.num_symbols = engine.num_symbols

    def emit(self, waveforms: Sequence[Waveform]) -> list[LogProbs]:
        """Run whole recordings as one batch.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each recording.

        Returns:
            (T_i, N) log-probabilities of each, in the order given; T is 0 for silence and for what is too
            short for a frame.
        """
        is_spoken = list(map(self._is_spoken, waveforms))
        inputs = self.scale(list(compress(waveforms, is_spoken)))
        return self._in_place(is_spoken, self.engine.log_probs(inputs) if inputs else [])

    def start(self, waveforms: Sequence[Waveform]) -> Callable[[], list[LogProbs]]:
        """Start whole recordings as one batch of many that follow one another.

        Args:
            waveforms: As for `emit`.

        Returns:
            Gives what `emit` gives, once.
        """
        is_spoken = list(map(self._is_spoken, waveforms))
        inputs = self.scale(list(compress(waveforms, is_spoken)))
        finish = self.engine.start(inputs) if inputs else list
        return lambda: self._in_place(is_spoken, finish())

    def emit_windows(self, blocks: Iterable[Waveform], survey: Survey) -> Iterator[LogProbs]:
        """Run a long recording window by window, in memory that does not depend on its length.

        Args:
            blocks: (S_i,) samples that follow one another.
            survey: Of the same samples.

        Yields:
            (T_i, N) log-probabilities that follow one another and cover each frame once; none for silence.
        """
        if survey.peak <= SILENCE_PEAK:
            return
        started = (
            (part.windows, self.engine.start(part.waveforms, moments=part.moments))
            for part in self.cut(blocks, survey)
        )
        for windows, rows in in_turn(started, lambda: self.engine.num_ahead):
            for row, window in zip(rows, windows, strict=True):
                yield row[window.kept]

    def _in_place(self, is_spoken: Sequence[bool], emitted: Iterable[LogProbs]) -> list[LogProbs]:
        """Put no frames where nobody spoke."""
        found, nothing = iter(emitted), np.zeros((0, self.num_symbols), np.float32)
        return [next(found) if spoken else nothing for spoken in is_spoken]

    def _is_spoken(self, waveform: Waveform) -> bool:
        """Whether there is a frame to look at and a sound in it."""
        if len(waveform) < receptive_field(self.kernels, self.strides):
            return False
        return float(np.abs(waveform - waveform.mean()).max()) > SILENCE_PEAK
