"""What a pre-training pass gives, and what chance decides in it.

Shapes in this file: B batch, T frames, H hidden, A heads, K negatives, G codebooks, V entries, N phone
classes, M target frames of the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class UniSpeechForPreTrainingOutput(ModelOutput):
    """What a pre-training pass gives: transformers' fields, then ours; losses are sums in nats."""

    loss: Tensor | None = None
    """Scalar: `ctc_weight` * CTC + (1 - `ctc_weight`) * contrastive part over labelled rows, plus the whole
    contrastive part over rows without labels; the contrastive part is contrastive + weight * diversity (+
    weight * penalty). To train, divide by `num_targets` counted over the whole update."""
    projected_states: Tensor | None = None
    """(B, T, H) context."""
    projected_quantized_states: Tensor | None = None
    """(B, T, H) quantized latents behind both projections."""
    codevector_perplexity: Tensor | None = None
    """Scalar perplexity over valid frames: of the softmax in training, of the chosen codes in evaluation."""
    hidden_states: tuple[Tensor, ...] | None = None
    """The num_layers + 1 states (B, T, H), where asked for."""
    attentions: tuple[Tensor, ...] | None = None
    """The attention maps (B, A, T, T), where asked for."""
    contrastive_loss: Tensor | None = None
    """Scalar sum over target frames, each row with weight 1."""
    diversity_loss: Tensor | None = None
    """Scalar: share of unused entries times `num_targets`, without its weight."""
    ctc_loss: Tensor | None = None
    """Scalar sum over labelled rows; None without labels."""
    ctc_logits: Tensor | None = None
    """(B, T, N) phone scores of the context, partly replaced by quantized latents."""
    contrastive_accuracy: Tensor | None = None
    """Scalar share of targets that are nearest to their own latent; 0 without targets."""
    num_targets: Tensor | None = None
    """Scalar: target frames M, the count of the contrastive sum."""
    num_labelled: Tensor | None = None
    """Scalar: rows with a transcript, the count of the CTC sum; None without labels."""
    code_perplexity: Tensor | None = None
    """Scalar perplexity of the codes with the best scores, without noise, at target frames, in [G, G V]."""
    prob_perplexity: Tensor | None = None
    """Scalar perplexity of the mean softmax at target frames, in [G, G V]."""
    code_counts: Tensor | None = None
    """(G, V) how often each code had the best score, without noise, at target frames."""
    feature_penalty: Tensor | None = None
    """Scalar mean square of the convolutions' output, padding included, times `num_targets`, without its
    weight."""
    equal_negatives: Tensor | None = None
    """Scalar share of negatives that carry the codes of their positive."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What chance decides in a pass: given, or None where it is still to be drawn from the generator."""

    time_mask: Tensor | None
    """(B, T) masked frames; None: nothing is masked."""
    targets: Tensor | None
    """(B, T) frames of the contrastive task."""
    negatives: Tensor | None
    """(B, T, K) indices into the flattened (B * T) frames."""
    replacement: Tensor | None
    """(B, T) frames whose context the CTC head does not see."""
    target_noise: Tensor | None
    """(B, T, G, V) Gumbel noise of the targets' codes."""
    frame_noise: Tensor | None
    """(B, T, G, V) Gumbel noise of all frames' codes."""
    generator: torch.Generator | None
    """Source of the rest."""
