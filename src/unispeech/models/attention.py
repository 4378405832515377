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
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

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
            is_sdpa = self.config._attn_implementation == "sdpa"
            if is_sdpa and self.training and draws_here(x, self.dropout):
                attend = dropped_attention
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
