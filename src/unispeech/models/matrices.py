"""Products of frames and matrices on processors, by oneDNN where torch would take a slower library.

torch has float32 matrices multiplied by MKL, whose fast kernels are for Intel's processors: on an AMD EPYC it
reaches 180 G operations/s where oneDNN, which runs torch's convolutions, reaches 400. A linear map is a
convolution of one tap, and frames have their channels last already, so that nothing is copied. Products of
16 bits go through oneDNN anyway.

Shapes in this file: B batch, T frames, C channels, K kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispeech.models.processor import is_eager_cpu, is_mkl_slow

MIN_FRAMES = 128
"""From so many frames on a convolution is the faster one."""

SPAN = 1024
"""Frames that oneDNN sums over at a time: for some longer lengths it takes four times as long."""

MAX_SUMS = 2**20
"""Values of the sums over frames above which oneDNN spends what it gains on turning them."""


def is_by_onednn(frames: Tensor) -> bool:
    """Whether float32 frames, (..., C), are multiplied by oneDNN here."""
    return (
        is_eager_cpu(frames)  # first: an exported graph must not learn how many frames there are
        and frames.dtype == torch.float32
        and frames.numel() >= MIN_FRAMES * frames.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and is_mkl_slow()
        and bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
    )


class Linear(nn.Linear):
    """Linear layer of torch, by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) -> (..., C_out)."""
        if not is_by_onednn(x):
            return super().forward(x)
        products: Tensor = FrameProducts.apply(x.flatten(0, -2), self.weight, self.bias)
        return products.view(*x.shape[:-1], -1)


class FrameProducts(torch.autograd.Function):
    """A linear map of frames by oneDNN, forward and backward."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Map (T, C_in) with (C_out, C_in) -> (T, C_out)."""
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        return mapped(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias."""
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        behind = gradients[0].contiguous()
        for_input, for_weight, for_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        to_weight = None
        if for_weight:
            to_weight = torch.zeros_like(weight)
            add_summed(to_weight, behind, x)
        return (
            mapped_back(behind, x, weight) if for_input else None,
            to_weight,
            behind.sum(dim=0) if for_bias else None,
        )


def mapped(frames: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map contiguous (T, C_in) frames with (C_out, C_in) -> (T, C_out), contiguous."""
    return convolved(frames[None], weight[:, :, None], bias, 1)[0]


def mapped_back(behind: Tensor, frames: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `mapped` for its frames: (T, C_out), contiguous, with (C_out, C_in) -> (T, C_in)."""
    return convolved_back(behind[None], frames[None], weight[:, :, None], 1)[0]


def convolved(frames: Tensor, kernel: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolve contiguous frames.

    Args:
        frames: (B, T, C_in), T at least K.
        kernel: (C_out, C_in, K).
        bias: (C_out,) or None.
        stride: Frames between two of the result.

    Returns:
        (B, T_out, C_out), contiguous.
    """
    return F.conv2d(_image(frames), kernel[:, :, None], bias, stride=(1, stride))[:, :, 0].transpose(1, 2)


def convolved_back(behind: Tensor, frames: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """The gradient of `convolved` for its frames.

    Args:
        behind: (B, T_out, C_out) gradient of the result, contiguous.
        frames: Contiguous (B, T, C_in), of which only the shape is read.
        kernel: (C_out, C_in, K).
        stride: As there.

    Returns:
        (B, T, C_in), contiguous, 0 at frames that no kernel saw.
    """
    return _backward(behind, frames, kernel, stride, 0)[:, :, 0].transpose(1, 2)


def add_summed(total: Tensor, one: Tensor, other: Tensor) -> None:
    """Add the product of two rows of frames, summed over the frames, to a sum, which may be in a wider dtype.

    Args:
        total: (C_1, C_2).
        one: (T, C_1).
        other: (T, C_2).
    """
    if is_by_onednn(one) and total.numel() <= MAX_SUMS:
        kernel = total[:, :, None]
        for first in range(0, len(one), SPAN):
            span = slice(first, first + SPAN)
            total += _backward(one[None, span], other[None, span], kernel, 1, 1)[:, :, 0, 0]
    elif total.dtype == one.dtype:
        total.addmm_(one.T, other)
    else:
        total += one.T @ other


def _backward(behind: Tensor, frames: Tensor, kernel: Tensor, stride: int, wanted: int) -> Tensor:
    """The way back of `convolved` as torch's operator has it: for the frames (0) or for the kernel (1)."""
    gradients: list[Tensor] = torch.ops.aten.convolution_backward(
        _image(behind),
        _image(frames),
        kernel[:, :, None],
        None,
        [1, stride],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [wanted == 0, wanted == 1, False],
    )
    return gradients[wanted]


def _image(frames: Tensor) -> Tensor:
    """(B, T, C) -> (B, C, 1, T), a view with its channels last."""
    return frames.transpose(1, 2)[:, :, None]
