"""Recordings of any length -> what a network hears at once: short ones whole, long ones in windows.

Shapes in this file: S samples, T frames.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from unispeech.audio import Waveform, normalise_waveform
from unispeech.engines.engine import Engine, WindowMoments
from unispeech.frames import SAMPLE_RATE, Seconds, hop, num_frames
from unispeech.pipelines.voice import Vad, Voice, open_network
from unispeech.pipelines.windows import Survey, Window, cut_windows, plan_windows, survey_blocks


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Some windows of one recording, for one forward pass."""

    windows: list[Window]
    """What is heard and what of it is kept, in frames of the recording."""
    waveforms: list[Waveform]
    """(S_i,) samples of each window, scaled as the model wants them."""
    moments: WindowMoments | None
    """Statistics of the whole recording for group norm; None where the model has none."""


class Passes:
    """Prepares recordings for a network.

    Windows are scaled by the mean and the variance of the whole recording, and group norm takes the
    statistics of the whole, so that up to attention and positions, which see a window only, each frame is
    computed as in one pass.

    Args:
        engine: Where the network runs. Models with group norm that are not this package's take the
            statistics of each window.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance.
        window_seconds: Most seconds that the network hears at once of one recording, at least 1.
        overlap_seconds: Seconds of a window on either side that are heard and not kept, in
            [0, window_seconds / 4].
        batch_seconds: Most seconds of windows that run at once on a GPU; on a CPU one window runs at a time.
        vad: What says where a window may end: "energy" where it is quietest; "silero" where nobody speaks,
            and there where it is quietest.

    Raises:
        ImportError: If `vad` is "silero" and the extra vad is not installed.
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
        if vad not in get_args(Vad):
            raise ValueError(f"`vad` must be one of {', '.join(get_args(Vad))}, but is {vad!r}.")
        if not batch_seconds > 0:
            raise ValueError(f"`batch_seconds` must be positive, but is {batch_seconds}.")
        if not window_seconds >= 1:
            raise ValueError(f"`window_seconds` must be at least 1, but is {window_seconds}.")
        if not 0 <= overlap_seconds <= window_seconds / 4:
            raise ValueError(
                f"`overlap_seconds` must lie in [0, window_seconds / 4] = [0, {window_seconds / 4:g}], "
                f"but is {overlap_seconds}."
            )
        self.engine = engine
        self._voice_network = open_network() if vad == "silero" else None
        self.do_normalize = do_normalize
        self.kernels, self.strides = engine.kernels, engine.strides
        self.has_group_norm = engine.has_group_norm
        self.max_samples = round(window_seconds * SAMPLE_RATE)
        self.max_frames = num_frames(self.max_samples, self.kernels, self.strides)
        self.overlap_frames = round(overlap_seconds * SAMPLE_RATE / hop(self.strides))
        self.num_windows = 1 if engine.is_cpu else max(int(batch_seconds / window_seconds), 1)

    def read_short(self, open_blocks: Callable[[], Iterable[Waveform]]) -> Waveform | None:
        """Read a recording that can be heard at once.

        Args:
            open_blocks: Reads (S_i,) samples that follow one another, from the start at each call.

        Returns:
            (S,) samples; None where the recording is longer than a window.
        """
        start: list[Waveform] = []
        num_samples = 0
        for block in open_blocks():
            start.append(block)
            num_samples += len(block)
            if num_samples > self.max_samples:
                return None
        return np.concatenate(start)

    def scale(self, waveforms: Sequence[Waveform]) -> list[Waveform]:
        """Scale whole recordings as the model wants them.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each.

        Returns:
            The same many.
        """
        return [normalise_waveform(waveform) if self.do_normalize else waveform for waveform in waveforms]

    def survey(self, blocks: Iterable[Waveform]) -> Survey:
        """Go through a long recording once, before `cut` goes through it again.

        Args:
            blocks: (S_i,) samples that follow one another.

        Returns:
            What has to be known of the whole.
        """
        if self._voice_network is None:
            return survey_blocks(blocks, self.kernels, self.strides)
        voice = Voice(self._voice_network)
        survey = survey_blocks(voice.listen(blocks), self.kernels, self.strides)
        return replace(survey, speech=voice.frames(len(survey.loudness), self.kernels, self.strides))

    def cut(self, blocks: Iterable[Waveform], survey: Survey) -> Iterator[Pass]:
        """Cut a long recording into windows, in memory that does not depend on its length.

        Args:
            blocks: (S_i,) samples that follow one another.
            survey: Of the same samples.

        Yields:
            Windows in the order of time, whose kept parts cover each frame once.
        """
        windows = plan_windows(
            survey.activity, max_frames=self.max_frames, overlap_frames=self.overlap_frames
        )
        shift, scale = (survey.mean, (survey.variance + 1e-7) ** -0.5) if self.do_normalize else (0.0, 1.0)
        moments = self._moments(survey, shift, scale)
        batch: list[tuple[Window, Waveform]] = []
        for window, samples in cut_windows(blocks, windows, self.kernels, self.strides):
            batch.append((window, np.asarray((samples - shift) * scale, np.float32)))
            if len(batch) == self.num_windows or window is windows[-1]:
                yield Pass(
                    windows=[window for window, _ in batch],
                    waveforms=[waveform for _, waveform in batch],
                    moments=moments,
                )
                batch = []
                _trim_heap()

    def _moments(self, survey: Survey, shift: float, scale: float) -> WindowMoments | None:
        """The survey's moments for group norm, as the scaled waveform has them."""
        if not self.has_group_norm:
            return None
        mean = (survey.window_mean - shift) * scale
        covariance = survey.window_covariance * scale**2
        return WindowMoments(mean, covariance)


def _trim_heap() -> None:
    """Give freed memory back to the system, where glibc manages it.

    It keeps blocks of up to 32 MB for later, and windows of ever different lengths leave ever more of them
    unused: 20 MB a window with a small model.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)
