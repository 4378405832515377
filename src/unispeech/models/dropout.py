"""Dropout on the CPU: cheap draws, one byte a value kept, and layers that keep little else for the way back.

torch draws a Bernoulli number at a time there and keeps the mask as floats; attention with dropout has no
fused kernel and keeps several (T, T) tables of floats for every head, a feed-forward part three wide arrays.
On other devices, and in compiled and exported graphs, everything here is torch's own.

Shapes in this file: B batch, A heads, T frames, D width of a head.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from unispeech.models.matrices import add_summed, is_by_onednn, mapped, mapped_back
from unispeech.models.processor import is_eager_cpu

LEVELS = 2**16
"""A draw is one of so many: the chance of dropping is rounded to a multiple of 1 / LEVELS."""

DRAWS = 2**20
"""So many draws at a time: their bits stay in the processor's caches."""

FRAMES = 512
"""So many frames of a feed-forward part at a time, for the same reason."""

TABLE = 2**20
"""So many scores of attention at a time, at least those of one head, for the same reason."""


def draws_here(x: Tensor, prob: float) -> bool:
    """Whether dropout of `x` with this chance is drawn by this file."""
    return is_eager_cpu(x) and 0 < prob < 1 - 1 / LEVELS


def rounded(prob: float) -> float:
    """The chance that `draw_kept` drops with."""
    return round(prob * LEVELS) / LEVELS


def draw_kept(shape: tuple[int, ...], prob: float) -> Tensor:
    """Draw what dropout keeps, from numpy's SFC64 with a seed of torch's own generator of the CPU.

    That takes half the time of torch's generator, and a resumed run draws the same as before.

    Args:
        shape: Of the result.
        prob: Chance of dropping, in [0, 1 - 1 / LEVELS).

    Returns:
        Boolean of that shape, True with chance 1 - `rounded(prob)`.
    """
    generator = np.random.SFC64(int(torch.randint(2**62, ())))
    kept = np.empty(math.prod(shape), dtype=np.bool_)
    lowest = np.uint16(round(prob * LEVELS))
    for first in range(0, len(kept), DRAWS):
        span = kept[first : first + DRAWS]
        # Four draws of 16 bits in every number.
        bits = generator.random_raw((len(span) + 3) // 4).view(np.uint16)
        np.greater_equal(bits[: len(span)], lowest, out=span)
    return torch.from_numpy(kept).view(shape)


def as_bytes(kept: Tensor) -> Tensor:
    """Ones and zeros in the memory of a boolean tensor: torch turns bytes into floats in half the time."""
    return kept.view(torch.uint8)


class Dropout(nn.Dropout):
    """Dropout of torch; on the CPU with the draws of this file."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of `x` in training, and scale the others up."""
        if not (self.training and draws_here(x, self.p)):
            return super().forward(x)
        # Of its factors only the boolean one is kept for the way back.
        return (x * as_bytes(draw_kept(tuple(x.shape), self.p))).mul_(1 / (1 - rounded(self.p)))


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
        room = _Room(x)
        for span in _spans(len(x)):
            activated = room.gelu_dropped(x, kept, span)
            if is_by_onednn(activated):
                torch.add(bias, mapped(activated, weight), alpha=factor, out=out[span])
            else:
                torch.addmm(bias, activated, weight.T, alpha=factor, out=out[span])
        ctx.save_for_backward(x, kept, weight)  # type: ignore[arg-type]
        ctx.factor = factor  # type: ignore[attr-defined]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias; that of the weight is summed in float32 at least."""
        x, kept, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        behind = gradients[0] * ctx.factor  # type: ignore[attr-defined]
        to_x = torch.empty_like(x)
        to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        room = _Room(x)
        for span in _spans(len(x)):
            activated, into = room.gelu_dropped(x, kept, span), to_x[span]
            add_summed(to_weight, behind[span], activated)
            if is_by_onednn(activated):
                into.copy_(mapped_back(behind[span], activated, weight))
            else:
                torch.mm(behind[span], weight, out=into)
            if kept is not None:
                into.mul_(room.factors(kept, span))
            torch.ops.aten.gelu_backward.grad_input(into, x[span], grad_input=into)
        return to_x, None, None, to_weight.to(weight.dtype), gradients[0].sum(dim=0)


def _spans(count: int) -> list[slice]:
    """The frames that are computed at a time."""
    return [slice(first, first + FRAMES) for first in range(0, count, FRAMES)]


class _Room:
    """Memory for the arrays of one span, which every span takes anew: fresh memory costs more than GELU.

    Args:
        x: (N, I), all frames.
    """

    def __init__(self, x: Tensor) -> None:
        num_frames = min(FRAMES, len(x))
        self.activated = x.new_empty(num_frames, x.shape[1])
        self.kept = x.new_empty(num_frames, x.shape[1])

    def factors(self, kept: Tensor, span: slice) -> Tensor:
        """What is kept in a span, as ones and zeros of the dtype of `x`."""
        chosen = as_bytes(kept[span])
        return self.kept[: len(chosen)].copy_(chosen)

    def gelu_dropped(self, x: Tensor, kept: Tensor | None, span: slice) -> Tensor:
        """GELU of some frames, and what dropout leaves of it."""
        frames = x[span]
        activated: Tensor = torch.ops.aten.gelu.out(frames, out=self.activated[: len(frames)])
        return activated if kept is None else activated.mul_(self.factors(kept, span))


class DroppedAttention(torch.autograd.Function):
    """Attention with dropout: the probabilities are computed again on the way back, not kept.

    Of the (T, T) tables only what dropout keeps is stored, in a byte a value. A few heads of one utterance
    are computed at a time.

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
            is_seen: Boolean, broadcast to (B, 1, T, T), True at keys that count; None: all do.
            kept: (B, A, T, T) boolean, False at the probabilities that are dropped.
            scaling: Factor on the scores.
            factor: Factor on the probabilities that are kept.

        Returns:
            (B, T, A, D), contiguous.
        """
        B, A, T, D = query.shape
        mixed = query.new_empty(B, T, A, D)
        query, tables = query * scaling, _Tables(query)
        for b, heads in tables.parts(query):
            probs = tables.probabilities(query[b, heads], key[b, heads], is_seen, b)
            probs.mul_(tables.factors(kept[b, heads]))
            mixed[b, :, heads] = (probs.to(value.dtype) @ value[b, heads]).mul_(factor).transpose(0, 1)
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
        tables = _Tables(query)
        # (B, T, A, D) -> (B, A, T, D)
        behind = (gradients[0] * factor).transpose(1, 2)
        wide = torch.promote_types(query.dtype, torch.float32)
        sums = (gradients[0].to(wide) * mixed).sum(dim=-1, keepdim=True).transpose(1, 2)
        for b, heads in tables.parts(query):
            probs = tables.probabilities(query[b, heads], key[b, heads], is_seen, b)
            factors = tables.factors(kept[b, heads])
            # Of the softmax: p * (dp - sum p dp); the sum is that of output times gradient.
            scores = tables.product(behind[b, heads], value[b, heads]).to(wide)
            scores.mul_(factors).sub_(sums[b, heads]).mul_(probs)
            probs.mul_(factors)
            to_value[b, heads] = probs.to(behind.dtype).transpose(1, 2) @ behind[b, heads]
            scores = scores.to(query.dtype)
            to_query[b, heads] = (scores @ key[b, heads]).mul_(scaling)
            to_key[b, heads] = scores.transpose(1, 2) @ query[b, heads]  # which is scaled already
        return to_query, to_key, to_value, None, None, None, None


class _Tables:
    """Memory for the (T, T) tables of some heads, which others take anew: fresh memory costs time too.

    Args:
        query: (B, A, T, D).
    """

    def __init__(self, query: Tensor) -> None:
        _, A, T, _ = query.shape
        self.num_heads = min(A, max(1, TABLE // T**2))
        shape, wide = (self.num_heads, T, T), torch.promote_types(query.dtype, torch.float32)
        self._probs, self._factors = query.new_empty(shape, dtype=wide), query.new_empty(shape, dtype=wide)
        self._products = query.new_empty(shape)
        # The softmax of float32 is computed in place.
        self._scores = self._probs if query.dtype == wide else query.new_empty(shape)

    def parts(self, query: Tensor) -> Iterator[tuple[int, slice]]:
        """Cut the work into pieces.

        Args:
            query: (B, A, T, D).

        Yields:
            An utterance and some of its heads.
        """
        for b in range(len(query)):
            for head in range(0, query.shape[1], self.num_heads):
                yield b, slice(head, head + self.num_heads)

    def probabilities(self, query: Tensor, key: Tensor, is_seen: Tensor | None, row: int) -> Tensor:
        """(h, T, T) of some heads of an utterance, in float32 at least; of a query that is scaled."""
        scores = torch.bmm(query, key.transpose(1, 2), out=self._scores[: len(query)])
        if is_seen is not None:
            scores.masked_fill_(~is_seen[row if len(is_seen) > 1 else 0], float("-inf"))
        probs = self._probs[: len(query)]
        return torch.softmax(scores, dim=-1, dtype=probs.dtype, out=probs)

    def factors(self, kept: Tensor) -> Tensor:
        """What dropout keeps of some heads, as ones and zeros."""
        return self._factors[: len(kept)].copy_(as_bytes(kept))

    def product(self, one: Tensor, other: Tensor) -> Tensor:
        """(h, T, T), of (h, T, D) each."""
        return torch.bmm(one, other.transpose(1, 2), out=self._products[: len(one)])
