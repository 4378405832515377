"""The losses of UniSpeech as sums with their counts: CTC, contrastive, diversity.

Sums, because only the training loop knows how many targets the whole update has, over micro-batches and
processes. All arithmetic is in float32 at least, whatever the network's precision: a softmax over phones, a
cosine and a logarithm of small probabilities lose too much in 16 bits.

Shapes in this file: B batch, T frames, H hidden, N vocabulary, L target length, M target frames of the whole
batch, K negatives, G codebooks, V entries.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unispeech.masking import NO_NEGATIVE

IGNORED_LABEL = -100
"""Fills the rows of a label tensor behind the end of each target."""


@dataclass(frozen=True, kw_only=True)
class CTCLoss:
    """CTC over a batch, before any normalisation."""

    per_utterance: Tensor
    """(B,) negative log-likelihood of each target in nats; 0 where the row has none or it cannot fit."""
    sum: Tensor
    """Scalar sum of `per_utterance`."""
    count: Tensor
    """Scalar: rows that have a target, fitting or not."""
    target_lengths: Tensor
    """(B,) symbols in each target."""
    is_feasible: Tensor
    """(B,) boolean: the target, with a blank between repeated symbols, fits into its frames."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveLoss:
    """The contrastive task over a batch, before any normalisation."""

    per_target: Tensor
    """(M,) cross-entropy of telling each target from its negatives, in nats."""
    sum: Tensor
    """Scalar sum of `per_target`, weighted where weights are given."""
    count: Tensor
    """Scalar M."""
    num_correct: Tensor
    """Scalar: targets whose positive is strictly nearest."""
    num_equal: Tensor
    """Scalar: negatives that carry the codes of their positive."""
    num_negatives: Tensor
    """Scalar: negatives in all, the unfilled left out."""


def _wide(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def ctc_targets(labels: Tensor, *, num_utterances: int, num_classes: int, blank: int | None) -> Tensor:
    """Check a label tensor and move each row's symbols to the left.

    `IGNORED_LABEL` and the blank are dropped wherever they stand, as transformers 5.23 does.

    Args:
        labels: (B, L) integers.
        num_utterances: B, the rows that there must be.
        num_classes: N, the width of the CTC head.
        blank: Index of the blank, in [0, N).

    Returns:
        (B, L) int64, the targets left-aligned and `IGNORED_LABEL` behind them.

    Raises:
        ValueError: If the shape is not (B, L), the blank is no class, or a label lies outside [0, N).
    """
    if labels.ndim != 2 or labels.is_floating_point():
        raise ValueError(
            f"`labels` must be integers of shape (B, L), but have shape {tuple(labels.shape)} "
            f"and type {labels.dtype}."
        )
    if len(labels) != num_utterances:
        raise ValueError(
            f"`labels` must have a row for each of the {num_utterances} utterances, but have {len(labels)}."
        )
    if blank is None or not 0 <= blank < num_classes:
        raise ValueError(
            f"`pad_token_id` must be the index of the CTC blank in [0, {num_classes - 1}], but is {blank}."
        )
    labels = labels.long()
    is_label = labels != IGNORED_LABEL
    is_wrong = is_label & ((labels < 0) | (labels >= num_classes))
    if bool(is_wrong.any()):
        row, column = (int(i) for i in is_wrong.nonzero()[0])
        raise ValueError(
            f"`labels` must lie in [0, {num_classes - 1}] or be {IGNORED_LABEL}, but utterance {row} has "
            f"{int(labels[row, column])}; does the vocabulary belong to this model?"
        )
    is_symbol = is_label & (labels != blank)
    order = (~is_symbol).long().argsort(dim=1, stable=True)
    return labels.masked_fill(~is_symbol, IGNORED_LABEL).gather(1, order)


def min_ctc_frames(labels: Tensor) -> Tensor:
    """Frames that CTC needs for each target: its symbols, and a blank between every two equal neighbours.

    Args:
        labels: (B, L) integer targets, `IGNORED_LABEL` behind the end of each.

    Returns:
        (B,) integer tensor.

    Source:
        Graves et al. 2006, section 3.1.
    """
    is_label = labels != IGNORED_LABEL
    is_repeat = (labels[:, 1:] == labels[:, :-1]) & is_label[:, 1:]
    return is_label.sum(dim=1) + is_repeat.sum(dim=1)


def ctc_loss(logits: Tensor, num_frames: Tensor, labels: Tensor, *, blank: int) -> CTCLoss:
    """Connectionist temporal classification.

    A target that cannot fit into its frames counts as 0 and sends no gradient; `is_feasible` tells which.

    Args:
        logits: (B, T, N) unnormalised scores.
        num_frames: (B,) valid frames of each row, in [0, T].
        labels: (B, L) integer targets in [0, N), left-aligned, `IGNORED_LABEL` behind the end of each row:
            what `ctc_targets` returns.
        blank: Index of the blank, in [0, N).

    Returns:
        The sum and its parts.

    Source:
        Graves et al. 2006; arXiv:2101.07597, section 3.1.
    """
    target_lengths = (labels != IGNORED_LABEL).sum(dim=1)
    is_feasible = (min_ctc_frames(labels) <= num_frames) & (num_frames > 0)
    if logits.shape[1] == 0:  # torch refuses an empty time axis; the added frame belongs to no utterance
        logits = F.pad(logits, (0, 0, 0, 1))
    log_probs = F.log_softmax(_wide(logits), dim=-1).transpose(0, 1)  # (T, B, N), as torch wants it
    # Rows that cannot fit are given an empty target over no more than what they have, then weighed with 0:
    # their own loss would be infinite, and infinity times 0 is not a number.
    fitted = torch.where(is_feasible, target_lengths, torch.zeros_like(target_lengths))
    with torch.backends.cudnn.flags(enabled=False):
        losses = F.ctc_loss(
            log_probs,
            labels.clamp(min=0),
            num_frames.clamp(min=1),
            fitted,
            blank=blank,
            reduction="none",
        )
    losses = torch.where(is_feasible & (target_lengths > 0), losses, torch.zeros_like(losses))
    return CTCLoss(
        per_utterance=losses,
        sum=losses.sum(),
        count=(target_lengths > 0).sum(),
        target_lengths=target_lengths,
        is_feasible=is_feasible | (target_lengths == 0),
    )


def contrastive_loss(
    context: Tensor,
    positives: Tensor,
    candidates: Tensor,
    is_target: Tensor,
    negative_indices: Tensor,
    *,
    temperature: float,
    codes: Tensor | None = None,
    candidate_codes: Tensor | None = None,
    exclude_equal: bool = False,
    weights: Tensor | None = None,
) -> ContrastiveLoss:
    """Tell each target frame's quantized latent from those of other frames by its context.

    The cosines between a context and every candidate of its utterance are one matrix product; the negatives
    are picked from that table, so that no (M, K, H) tensor is built.

    Args:
        context: (B, T, H) encoder outputs.
        positives: (M, H) quantized and projected latents of the targets, in the order of
            `is_target.nonzero()`.
        candidates: (B, T, H) quantized and projected latents that negatives point into.
        is_target: (B, T) boolean, True at the frames that count.
        negative_indices: (B, T, K) indices into the flattened (B * T) candidates, each within its own
            utterance, or `NO_NEGATIVE`.
        temperature: Divisor of the cosines.
        codes: (M, G) code indices of `positives`; needed for `exclude_equal` and `num_equal`.
        candidate_codes: (B, T, G) code indices of `candidates`.
        exclude_equal: Leave out negatives with the codes of their positive.
        weights: (B,) weight of each utterance in `sum`; None: all 1.

    Returns:
        The sum and its parts; zeros where there is no target.

    Raises:
        ValueError: If a negative of a target lies in another utterance.

    Source:
        arXiv:2006.11477, equation 3; arXiv:2101.07597, equation 3.
    """
    _, T, _ = context.shape
    row, frame = is_target.nonzero(as_tuple=True)
    indices = negative_indices[row, frame]  # (M, K)
    is_missing = indices == NO_NEGATIVE
    local = (indices - row[:, None] * T).masked_fill(is_missing, 0)
    if bool(((local < 0) | (local >= T)).any()):
        raise ValueError(
            "`sampled_negative_indices` must stay within the utterance of their target, but cross into "
            f"another; indices of row b lie in [b * {T}, (b + 1) * {T})."
        )
    unit_context = F.normalize(_wide(context), dim=-1, eps=1e-8)
    unit_candidates = F.normalize(_wide(candidates), dim=-1, eps=1e-8)
    cosines = torch.bmm(unit_context, unit_candidates.transpose(1, 2))[row, frame]  # (M, T)
    negative = cosines.gather(1, local)  # (M, K)
    unit_positives = F.normalize(_wide(positives), dim=-1, eps=1e-8)
    positive = (unit_context[row, frame] * unit_positives).sum(dim=-1, keepdim=True)  # (M, 1)

    is_equal = torch.zeros_like(is_missing)
    if codes is not None and candidate_codes is not None:
        there = candidate_codes[row[:, None], local]  # (M, K, G)
        is_equal = (there == codes[:, None]).all(dim=-1) & ~is_missing
    left_out = is_missing | is_equal if exclude_equal else is_missing
    negative = negative.masked_fill(left_out, float("-inf"))
    logits = torch.cat([positive, negative], dim=1) / temperature
    losses = torch.logsumexp(logits, dim=1) - logits[:, 0]
    weighted = losses if weights is None else losses * weights[row]
    hardest = negative.detach().amax(dim=1, keepdim=True)
    return ContrastiveLoss(
        per_target=losses,
        sum=weighted.sum(),
        count=torch.as_tensor(row.numel(), device=context.device),
        num_correct=(positive.detach() > hardest).sum(),
        num_equal=is_equal.sum(),
        num_negatives=(~is_missing).sum(),
    )


def perplexity(distribution: Tensor) -> Tensor:
    """Effective number of entries in use, summed over codebooks.

    Args:
        distribution: (G, V) mean probabilities; each row sums to 1.

    Returns:
        Scalar in [G, G * V].

    Source:
        arXiv:2006.11477, equation 4; the constant 1e-7 of the original code.
    """
    entropy = -(distribution * torch.log(distribution + 1e-7)).sum(dim=-1)
    return entropy.exp().sum()


def diversity_loss(prob_perplexity: Tensor, num_entries: int) -> Tensor:
    """The share of codebook entries that are not in use.

    Args:
        prob_perplexity: Scalar perplexity of the mean softmax over target frames, summed over codebooks.
        num_entries: G * V.

    Returns:
        Scalar in [0, 1), for one frame; multiply by the number of target frames for the sum.

    Source:
        arXiv:2101.07597, equation 4; the original's (G V - perplexity) / (G V).
    """
    return (num_entries - prob_perplexity) / num_entries
