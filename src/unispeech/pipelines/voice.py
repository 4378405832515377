"""Samples -> how probable it is that somebody speaks, by the network of silero-vad (extra vad).

Only the file of the network is taken from that package, which is not imported: its import sets the number of
threads of torch for the whole process.

Shapes in this file: S samples, T frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.frames import hop, receptive_field

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Vad = Literal["energy", "silero"]
"""What says where nobody speaks: loudness alone, or the network of silero-vad as well."""

CHUNK = 512
"""Samples for which the network gives one probability: 32 ms at 16 kHz."""

CONTEXT = 64
"""Samples of the chunk before that the network hears too."""

NUM_CHUNKS = 512
"""Chunks that run at once: 16 s."""


def open_network() -> "InferenceSession":
    """Open the network of silero-vad.

    Returns:
        What runs it, on one thread.

    Raises:
        ImportError: If the extra is not installed.
    """
    package = find_spec("silero_vad")
    if package is None or package.origin is None or find_spec("onnxruntime") is None:
        raise ImportError(
            "vad silero needs silero-vad and onnxruntime, which are not installed; install them with "
            "pip install 'unispeech[vad]'."
        )
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    path = Path(package.origin).parent / "data/silero_vad_16k_sequence.onnx"
    return InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


class Voice:
    """The probability of speech in one recording, while its samples go by.

    Args:
        network: As `open_network` gives it; many recordings may share it.
    """

    def __init__(self, network: "InferenceSession") -> None:
        self._network = network
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2
        self._rest = np.zeros(CONTEXT, np.float32)
        self._probs: list[npt.NDArray[np.float32]] = []

    def listen(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """Hear what goes by.

        Args:
            blocks: (S_i,) samples at 16 kHz that follow one another, to the end of the recording.

        Yields:
            The same blocks.
        """
        for block in blocks:
            self._hear(block)
            yield block
        # Silence behind the end fills the last chunk.
        missing = -(len(self._rest) - CONTEXT) % CHUNK
        self._hear(np.zeros(missing, np.float32))

    def frames(
        self, num_frames: int, kernels: Sequence[int], strides: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        """Give the probability of speech in the middle of each frame, when all has gone by.

        Args:
            num_frames: T, of the recording.
            kernels: Kernel sizes of the feature encoder.
            strides: Strides of the feature encoder.

        Returns:
            (T,) in [0, 1].
        """
        probs = np.concatenate([np.zeros(0, np.float32), *self._probs])
        middles = np.arange(num_frames) * hop(strides) + receptive_field(kernels, strides) // 2
        return probs[middles // CHUNK]

    def _hear(self, block: Waveform) -> None:
        """Run the chunks that are whole by now."""
        samples = np.concatenate([self._rest, block])
        num_chunks = (len(samples) - CONTEXT) // CHUNK
        for first in range(0, num_chunks, NUM_CHUNKS):
            last = min(first + NUM_CHUNKS, num_chunks)
            part = samples[first * CHUNK : last * CHUNK + CONTEXT]
            chunks = np.lib.stride_tricks.sliding_window_view(part, CONTEXT + CHUNK)[::CHUNK]
            hidden, cell = self._state
            inputs = {"input": np.ascontiguousarray(chunks), "h": hidden, "c": cell}
            probs, *self._state = self._network.run(["speech_probs", "hn", "cn"], inputs)
            self._probs.append(probs)
        self._rest = samples[num_chunks * CHUNK :]
