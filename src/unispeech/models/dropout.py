"""Dropout on the CPU: cheap draws, one byte a value kept, and layers that keep little else for the way back.

torch draws a Bernoulli number at a time there and keeps the mask as floats; attention with dropout has no
fused kernel and keeps several (T, T) tables of floats for every head, a feed-forward part three wide arrays.
On other devices, and in compiled and exported graphs, everything here is torch's own.

Shapes in this file: B batch, A heads, T frames, D width of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16
"""A draw is one of so many: the chance of dropping is rounded to a multiple of 1 / LEVELS."""


def is_eager_cpu(x: Tensor) -> bool:
    """Whether `x` is computed on a processor operator by operator, and not to make a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch._C._is_tracing()


def draws_here(x: Tensor, prob: float) -> bool:
    """Whether dropout of `x` with this chance is drawn by this file."""
    return is_eager_cpu(x) and 0 < prob < 1 - 1 / LEVELS


def rounded(prob: float) -> float:
    """The chance that `draw_kept` drops with."""
    return round(prob * LEVELS) / LEVELS


def draw_kept(shape: tuple[int, ...], prob: float) -> Tensor:
    """Draw what dropout keeps, from torch's own generator of the CPU.

    Args:
        shape: Of the result.
        prob: Chance of dropping, in [0, 1 - 1 / LEVELS).

    Returns:
        Boolean of that shape, True with chance 1 - `rounded(prob)`.
    """
    count = math.prod(shape)
    # Four draws of 16 bits in every number.
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[:count] >= round(prob * LEVELS) - LEVELS // 2).view(shape)


class Dropout(nn.Dropout):
    """Dropout of torch; on the CPU with the draws of this file."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of `x` in training, and scale the others up."""
        if not (self.training and draws_here(x, self.p)):
            return super().forward(x)
        # Of its factors only the boolean one is kept for the way back.
        return (x * draw_kept(tuple(x.shape), self.p)).mul_(1 / (1 - rounded(self.p)))


class GeluDropoutLinear(torch.autograd.Function):
    """GELU, dropout and a linear layer, of which only the input and what dropout keeps are stored.

    In a feed-forward part the input is wide: it, GELU of it and what dropout leaves of that are the largest
    arrays of a Transformer. The last two are computed again on the way back, some frames at a time.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        kept: Tensor | None,
        factor: float,
        weight: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """Map (N, I) -> (N, H).

        Args:
            ctx: What is remembered for the way back.
            x: (N, I), N frames.
            kept: (N, I) boolean, False at the values that are dropped; None: none is.
            factor: Factor on the values that are kept.
            weight: (H, I).
            bias: (H,).

        Returns:
            (N, H).
        """
        out = x.new_empty(len(x), len(weight))
        for span in _spans(len(x)):
            torch.addmm(bias, _gelu_dropped(x, kept, factor, span), weight.T, out=out[span])
        ctx.save_for_backward(x, kept, weight)  # type: ignore[arg-type]
        ctx.factor = factor  # type: ignore[attr-defined]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias; that of the weight is summed in float32 at least."""
        x, kept, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        factor: float = ctx.factor  # type: ignore[attr-defined]
        behind = gradients[0]
        to_x = torch.empty_like(x)
        to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for span in _spans(len(x)):
            to_weight += behind[span].T @ _gelu_dropped(x, kept, factor, span)
            into = to_x[span]
            torch.mm(behind[span], weight, out=into)
            if kept is not None:
                into.mul_(kept[span]).mul_(factor)
            torch.ops.aten.gelu_backward.grad_input(into, x[span], grad_input=into)
        return to_x, None, None, to_weight.to(weight.dtype), behind.sum(dim=0)


def _spans(count: int) -> list[slice]:
    """So few frames at a time that their arrays stay in the processor's caches."""
    return [slice(first, first + 512) for first in range(0, count, 512)]


def _gelu_dropped(x: Tensor, kept: Tensor | None, factor: float, span: slice) -> Tensor:
    """GELU of some frames, and what dropout leaves of it."""
    activated = F.gelu(x[span])
    return activated if kept is None else activated.mul_(kept[span]).mul_(factor)


class DroppedAttention(torch.autograd.Function):
    """Attention with dropout: the probabilities are computed again on the way back, not kept.

    Of the (T, T) tables only what dropout keeps is stored, in a byte a value. One utterance is computed at a
    time.

    Source:
        The recomputation, and the row sums from output and gradient, are those of Dao et al. 2022
        (arXiv:2205.14135), without its tiles.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_seen: Tensor | None,
        kept: Tensor,
        scaling: float,
        factor: float,
    ) -> Tensor:
        """Attend.

        Args:
            ctx: What is remembered for the way back.
            query: (B, A, T, D).
            key: (B, A, T, D).
            value: (B, A, T, D).
            is_seen: Boolean, broadcast to (B, A, T, T), True at keys that count; None: all do.
            kept: (B, A, T, T) boolean, False at the probabilities that are dropped.
            scaling: Factor on the scores.
            factor: Factor on the probabilities that are kept.

        Returns:
            (B, T, A, D), contiguous.
        """
        B, A, T, D = query.shape
        mixed = query.new_empty(B, T, A, D)
        for b in range(B):
            probs = _probabilities(query[b], key[b], is_seen, b, scaling).mul_(kept[b])
            mixed[b] = (probs.to(value.dtype) @ value[b]).mul_(factor).transpose(0, 1)
        ctx.save_for_backward(query, key, value, is_seen, kept, mixed)  # type: ignore[arg-type]
        ctx.factors = scaling, factor  # type: ignore[attr-defined]
        return mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of query, key and value."""
        query, key, value, is_seen, kept, mixed = ctx.saved_tensors  # type: ignore[attr-defined]
        scaling, factor = ctx.factors  # type: ignore[attr-defined]
        to_query, to_key, to_value = (torch.empty_like(x) for x in (query, key, value))
        for b in range(len(query)):
            behind = gradients[0][b].transpose(0, 1)  # (A, T, D)
            # Of the softmax: p * (dp - sum p dp); the sum is that of output times gradient.
            probs = _probabilities(query[b], key[b], is_seen, b, scaling)
            sums = (behind.to(probs.dtype) * mixed[b].transpose(0, 1)).sum(dim=-1, keepdim=True)
            scores = (behind @ value[b].transpose(1, 2)).to(probs.dtype)
            scores.mul_(kept[b]).mul_(factor).sub_(sums).mul_(probs).mul_(scaling)
            probs.mul_(kept[b])
            to_value[b] = (probs.to(behind.dtype).transpose(1, 2) @ behind).mul_(factor)
            scores = scores.to(query.dtype)
            to_query[b] = scores @ key[b]
            to_key[b] = scores.transpose(1, 2) @ query[b]
        return to_query, to_key, to_value, None, None, None, None


def _probabilities(query: Tensor, key: Tensor, is_seen: Tensor | None, row: int, scaling: float) -> Tensor:
    """(A, T, T) of one utterance, in float32 at least."""
    scores = (query * scaling) @ key.transpose(1, 2)
    if is_seen is not None:
        scores = scores.masked_fill(~is_seen[row if len(is_seen) > 1 else 0], float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
