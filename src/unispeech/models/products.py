"""Strided convolutions on processors as matrix products.

Shapes in this file: B batch, T frames, C channels, K kernel.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from unispeech.models.matrices import add_summed, convolved, convolved_back, is_by_onednn

SPAN = 2048
"""So many frames of a result at a time: what they see stays in the processor's caches behind GELU."""


class StridedProducts(torch.autograd.Function):
    """A strided convolution over channels-last frames as matrix products on views, forward and backward.

    With stride s, s neighbouring frames side by side are one row of a (T_out, s C) view of the input, so a
    kernel of s taps is one product and a longer one a sum of products on shifted views. Nothing is unfolded
    and no layout changes. On two cores this takes half the time of torch's convolution and its backward
    pass, which are the largest part of a training step.

    Where oneDNN is the faster one in float32 (`matrices`), it convolves the same frames as they are; but for
    the kernel's gradient, for which it takes up to six times as long as for products.

    GELU in front of the convolution is part of it: of the two largest arrays of a training step, a layer's
    frames before and behind the activation, only the first is kept, and the second computed again.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        has_gelu: bool,
    ) -> Tensor:
        """Convolve (B, T, C_in), or GELU of it, with (C_out, C_in, K) -> (B, T_out, C_out)."""
        x = x.contiguous()
        num_out = (x.shape[1] - weight.shape[2]) // stride + 1
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.has_gelu = stride, has_gelu  # type: ignore[attr-defined]
        is_convolved = is_by_onednn(x)
        if is_convolved and not has_gelu:
            return convolved(x, weight, bias, stride)
        out = x.new_empty(x.shape[0], num_out, weight.shape[0])
        pieces = kernel_pieces(weight, stride)
        for span, row, frames in _spans(x, num_out, weight.shape[2], stride, has_gelu):
            into = out[row, span]
            if is_convolved:
                into.copy_(convolved(frames[None], weight, bias, stride)[0])
                continue
            for first, piece in pieces:
                windows = frame_windows(frames, first, len(into), stride, piece)
                if first > 0:
                    into.addmm_(windows, piece)
                elif bias is None:
                    torch.mm(windows, piece, out=into)
                else:
                    torch.addmm(bias, windows, piece, out=into)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """The gradients of input, kernel and bias; that of the kernel is summed in float32 at least."""
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride: int = ctx.stride  # type: ignore[attr-defined]
        has_gelu: bool = ctx.has_gelu  # type: ignore[attr-defined]
        gradient = gradients[0].contiguous()
        num_out = gradient.shape[1]
        pieces = kernel_pieces(weight, stride)
        for_input, for_weight, for_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        to_input = None
        if for_input and is_by_onednn(x):
            to_input = convolved_back(gradient, x, weight, stride)
            if has_gelu:
                torch.ops.aten.gelu_backward.grad_input(to_input, x, grad_input=to_input)
        elif for_input:
            to_input = torch.empty_like(x)
            # The first piece writes all frames that it sees, and the others add to them.
            to_input[:, num_out * stride if weight.shape[2] >= stride else 0 :] = 0
            for row, behind, to_row in zip(x, gradient, to_input, strict=True):
                for first, piece in pieces:
                    into = frame_windows(to_row, first, num_out, stride, piece)
                    torch.mm(behind, piece.T, out=into) if first == 0 else into.addmm_(behind, piece.T)
                if has_gelu:
                    torch.ops.aten.gelu_backward.grad_input(to_row, row, grad_input=to_row)
        to_bias = gradient.sum(dim=(0, 1)) if for_bias else None
        if not for_weight:
            return to_input, None, to_bias, None, None
        wide = torch.promote_types(weight.dtype, torch.float32)
        to_weight = [torch.zeros_like(piece, dtype=wide) for _, piece in pieces]
        for span, number, frames in _spans(x, num_out, weight.shape[2], stride, has_gelu):
            behind = gradient[number, span]
            for total, (first, piece) in zip(to_weight, pieces, strict=True):
                add_summed(total, frame_windows(frames, first, len(behind), stride, piece), behind)
        kernel = torch.cat([part.view(-1, *weight.shape[1::-1]) for part in to_weight])  # (K, C_in, C_out)
        return to_input, kernel.permute(2, 1, 0).to(weight.dtype), to_bias, None, None


def _spans(
    x: Tensor, num_out: int, num_taps: int, stride: int, has_gelu: bool
) -> Iterator[tuple[slice, int, Tensor]]:
    """Cut the frames of the result, where GELU of what they see is needed.

    Memory for GELU of a whole utterance would be fresh every time, which takes three times as long as GELU.

    Args:
        x: (B, T, C), before GELU.
        num_out: T_out.
        num_taps: K.
        stride: Of the convolution.
        has_gelu: Whether GELU is wanted.

    Yields:
        Frames of the result, the utterance, and the contiguous (T', C) frames that they see.
    """
    if not has_gelu:
        for number, row in enumerate(x):
            yield slice(0, num_out), number, row
        return
    room = x.new_empty(min(x.shape[1], (SPAN - 1) * stride + num_taps), x.shape[2])
    for number, row in enumerate(x):
        for first in range(0, num_out, SPAN):
            last = min(num_out, first + SPAN)
            seen = row[first * stride : (last - 1) * stride + num_taps]
            yield slice(first, last), number, torch.ops.aten.gelu.out(seen, out=room[: len(seen)])


def kernel_pieces(weight: Tensor, stride: int) -> list[tuple[int, Tensor]]:
    """Cut a (C_out, C_in, K) kernel into pieces of `stride` taps: the first tap of each and its matrix."""
    taps_first = weight.permute(2, 1, 0)  # (K, C_in, C_out)
    return [
        (first, taps_first[first : first + stride].flatten(0, 1))
        for first in range(0, weight.shape[2], stride)
    ]


def frame_windows(frames: Tensor, first: int, num_out: int, stride: int, piece: Tensor) -> Tensor:
    """The (T_out, taps * C_in) view of contiguous (T, C_in) frames that a piece of the kernel sees."""
    channels = frames.shape[1]
    return frames.as_strided(
        (num_out, len(piece)), (stride * channels, 1), frames.storage_offset() + first * channels
    )
