"""What the engines that run a graph share: utterances without padding, lengths on a grid, moments.

Shapes in this file: B batch, S samples, T frames, K kernel of the first convolution, N vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.cache import Facts
from unispeech.engines.engine import WindowMoments, measure_moments
from unispeech.frames import hop, num_frames, receptive_field

Feed = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]
"""The inputs of a graph by their names."""

GRIDS = ((128, 4), (264, 8))
"""Up to so many frames lengths are padded to a multiple of so many.

An engine prepares itself for every new length, which takes as long as some 300 frames of the base size.
Padding takes no part in anything; of recordings of 1 to 20 s it is 2.1 to 2.3 % of the frames.
"""

COARSE_STEP = 32
"""Frames between the lengths above: 20 s, the usual window, has 999 frames, and 264 + 23 * 32 is 1,000."""


class GraphEngine(ABC):
    """Runs a graph of a recogniser, each utterance by itself: a batch gives what singles give.

    Args:
        facts: What has to be known of the recogniser.
        precision: What the graph computes in.
    """

    name: str

    def __init__(self, facts: Facts, precision: str) -> None:
        self.precision = precision
        self.kernels, self.strides = facts.kernels, facts.strides
        self.num_symbols, self.blank = facts.num_symbols, facts.blank
        self.has_group_norm = facts.has_group_norm
        self.is_cpu = True

    @property
    def num_ahead(self) -> int:
        """How many batches are worth starting before the first of them is needed."""
        return 0

    @abstractmethod
    def run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """Run the graph.

        Args:
            feed: `waveforms` (B, S), `lengths` (B,) and, with group norm, `mean` (B, K) and `spread`
                (B, K, K).

        Returns:
            (B, T, N) log-probabilities, which the caller may keep.
        """

    def start_all(self, feeds: Sequence[Feed]) -> Callable[[], list[npt.NDArray[np.float32]]]:
        """Start utterances that are needed later; here, put them off until then.

        Args:
            feeds: As for `run`, of each.

        Returns:
            Gives what `run` gives for each.
        """
        return lambda: [self.run(feed) for feed in feeds]

    def log_probs(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> list[LogProbs]:
        """Run utterances, each by itself.

        Args:
            waveforms: (S_i,) samples of each, normalised where the model wants it.
            moments: Statistics for group norm where all are windows of one utterance; None: each has its own.

        Returns:
            (T_i, N) float32 natural log-probabilities.
        """
        if len(waveforms) != 1 or moments is not None:
            return self.start(waveforms, moments=moments)()
        [waveform] = waveforms
        frames = num_frames(len(waveform), self.kernels, self.strides)
        return [self.run(self.feed(waveform, frames))[0] if frames else self._no_frames]

    def start(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> Callable[[], list[LogProbs]]:
        """Start utterances, each by itself, its length on a grid.

        Args:
            waveforms: As for `log_probs`.
            moments: As for `log_probs`.

        Returns:
            Gives what `log_probs` gives, once.
        """
        lengths = [num_frames(len(waveform), self.kernels, self.strides) for waveform in waveforms]
        finish_all = self.start_all([
            self.feed(waveform, on_grid(frames), moments)
            for waveform, frames in zip(waveforms, lengths, strict=True)
            if frames
        ])

        def finish() -> list[LogProbs]:
            found = iter(finish_all())
            return [next(found)[0, :frames] if frames else self._no_frames for frames in lengths]

        return finish

    @property
    def _no_frames(self) -> LogProbs:
        """Of what is too short."""
        return np.zeros((0, self.num_symbols), np.float32)

    def feed(self, waveform: Waveform, frames: int, moments: WindowMoments | None = None) -> Feed:
        """Prepare an utterance.

        Args:
            waveform: (S,) samples.
            frames: To how many frames it is padded.
            moments: As for `log_probs`.

        Returns:
            The inputs of the graph.
        """
        width = (frames - 1) * hop(self.strides) + receptive_field(self.kernels, self.strides)
        padded = np.zeros((1, width), np.float32)
        # Samples behind the last frame count in the statistics of group norm only.
        padded[0, : len(waveform)] = waveform[:width]
        feed: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]] = {
            "waveforms": padded,
            "lengths": np.array([len(waveform)], np.int64),
        }
        if self.has_group_norm:
            if moments is None:
                moments = measure_moments(waveform, self.kernels[0], self.strides[0])
            feed["mean"] = moments.mean[None].astype(np.float32)
            variances, directions = np.linalg.eigh(moments.covariance)
            spread = directions * np.sqrt(np.maximum(variances, 0.0))
            feed["spread"] = spread[None].astype(np.float32)
        return feed


def on_grid(frames: int) -> int:
    """Round a length up.

    Args:
        frames: T.

    Returns:
        The length of the padded utterance, in frames.
    """
    for end, step in GRIDS:
        if frames <= end:
            return -(-frames // step) * step
    return end - (end - frames) // COARSE_STEP * COARSE_STEP
