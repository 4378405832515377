"""CUDA graphs: the pass over a short utterance, recorded once for each length and then replayed.

A pass over a second of speech is hundreds of kernels of a few microseconds each, and a GPU finishes one
before Python has launched the next. A graph launches them all at once. It holds for one shape, so waveforms
are padded to a multiple of half a second, which changes nothing: the attention mask goes along.

Shapes in this file: S samples, W padded samples, T frames, N vocabulary.
"""

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unispeech.frames import SAMPLE_RATE
from unispeech.models import UniSpeechModel

STEP = SAMPLE_RATE // 2
"""Lengths are padded to a multiple of it: at most 20 graphs, and half of it in vain on average."""
LONGEST = 10 * SAMPLE_RATE
"""Most samples of an utterance that is replayed; for longer ones kernels take longer than their launch."""
NUM_WARM_UPS = 3
"""Passes before one is recorded, in which libraries choose their kernels and take their memory."""

Pass = Callable[[Tensor, Tensor], Tensor]
"""(1, W) waveform and (1, W) attention mask -> logits, without a read from the device on the way."""
Record = Callable[[Pass, Tensor, Tensor], Callable[[], Tensor]]
"""A pass and its two inputs -> what runs it again on whatever they then hold."""


def record_graph(run: Pass, waveform: Tensor, attention_mask: Tensor) -> Callable[[], Tensor]:
    """Record a pass on the GPU that holds its inputs.

    Args:
        run: The pass.
        waveform: (1, W), read anew by every replay.
        attention_mask: (1, W), likewise.

    Returns:
        Replays it and gives its logits, which the next replay overwrites.

    Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warm up on a stream of its own,
        then capture.
    """
    with torch.cuda.device(waveform.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                run(waveform, attention_mask)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads ask of the GPU meanwhile does not spoil the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = run(waveform, attention_mask)

    def replay() -> Tensor:
        with torch.cuda.device(waveform.device):
            graph.replay()
        return logits

    return replay


class CudaGraphs:
    """The recorded passes of a model, by padded length; one runs at a time.

    Args:
        model: The model, on a GPU. Weights may change in place; where they move, passes are recorded anew.
        run: Its pass.
        record: Records a pass.

    Raises:
        ValueError: If the model is not on a GPU, or is one whose logits change with padding.
    """

    def __init__(self, model: PreTrainedModel, run: Pass, record: Record = record_graph) -> None:
        if record is record_graph and model.device.type != "cuda":
            raise ValueError(
                f"`device` must be a CUDA GPU along with `cuda_graphs`, but is {model.device}; "
                "leave `cuda_graphs` out."
            )
        if not ignores_padding(model):
            raise ValueError(
                "`cuda_graphs` must be False for a model whose scores change with padding, but is True."
            )
        self._model, self._run, self._record = model, run, record
        self._graphs: dict[int, tuple[Tensor, Tensor, Callable[[], Tensor]]] = {}
        self._places: list[int] = []
        self._lock = Lock()

    def takes(self, num_samples: int) -> bool:
        """Tell whether an utterance is short enough.

        Args:
            num_samples: S.
        """
        return num_samples <= LONGEST

    def logits(self, samples: Tensor) -> Tensor:
        """Run one utterance, recording the pass if its padded length is new.

        Args:
            samples: (S,) on the CPU, at most `LONGEST`.

        Returns:
            What the model gives, in float32 on the CPU: (1, T, N), T of the padded length, for a recogniser.
        """
        width = max(-(-len(samples) // STEP), 1) * STEP
        with self._lock:
            self._forget_if_moved()
            if width not in self._graphs:
                self._graphs[width] = self._record_width(width)
            waveform, attention_mask, replay = self._graphs[width]
            waveform[0, : len(samples)] = samples  # what is left behind them is masked
            attention_mask.zero_()[0, : len(samples)] = 1
            # Copied before the lock is given back: a replay overwrites what the one before gave.
            return replay().to("cpu", torch.float32, copy=True)

    def _record_width(self, width: int) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        """The inputs of a pass of so many samples, and its replay."""
        device, dtype = self._model.device, self._model.dtype
        waveform = torch.zeros(1, width, device=device, dtype=dtype)
        attention_mask = torch.ones(1, width, device=device, dtype=torch.long)
        return waveform, attention_mask, self._record(self._run, waveform, attention_mask)

    def _forget_if_moved(self) -> None:
        """Drop all graphs once a weight lies elsewhere, as after `.to()` or `load_adapter`."""
        places = [weight.data_ptr() for weight in (*self._model.parameters(), *self._model.buffers())]
        if places != self._places:
            self._graphs.clear()
            self._places = places


def ignores_padding(model: PreTrainedModel) -> bool:
    """Tell whether a model gives a padded utterance what it gives the utterance alone.

    Args:
        model: Any model; of others than this package's nothing is known.
    """
    config = model.config
    return isinstance(model.base_model, UniSpeechModel) and not (
        config.group_norm_over_padding or config.frame_count_rule == "original"
    )
