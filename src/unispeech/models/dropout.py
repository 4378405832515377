"""Dropout on the CPU: cheap draws, one byte a value kept, and attention that keeps no table of floats.

torch draws a Bernoulli number at a time there and keeps the mask as floats; attention with dropout has no
fused kernel and keeps several (T, T) tables of floats for every head. On other devices, and in compiled and
exported graphs, everything here is torch's own.

Shapes in this file: B batch, A heads, T frames, D width of a head.
"""

import math

import torch
from torch import Tensor, nn

LEVELS = 2**16
"""A draw is one of so many: the chance of dropping is rounded to a multiple of 1 / LEVELS."""


def draws_here(x: Tensor, prob: float) -> bool:
    """Whether dropout of `x` with this chance is drawn by this file."""
    return x.device.type == "cpu" and 0 < prob < 1 - 1 / LEVELS and not torch.compiler.is_compiling()


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
