"""What every engine is to the rest of the package: waveforms in, log-probabilities out.

Nothing here imports torch: an engine that is cached starts without it.

Shapes in this file: S samples, T frames, K kernel of the first convolution, N vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs

EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
Precision = Literal["auto", "float32", "bf16", "int8"]


class WindowMoments(NamedTuple):
    """Statistics of an utterance that group norm takes: of the windows that the first convolution sees."""

    mean: npt.NDArray[np.float64]
    """(K,) mean."""
    covariance: npt.NDArray[np.float64]
    """(K, K) covariance."""


class Engine(Protocol):
    """Runs a recogniser."""

    @property
    def name(self) -> str:
        """Which engine this is: "torch", "openvino" or "onnxruntime"."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: "float32", "bf16" or "int8"."""
        ...

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel size of each convolution, first layer first."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each convolution."""
        ...

    @property
    def num_symbols(self) -> int:
        """Classes N of the head."""
        ...

    @property
    def blank(self) -> int | None:
        """The class that is the CTC blank; None where the model does not say."""
        ...

    @property
    def has_group_norm(self) -> bool:
        """Whether the first convolution is normalised over time, so that windows need `moments`."""
        ...

    @property
    def is_cpu(self) -> bool:
        """Whether it runs on the processor, where large batches gain nothing."""
        ...

    @property
    def num_ahead(self) -> int:
        """How many batches are worth starting before the first of them is needed; it may grow with use."""
        ...

    def log_probs(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> list[LogProbs]:
        """Run one batch.

        Args:
            waveforms: (S_i,) samples of each utterance, normalised where the model wants it, each at least
                one receptive field long.
            moments: Statistics for group norm where all rows are windows of one utterance; None: each row
                has its own.

        Returns:
            (T_i, N) float32 natural log-probabilities of each utterance's own frames.
        """
        ...

    def start(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> Callable[[], list[LogProbs]]:
        """Start one batch of many that follow one another; one alone is done sooner by `log_probs`.

        Args:
            waveforms: As for `log_probs`.
            moments: As for `log_probs`.

        Returns:
            Gives what `log_probs` gives, once, and waits for it if need be.
        """
        ...


def measure_moments(waveform: Waveform, kernel: int, stride: int) -> WindowMoments:
    """Find the statistics that group norm takes of an utterance.

    Args:
        waveform: (S,) samples, at least K.
        kernel: K.
        stride: Of the first convolution.

    Returns:
        Mean and covariance of its windows.
    """
    rows = np.lib.stride_tricks.sliding_window_view(waveform, kernel)[::stride].astype(np.float64)  # (T, K)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return WindowMoments(mean, centred.T @ centred / len(rows))
