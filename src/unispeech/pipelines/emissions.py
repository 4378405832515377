"""Waveforms of any length -> log-probabilities of their frames.

Shapes in this file: B batch, S samples, T frames, N vocabulary.
"""

import ctypes
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from unispeech.audio import Waveform, normalise_waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.torch_engine import TorchEngine
from unispeech.frames import SAMPLE_RATE, Seconds, hop, num_frames, receptive_field
from unispeech.models.features import WaveformMoments
from unispeech.pipelines.windows import Survey, Window, cut_windows, plan_windows, survey_blocks

SILENCE_PEAK = 2.0 / 32768
"""A recording that strays no further than this from its mean is silence: two steps of 16-bit audio, -84 dB.

Normalisation would blow the rounding noise of such a recording up to the level of speech.
"""


class Emitter:
    """Runs a recogniser over recordings: short ones whole and in batches, long ones in windows.

    Windows are scaled by the mean and the variance of the whole recording, and group norm takes the
    statistics of the whole, so that up to attention and positions, which see a window only, each frame is
    computed as in one pass.

    Args:
        engine: A recogniser. Models with group norm that are not this package's take the statistics of each
            window.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance.
        window_seconds: Most seconds that the network hears at once of one recording, at least 1.
        overlap_seconds: Seconds of a window on either side that are heard and not kept, in
            [0, window_seconds / 4].
        batch_seconds: Most seconds of windows that run at once on a GPU; on a CPU one window runs at a time.

    Raises:
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        engine: TorchEngine,
        *,
        do_normalize: bool,
        window_seconds: Seconds,
        overlap_seconds: Seconds,
        batch_seconds: Seconds,
    ) -> None:
        if not window_seconds >= 1:
            raise ValueError(f"`window_seconds` must be at least 1, but is {window_seconds}.")
        if not 0 <= overlap_seconds <= window_seconds / 4:
            raise ValueError(
                f"`overlap_seconds` must lie in [0, window_seconds / 4] = [0, {window_seconds / 4:g}], "
                f"but is {overlap_seconds}."
            )
        self.engine = engine
        self.do_normalize = do_normalize
        config = engine.model.config
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.num_symbols = int(config.vocab_size)
        self.has_group_norm = config.feat_extract_norm == "group"
        step = hop(self.strides)
        self.max_samples = round(window_seconds * SAMPLE_RATE)
        self.max_frames = num_frames(self.max_samples, self.kernels, self.strides)
        self.overlap_frames = round(overlap_seconds * SAMPLE_RATE / step)
        is_cpu = engine.device.type == "cpu"
        self.num_windows = 1 if is_cpu else max(int(batch_seconds / window_seconds), 1)

    def emit(self, waveforms: Sequence[Waveform]) -> list[LogProbs]:
        """Run whole recordings as one batch.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each recording.

        Returns:
            (T_i, N) log-probabilities of each, in the order given; T is 0 for silence and for what is too
            short for a frame.
        """
        spoken = [index for index, waveform in enumerate(waveforms) if self._is_spoken(waveform)]
        emitted = [np.zeros((0, self.num_symbols), np.float32) for _ in waveforms]
        if spoken:
            inputs = [
                normalise_waveform(waveforms[index]) if self.do_normalize else waveforms[index]
                for index in spoken
            ]
            log_probs = self.engine.logits(inputs).log_softmax(dim=-1).numpy()  # (B, T, N)
            for row, index in enumerate(spoken):
                frames = num_frames(len(waveforms[index]), self.kernels, self.strides)
                emitted[index] = log_probs[row, :frames]
        return emitted

    def survey(self, blocks: Iterable[Waveform]) -> Survey:
        """Go through a long recording once, before `emit_windows` goes through it again.

        Args:
            blocks: (S_i,) samples that follow one another.

        Returns:
            What has to be known of the whole.
        """
        return survey_blocks(blocks, self.kernels, self.strides)

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
        windows = plan_windows(
            survey.loudness, max_frames=self.max_frames, overlap_frames=self.overlap_frames
        )
        shift, scale = (survey.mean, (survey.variance + 1e-7) ** -0.5) if self.do_normalize else (0.0, 1.0)
        moments = self._moments(survey, shift, scale)
        batch: list[tuple[Window, Waveform]] = []
        for window, samples in cut_windows(blocks, windows, self.kernels, self.strides):
            batch.append((window, np.asarray((samples - shift) * scale, np.float32)))
            if len(batch) == self.num_windows or window is windows[-1]:
                yield from self._run(batch, moments)
                batch = []
                _trim_heap()

    def _run(
        self, batch: Sequence[tuple[Window, Waveform]], moments: WaveformMoments | None
    ) -> Iterator[LogProbs]:
        """Run some windows at once.

        Yields:
            The frames of each that are kept.
        """
        inputs = [samples for _, samples in batch]
        logits = (
            self.engine.logits(inputs) if moments is None else self.engine.logits(inputs, moments=moments)
        )
        log_probs = logits.log_softmax(dim=-1).numpy()
        for row, (window, _) in zip(log_probs, batch, strict=True):
            yield row[window.kept_from - window.start_frame : window.kept_to - window.start_frame]

    def _moments(self, survey: Survey, shift: float, scale: float) -> WaveformMoments | None:
        """The survey's moments for group norm, as the scaled waveform has them."""
        if not self.has_group_norm:
            return None
        mean = (survey.window_mean - shift) * scale
        covariance = survey.window_covariance * scale**2
        return WaveformMoments(torch.from_numpy(mean), torch.from_numpy(covariance))

    def _is_spoken(self, waveform: Waveform) -> bool:
        """Whether there is a frame to look at and a sound in it."""
        if len(waveform) < receptive_field(self.kernels, self.strides):
            return False
        return float(np.abs(waveform - waveform.mean()).max()) > SILENCE_PEAK


def _trim_heap() -> None:
    """Give freed memory back to the system, where glibc manages it.

    It keeps blocks of up to 32 MB for later, and windows of ever different lengths leave ever more of them
    unused: 20 MB a window with a small model.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)
