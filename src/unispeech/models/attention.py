"""Self-attention over transformers' attention interface.

Shapes in this file: B batch, T frames, H hidden, A heads, D = H / A.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from unispeech.models.dropout import DroppedAttention, draw_kept, draws_here, rounded
from unispeech.models.matrices import Linear
from unispeech.models.processor import is_eager_cpu


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Attention written out, the one that can give its map.

    Args:
        module: The attention layer; tells training from evaluation.
        query: (B, A, T, D).
        key: (B, A, T, D).
        value: (B, A, T, D).
        attention_mask: Added to the scores, broadcast to (B, A, T, T); None: nothing.
        scaling: Factor on the scores.
        dropout: Chance that a probability is dropped in training.
        kwargs: What other attention functions take; unused.

    Returns:
        The (B, T, A, D) mixture and the (B, A, T, T) probabilities before dropout.
    """
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    # Softmax in float32: 16 bits would lose the small probabilities of long utterances.
    probs = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = F.dropout(probs, dropout, training=module.training) @ value
    return mixed.transpose(1, 2).contiguous(), probs


def dropped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float,
) -> tuple[Tensor, None]:
    """Attention with dropout for the CPU, in place of SDPA, which then keeps every table.

    Args:
        module: The attention layer; unused.
        query: (B, A, T, D).
        key: (B, A, T, D).
        value: (B, A, T, D).
        attention_mask: Boolean, broadcast to (B, 1, T, T), True at keys that count; None: all do.
        scaling: Factor on the scores.
        dropout: Chance that a probability is dropped, above 0.

    Returns:
        The (B, T, A, D) mixture, and no map.
    """
    kept = draw_kept((*query.shape[:3], key.shape[2]), dropout)
    factor = 1 / (1 - rounded(dropout))
    return DroppedAttention.apply(query, key, value, attention_mask, kept, scaling, factor), None


MOST_FRAMES = 256
"""Up to here attention in bf16 takes longer than in float32, forward and back: 2.6 times at 75 frames, 1.7
at 150, as long at 250 (one core with AVX512-BF16, heads of 48 and 64, torch 2.13)."""


def is_slow_in_bf16(query: Tensor) -> bool:
    """Whether SDPA in float32 is the faster one: for short utterances in bf16 on a CPU."""
    return query.dtype == torch.bfloat16 and is_eager_cpu(query) and query.shape[2] <= MOST_FRAMES


def float32_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float,
) -> tuple[Tensor, None]:
    """SDPA in float32 for what is learned in bf16 on a CPU, where torch's bf16 takes longer on the way back.

    Args:
        module: The attention layer; unused.
        query: (B, A, T, D).
        key: (B, A, T, D).
        value: (B, A, T, D).
        attention_mask: Boolean, broadcast to (B, 1, T, T), True at keys that count; None: all do.
        scaling: Factor on the scores.
        dropout: Unused: with dropout there is `dropped_attention`.

    Returns:
        The (B, T, A, D) mixture in the dtype of `query`, and no map.
    """
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=attention_mask, scale=scaling
        )
    return mixed.transpose(1, 2).to(query.dtype), None


class SelfAttention(nn.Module):
    """Multi-head self-attention over transformers' attention interface.

    Args:
        config: Read at every call for the engine that `set_attn_implementation` may have changed.
        hidden_size: H.
        num_heads: A; must divide H.
        dropout: Chance that a probability is dropped in training.
    """

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.head_dim = hidden_size // num_heads
        self.num_heads = num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = dropout
        self.is_causal = False
        self.k_proj = Linear(hidden_size, hidden_size)
        self.v_proj = Linear(hidden_size, hidden_size)
        self.q_proj = Linear(hidden_size, hidden_size)
        self.out_proj = Linear(hidden_size, hidden_size)

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: (B, T, H).
            attention_mask: In the form that the engine wants; additive for the eager one.
            output_attentions: Whether the map is wanted; takes the eager path, since no other engine gives
                it.

        Returns:
            The (B, T, H) result and the (B, A, T, T) map or None.
        """
        split = (*x.shape[:-1], -1, self.head_dim)
        query = self.q_proj(x).view(split).transpose(1, 2)  # (B, T, H) -> (B, A, T, D)
        key = self.k_proj(x).view(split).transpose(1, 2)
        value = self.v_proj(x).view(split).transpose(1, 2)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = eager_attention
        if not output_attentions:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
            if self.config._attn_implementation == "sdpa" and self.training:
                if draws_here(x, self.dropout):
                    attend = dropped_attention
                elif self.dropout == 0 and is_slow_in_bf16(query):
                    attend = float32_attention
        mixed, attention_map = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
        )
        mixed = self.out_proj(mixed.reshape(*x.shape[:-1], -1))
        return mixed, attention_map if output_attentions else None
