"""Waveform -> latent frames: the convolutional feature encoder and its projection.

Shapes in this file: B batch, S samples, T frames of the layer at hand, C channels, H hidden.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from unispeech.frames import num_frames
from unispeech.models.dropout import Dropout
from unispeech.models.matrices import Linear
from unispeech.models.processor import is_eager_cpu
from unispeech.models.products import StridedProducts


class FanInLinear(Linear):
    """A linear layer that starts from U(-1/sqrt(in), 1/sqrt(in)), weight and bias.

    A class of its own because initial values are given leaf by leaf: transformers skips modules without
    parameters of their own when the class lives outside its tree.
    """


class WaveformMoments(NamedTuple):
    """What group norm needs to know of an utterance: the moments of the windows that the convolution sees."""

    mean: Tensor
    """(K,) mean over the frames of the first convolution."""
    covariance: Tensor
    """(K, K) covariance over them."""


class WaveformGroupNorm(nn.GroupNorm):
    """Group norm of a convolution over the waveform: each channel over the utterance's own frames.

    The statistics of w_c * x over time follow from the waveform alone: with X the (T, K) windows that the
    convolution sees, the mean is w_c . mean(X) and the variance w_c' Cov(X) w_c, a K x K covariance. So the
    norm becomes one scale and one shift per channel, the frames of padding are simply left out of X, and the
    (B, C, T) activations, the largest array of the network, are read once instead of three times.

    Args:
        num_channels: C.
        eps: Added to the variance.

    Source:
        Group norm: Wu and He 2018 (arXiv:1803.08494). Padding left out of it: fairseq issue 3227.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__(num_channels, num_channels, eps=eps)
        self.given: WaveformMoments | None = None  # set by `given_moments`

    def scale_and_shift(
        self, waveform: Tensor, conv: nn.Conv1d, num_valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The factors that normalise `conv(waveform)` without its bias.

        Args:
            waveform: (B, 1, S).
            conv: The convolution, from 1 to C channels; its bias has no effect behind this norm.
            num_valid: (B,) frames of each utterance in [0, T]; None: all T.

        Returns:
            Scale and shift, each (B, C, 1) float32. Rows without a frame get finite numbers.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            (kernel,), (stride,) = conv.kernel_size, conv.stride
            # Of speech without high frequencies the variance is a small difference of large numbers.
            wide = torch.float32 if waveform.device.type == "mps" else torch.float64
            weight = conv.weight.squeeze(1).to(wide)  # (C, K)
            if self.given is not None:
                mean, covariance = (moment.to(weight) for moment in self.given)
                return self._from_moments(mean.expand(waveform.shape[0], 1, -1), covariance, weight)
            windows = waveform.squeeze(1).to(wide).unfold(-1, kernel, stride)  # (B, T, K)
            if num_valid is None:
                mean = windows.mean(dim=1, keepdim=True)  # (B, 1, K)
                centred = windows - mean
                count: Tensor | int = windows.shape[1]
            else:
                positions = torch.arange(windows.shape[1], device=waveform.device)
                is_valid = (positions < num_valid[:, None]).to(windows.dtype)[..., None]  # (B, T, 1)
                count = num_valid.clamp(min=1).to(windows.dtype)[:, None, None]
                mean = (windows * is_valid).sum(dim=1, keepdim=True) / count
                centred = (windows - mean) * is_valid
            return self._from_moments(mean, centred.transpose(1, 2) @ centred / count, weight)

    def _from_moments(self, mean: Tensor, covariance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, from (B, 1, K) means, (B or 1, K, K) covariances and the (C, K) kernels."""
        variance = ((weight @ covariance) * weight).sum(dim=-1)  # (B or 1, C)
        scale = self.weight * torch.rsqrt(variance.clamp(min=0) + self.eps)
        scale = scale.expand(mean.shape[0], -1)  # `len` would fix the batch of an exported graph
        shift = self.bias - (mean @ weight.T).squeeze(1) * scale
        return scale[..., None].float(), shift[..., None].float()


@contextmanager
def given_moments(model: nn.Module, moments: WaveformMoments | None) -> Iterator[None]:
    """Let group norm take the statistics of a whole utterance while a model sees windows of it.

    Args:
        model: Any model; without group norm over the waveform nothing changes.
        moments: Of the utterance, scaled as the windows are; None: each row gives its own.
    """
    norms = [part for part in model.modules() if isinstance(part, WaveformGroupNorm)]
    for norm in norms:
        norm.given = moments
    try:
        yield
    finally:
        for norm in norms:
            norm.given = None


class FeatureConvLayer(nn.Module):
    """One strided convolution of the feature encoder: Conv1d -> norm -> activation.

    No padding is added, so a layer shortens its input: T_out = floor((T_in - kernel_size) / stride) + 1.
    `frames.num_frames` computes the same on lengths.

    Args:
        in_channels: 1 for the first layer, the previous layer's `out_channels` after that.
        out_channels: Number of filters.
        kernel_size: Filter width, in input steps (samples in layer 0, frames above).
        stride: Hop, in input steps.
        norm: "layer" normalises every step over channels; "group" normalises every channel over the
            utterance's own frames and wants `in_channels` 1; "none" leaves the activations alone.
        bias: Whether the convolution learns a bias.
        activation: A name that transformers knows.

    Source:
        arXiv:2006.11477, section 2, unchanged in UniSpeech (arXiv:2101.07597). Parameter names match
        `transformers.UniSpeechModel.feature_extractor.conv_layers.N`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        norm: str,
        bias: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride=stride, bias=bias)
        if norm == "layer":
            self.layer_norm: nn.Module | None = nn.LayerNorm(out_channels)
        elif norm == "group":
            self.layer_norm = WaveformGroupNorm(out_channels)
        else:
            self.layer_norm = None
        self.activation = ACT2FN[activation]

    def forward(self, x: Tensor, num_valid: Tensor | None = None) -> Tensor:
        """Convolve, normalise, activate.

        Args:
            x: (B, C_in, T_in) activations, or (B, 1, S) waveform in the first layer.
            num_valid: (B,) frames of each utterance behind this layer; read by group norm only, None: all.

        Returns:
            (B, C_out, T_out) activations.
        """
        if is_eager_cpu(x):
            activated: Tensor = self.activation(self.products(x.transpose(1, 2), num_valid)).transpose(1, 2)
            return activated
        if isinstance(self.layer_norm, WaveformGroupNorm):
            scale, shift = self.layer_norm.scale_and_shift(x, self.conv, num_valid)
            x = F.conv1d(x, self.conv.weight, stride=self.conv.stride)
            x = torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))
        elif self.layer_norm is not None:
            # (B, C, T) -> (B, T, C) and back: layer norm reads the last axis
            x = self.layer_norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        else:
            x = self.conv(x)
        activated = self.activation(x)
        return activated

    def products(self, x: Tensor, num_valid: Tensor | None = None, *, has_gelu: bool = False) -> Tensor:
        """Convolve and normalise by matrix products, channels last, without the activation.

        Args:
            x: (B, T_in, C_in) activations.
            num_valid: As for `forward`.
            has_gelu: Whether `x` lacks its activation, GELU, which is then taken here.

        Returns:
            (B, T_out, C_out).
        """
        weight, bias, (stride,) = self.conv.weight, self.conv.bias, self.conv.stride
        if x.shape[2] == 1:
            windows = x.squeeze(2).unfold(-1, weight.shape[2], stride)  # (B, T, K)
            if isinstance(self.layer_norm, WaveformGroupNorm):
                # The norm goes into a kernel for each utterance, so that no pass over the result is spent on
                # it, and none kept for the way back.
                scale, shift = self.layer_norm.scale_and_shift(x.transpose(1, 2), self.conv, num_valid)
                kernels = (weight.squeeze(1) * scale).transpose(1, 2).to(weight.dtype)  # (B, K, C)
                return torch.baddbmm(shift.transpose(1, 2).to(weight.dtype), windows, kernels)
            x = F.linear(windows, weight.squeeze(1), bias)
        else:
            if torch.is_autocast_enabled(x.device.type):
                dtype = torch.get_autocast_dtype(x.device.type)
                x, weight = x.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            x = StridedProducts.apply(x, weight, bias, stride, has_gelu)
        return x if self.layer_norm is None else self.layer_norm(x)


class ScaleGradient(torch.autograd.Function):
    """The identity, with the gradient multiplied on the way back."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        """Return `x` as it is; remember `factor`."""
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """Multiply the gradient by the factor."""
        return gradients[0] * ctx.factor, None  # type: ignore[attr-defined]


class FeatureEncoder(nn.Module):
    """The stack of convolutions: 16 kHz waveform -> one latent every 20 ms.

    Args:
        dims: Filters of each layer.
        kernels: Kernel size of each layer.
        strides: Stride of each layer.
        norm: "group" (in the first layer only) or "layer" (in all).
        bias: Whether the convolutions learn a bias.
        activation: A name that transformers knows.
        grad_mult: Factor in [0, 1] on the gradient that enters the stack; 0 builds no graph.
    """

    # Set by PreTrainedModel.gradient_checkpointing_enable: each layer's activations are then computed twice
    # and kept never. Always without re-entrance, since the waveform itself wants no gradient.
    gradient_checkpointing = False

    def __init__(
        self,
        dims: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        norm: str,
        bias: bool,
        activation: str,
        grad_mult: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernels, self.strides, self.grad_mult = tuple(kernels), tuple(strides), grad_mult
        self.has_gelu = activation == "gelu"
        in_dims = [1, *dims[:-1]]
        self.conv_layers = nn.ModuleList(
            FeatureConvLayer(
                in_dims[i],
                dims[i],
                kernels[i],
                strides[i],
                norm="none" if norm == "group" and i > 0 else norm,
                bias=bias,
                activation=activation,
            )
            for i in range(len(dims))
        )

    def _freeze_parameters(self) -> None:
        """Stop learning; the name is the one that transformers' users call."""
        for parameter in self.parameters():
            parameter.requires_grad = False

    def forward(self, waveform: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """Encode a batch of waveforms.

        Args:
            waveform: (B, S), at least one receptive field long.
            num_samples: (B,) samples of each utterance, the rest being padding; None: all S.

        Returns:
            (B, C, T) latents.
        """
        num_valid = (
            None if num_samples is None else num_frames(num_samples, self.kernels[:1], self.strides[:1])
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.grad_mult > 0):
            if self.training and is_eager_cpu(waveform) and self.has_gelu:
                x = self._train(waveform, num_valid)
            else:
                x = waveform[:, None]
                for layer in self.conv_layers:
                    x = self._run(layer, x, num_valid)
        if 0 < self.grad_mult < 1:
            x = ScaleGradient.apply(x, self.grad_mult)
        return x

    def _train(self, waveform: Tensor, num_valid: Tensor | None) -> Tensor:
        """The same, each activation left to the layer above, which keeps only what it comes from."""
        x = waveform[..., None]
        for number, layer in enumerate(self.conv_layers):
            products = cast(FeatureConvLayer, layer).products
            x = self._run(partial(products, has_gelu=number > 0), x, num_valid)
        return F.gelu(x).transpose(1, 2)

    def _run(
        self, layer: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, num_valid: Tensor | None
    ) -> Tensor:
        """Run a layer, keeping what the way back needs or computing it again."""
        if self.gradient_checkpointing and self.training:
            computed: Tensor = checkpoint(layer, x, num_valid, use_reentrant=False)
            return computed
        return layer(x, num_valid)


class FeatureProjection(nn.Module):
    """Latent -> encoder width: LayerNorm -> Linear -> dropout.

    Args:
        in_dim: Channels C of the latents.
        hidden_size: Width H of the encoder.
        eps: Added to the variance.
        dropout: Chance that a value of the result is dropped.
    """

    def __init__(self, in_dim: int, hidden_size: int, *, eps: float, dropout: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(in_dim, eps=eps)
        self.projection = FanInLinear(in_dim, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and project.

        Args:
            latents: (B, T, C).

        Returns:
            The (B, T, H) encoder input and the (B, T, C) normalised latents, which the quantizer reads.
        """
        latents = self.layer_norm(latents)
        return self.dropout(self.projection(latents)), latents
