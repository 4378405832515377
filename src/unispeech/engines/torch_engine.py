"""Forward passes in torch: waveforms of any lengths -> scores, on one device in one precision.

Shapes in this file: B batch, S samples, T frames, N vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.compilation import compile_layers
from unispeech.engines.cuda_graphs import CudaGraphs
from unispeech.engines.engine import WindowMoments
from unispeech.frames import num_frames
from unispeech.models import UniSpeechModel
from unispeech.models.features import WaveformMoments, given_moments

Precision = Literal["auto", "float32", "bf16"]


class TorchEngine:
    """Runs a model on batches without touching its weights: an `Engine`, and of other heads too.

    The attention mask always goes along, so that our models give every utterance the scores that it gets
    alone. Dropout is off during a pass; a model that was training goes on training afterwards.

    Args:
        model: Any model that takes `input_values` and `attention_mask`, and gives `logits` where those are
            asked for.
        device: Where to run, such as "cpu" or "cuda:1". "auto" leaves the model where it is. The model is
            moved, not copied.
        precision: "float32"; "bf16" runs matrix products in bfloat16, faster where the processor has it, with
            scores good to two digits that depend a little on the batch; "auto" is bf16 on GPUs that have it
            and float32 on every CPU, so that answers do not depend on the machine.
        compile: Whether torch compiles the layers of the encoder when they first run: a minute, and a C++
            compiler on a CPU. The model's own layers are compiled, and stay so. Nothing but rounding changes.
        cuda_graphs: Whether utterances of up to ten seconds that run alone are replayed from CUDA graphs, see
            `engines.cuda_graphs`: on a GPU only.

    Raises:
        ValueError: If the device does not exist here, the precision is unknown, or there can be no graphs.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(
                f"`precision` must be one of {', '.join(get_args(Precision))}, but is {precision!r}."
            )
        if device != "auto":
            model.to(find_device(device))
        if compile:
            compile_layers(model)
        self.model = model
        self.device = model.device
        has_fast_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = ("bf16" if has_fast_bf16 else "float32") if precision == "auto" else precision
        self._graphs = CudaGraphs(model, self._recorded) if cuda_graphs else None

    name = "torch"
    num_ahead = 0

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel size of each convolution."""
        return tuple(self.model.config.conv_kernel)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each convolution."""
        return tuple(self.model.config.conv_stride)

    @property
    def num_symbols(self) -> int:
        """Classes of a recogniser's head."""
        return int(self.model.config.vocab_size)

    @property
    def blank(self) -> int | None:
        """The class that is the CTC blank."""
        blank: int | None = self.model.config.pad_token_id
        return blank

    @property
    def has_group_norm(self) -> bool:
        """Whether the first convolution is normalised over time."""
        return bool(self.model.config.feat_extract_norm == "group")

    @property
    def is_cpu(self) -> bool:
        """Whether it runs on the processor."""
        return bool(self.device.type == "cpu")

    def log_probs(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> list[LogProbs]:
        """Run a recogniser on one batch.

        Args:
            waveforms: As for `logits`.
            moments: As for `logits`.

        Returns:
            (T_i, N) float32 natural log-probabilities of each utterance's own frames.
        """
        logits = self.logits(waveforms) if moments is None else self.logits(waveforms, moments=moments)
        rows = logits.log_softmax(dim=-1).numpy()  # (B, T, N)
        lengths = (num_frames(len(waveform), self.kernels, self.strides) for waveform in waveforms)
        return [row[:frames] for row, frames in zip(rows, lengths, strict=True)]

    def start(
        self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None
    ) -> Callable[[], list[LogProbs]]:
        """Put a batch off until it is needed.

        Args:
            waveforms: As for `log_probs`.
            moments: As for `log_probs`.

        Returns:
            Gives what `log_probs` gives.
        """
        return partial(self.log_probs, waveforms, moments=moments)

    def logits(self, waveforms: Sequence[Waveform], *, moments: WindowMoments | None = None) -> Tensor:
        """Run one batch.

        Args:
            waveforms: (S_i,) samples of each utterance, normalised where the model wants it.
            moments: Statistics for group norm where all rows are windows of one utterance; None: each row
                has its own. Read by this package's models only.

        Returns:
            The model's logits in float32 on the CPU: (B, T, N) for a recogniser, where frames behind an
            utterance's own mean nothing; (B, num_labels) for a classifier.
        """
        if self._graphs is not None and moments is None and len(waveforms) == 1:
            samples = torch.from_numpy(np.ascontiguousarray(waveforms[0]))
            if self._graphs.takes(len(samples)):
                return self._graphs.logits(samples)
        logits: Tensor = self._run(self.model, waveforms, moments).logits
        return logits.float().cpu()

    def states(
        self,
        waveforms: Sequence[Waveform],
        layers: Sequence[int] | None = None,
        *,
        moments: WindowMoments | None = None,
    ) -> list[Tensor]:
        """Run one batch through the encoder, without a head.

        Args:
            waveforms: As for `logits`.
            layers: Which of the num_layers + 1 hidden states to give: 0 is the input of the first layer, k
                the output of the k-th; in norm-first models all of them are before the final norm. None:
                the context alone, which is what heads see.
            moments: As for `logits`.

        Returns:
            (B, T, H) in float32 on the CPU for each layer, in the order given; frames behind an utterance's
            own mean nothing.
        """
        base = self.model.base_model
        if layers is None:
            return [self._run(base, waveforms, moments).last_hidden_state.float().cpu()]
        # Ours keeps those that are asked for, transformers' own all or none.
        wanted = list(layers) if isinstance(base, UniSpeechModel) else True
        states = self._run(base, waveforms, moments, output_hidden_states=wanted).hidden_states
        return [states[layer].float().cpu() for layer in layers]

    def _run(
        self,
        model: PreTrainedModel,
        waveforms: Sequence[Waveform],
        moments: WindowMoments | None,
        **settings: object,
    ) -> Any:
        """Run the model, or its part below the head, on a padded batch."""
        samples = [torch.from_numpy(np.ascontiguousarray(waveform)) for waveform in waveforms]
        input_values = pad_sequence(samples, batch_first=True)  # (B, S)
        attention_mask = pad_sequence(
            [torch.ones(len(row), dtype=torch.long) for row in samples], batch_first=True
        )
        given = None if moments is None else WaveformMoments(*map(torch.from_numpy, moments))
        with self._inference(), given_moments(self.model, given):
            return model(
                input_values.to(self.device, self.model.dtype),
                attention_mask=attention_mask.to(self.device),
                **settings,
            )

    def _recorded(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """The pass that CUDA graphs replay: (1, W) twice, on the device -> logits there."""
        with self._inference():
            logits: Tensor = self.model(input_values, attention_mask=attention_mask).logits
            return logits

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, no dropout, and the precision."""
        # Parts may differ: a caller can keep a frozen encoder in evaluation mode while the head trains.
        training_parts = [part for part in self.model.modules() if part.training]
        self.model.eval()
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            ):
                yield
        finally:
            for part in training_parts:
                part.training = True


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Choose where to run.

    Args:
        name: A torch device; "auto" takes the first GPU, and the CPU where there is none.

    Returns:
        A device that exists on this machine.

    Raises:
        ValueError: If it does not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    # torch says "not compiled with CUDA" by AssertionError, anything else by RuntimeError.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"`device` must be one that torch finds on this machine, but is '{name}'; use cpu or auto."
        ) from error
    return device
