"""Which frames and channels are hidden from the encoder, and which frames serve as negatives.

Everything is drawn on the device by tensor operations, from a generator that the caller may give. Rows differ
in length; nothing is drawn from a row's padding.

Shapes in this file: B batch, T positions (frames or channels), K negatives.
"""

import torch
from torch import Tensor

NO_NEGATIVE = -1
"""Marks a place in a table of negatives that could not be filled: the utterance has no other candidate."""


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) on `device`, also where the generator lives on another one."""
    source = device if generator is None else generator.device
    return torch.rand(shape, device=source, generator=generator).to(device)


def sample_spans(
    lengths: Tensor,
    width: int,
    *,
    prob: float,
    span_length: int,
    min_spans: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw spans of `span_length` positions until `prob` of each row is covered, overlaps not counted.

    A row of n positions gets floor(prob * n / span_length + u) spans with u drawn from [0, 1) for the row,
    at least `min_spans`, and never more than fit without touching: n // span_length, at least 1. Starts are
    drawn without replacement from the places where a whole span fits, so a row shorter than one span
    stays unmasked. Works at every length from 0 up.

    Args:
        lengths: (B,) integer tensor, positions of each row that may be masked.
        width: Width T of the result, at least every length.
        prob: Share of the row that the spans would cover if none overlapped, in [0, 1].
        span_length: Positions in one span, at least 1.
        min_spans: Least number of spans in a row that has room for them.
        generator: Source of randomness; None takes torch's own for the device.

    Returns:
        (B, T) boolean tensor, True where the position is masked.

    Source:
        arXiv:2006.11477, section 3.1 and appendix A; the counting rule of the original code, with its
        rounding draw per row and the room rule of transformers' SpecAugment.
    """
    (batch_size,) = lengths.shape
    device = lengths.device
    rounding = _uniform((batch_size,), device, generator)
    num_spans = (prob * lengths / span_length + rounding).long().clamp(min=min_spans)
    room = (lengths - span_length + 1).clamp(min=0)
    num_spans = torch.minimum(num_spans, (lengths // span_length).clamp(min=1))
    num_spans = torch.minimum(num_spans, room)

    # Without replacement: the places are shuffled by random keys and each row takes its first `num_spans`.
    keys = _uniform((batch_size, width), device, generator)
    keys = keys.masked_fill(torch.arange(width, device=device) >= room[:, None], 2.0)
    is_taken = torch.arange(width, device=device) < num_spans[:, None]
    is_start = torch.zeros_like(is_taken).scatter(1, keys.argsort(dim=1), is_taken)
    # A position is masked when any of the last `span_length` positions starts a span.
    num_starts = is_start.long().cumsum(dim=1)
    earlier = torch.nn.functional.pad(num_starts, (span_length, 0))[:, :width]
    return num_starts > earlier


def sample_negatives(
    is_target: Tensor, is_candidate: Tensor, num_negatives: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw other candidate frames of the same utterance for every target frame, with replacement.

    Args:
        is_target: (B, T) boolean tensor, True at the frames that are to be told apart.
        is_candidate: (B, T) boolean tensor, True at the frames that may serve as negatives.
        num_negatives: K, at least 1.
        generator: Source of randomness; None takes torch's own for the device.

    Returns:
        (B, T, K) integer tensor of indices into the flattened (B * T) frames, the convention of transformers'
        wav2vec 2.0. Where the frame is no target, or its utterance has no other candidate, every index is
        `NO_NEGATIVE`.

    Source:
        arXiv:2006.11477, section 3.2: distractors drawn uniformly from the same utterance.
    """
    B, T = is_target.shape
    device = is_target.device
    # Candidates of each row in order of time: rank -> frame, and for each frame its own rank.
    frame_of_rank = (~is_candidate).long().argsort(dim=1, stable=True)
    own_rank = is_candidate.long().cumsum(dim=1) - 1
    num_others = is_candidate.sum(dim=1)[:, None] - is_candidate.long()  # (B, T), the frame itself left out
    draw = _uniform((B, T, num_negatives), device, generator)
    rank = (draw * num_others[..., None]).long()
    # The clamp guards against draw * n rounding up to n; the shift steps over the target itself.
    rank = torch.minimum(rank, (num_others - 1).clamp(min=0)[..., None])
    rank = rank + ((rank >= own_rank[..., None]) & is_candidate[..., None]).long()
    frame = frame_of_rank.gather(1, rank.view(B, T * num_negatives).clamp(max=max(T - 1, 0)))
    index = frame.view(B, T, num_negatives) + torch.arange(B, device=device)[:, None, None] * T
    usable = is_target & (num_others > 0)
    return index.masked_fill(~usable[..., None], NO_NEGATIVE)
