"""Latent frames -> context: the Transformer with its convolutional position.

Shapes in this file: B batch, T frames, H hidden, A heads.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from unispeech.configuration import UniSpeechConfig
from unispeech.models.attention import SelfAttention
from unispeech.models.dropout import (
    Dropout,
    GeluDropoutLinear,
    draw_kept,
    draws_here,
    rounded,
)
from unispeech.models.matrices import Linear
from unispeech.models.position import PositionalConvEmbedding
from unispeech.models.processor import is_eager_cpu


class FeedForward(nn.Module):
    """Linear -> activation -> dropout -> Linear -> dropout.

    Args:
        hidden_size: H.
        intermediate_size: Inner width.
        activation: A name that transformers knows.
        activation_dropout: Dropout after the activation.
        hidden_dropout: Dropout on the result.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        *,
        activation_dropout: float,
        hidden_dropout: float,
    ) -> None:
        super().__init__()
        self.has_gelu = activation == "gelu"
        self.intermediate_dense = Linear(hidden_size, intermediate_size)
        self.intermediate_act_fn = ACT2FN[activation]
        self.intermediate_dropout = Dropout(activation_dropout)
        self.output_dense = Linear(intermediate_size, hidden_size)
        self.output_dropout = Dropout(hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, H) -> (B, T, H), every frame by itself."""
        x = self.intermediate_dense(x)
        if self.training and self.has_gelu and self._is_plain(x):
            x = self._train(x)
        else:
            x = self.output_dense(self.intermediate_dropout(self.intermediate_act_fn(x)))
        transformed: Tensor = self.output_dropout(x)
        return transformed

    def _is_plain(self, x: Tensor) -> bool:
        """Whether nothing stands in for the dropout or the second layer, such as a product of low rank."""
        prob = self.intermediate_dropout.p
        return type(self.output_dense) is Linear and is_eager_cpu(x) and (prob == 0 or draws_here(x, prob))

    def _train(self, x: Tensor) -> Tensor:
        """Activation, dropout and second layer, with little kept for the way back."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        weight, bias = self.output_dense.weight.to(dtype), self.output_dense.bias.to(dtype)
        prob = self.intermediate_dropout.p
        is_dropped = draws_here(x, prob)
        kept = draw_kept(tuple(x.shape), prob).flatten(0, 1) if is_dropped else None
        factor = 1 / (1 - rounded(prob)) if is_dropped else 1.0
        transformed: Tensor = GeluDropoutLinear.apply(x.flatten(0, 1), kept, factor, weight, bias)
        return transformed.view(*x.shape[:-1], -1)


class AttnAdapterLayer(nn.Module):
    """The per-language part of a layer, LayerNorm -> Linear -> ReLU -> Linear, which the layer adds on.

    Args:
        hidden_size: H.
        adapter_dim: Inner width.

    Source:
        Pratap et al. 2023 (MMS, arXiv:2305.13516), section 5.1; parameter names of transformers.
    """

    def __init__(self, hidden_size: int, adapter_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.linear_1 = nn.Linear(hidden_size, adapter_dim)
        self.act_fn = nn.ReLU()
        self.linear_2 = nn.Linear(adapter_dim, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, H) -> (B, T, H), without the residual."""
        adapted: Tensor = self.linear_2(self.act_fn(self.linear_1(self.norm(x))))
        return adapted


class UniSpeechEncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward with residuals, the norms before (large) or after them (base).

    Args:
        config: Sizes, dropouts, `do_stable_layer_norm`, `adapter_attn_dim`.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.norm_first = config.do_stable_layer_norm
        self.attention = SelfAttention(
            config, config.hidden_size, config.num_attention_heads, config.attention_dropout
        )
        self.dropout = Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            activation_dropout=config.activation_dropout,
            hidden_dropout=config.hidden_dropout,
        )
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.adapter_layer = (
            None
            if config.adapter_attn_dim is None
            else AttnAdapterLayer(config.hidden_size, config.adapter_attn_dim)
        )

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        is_kept: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """One layer.

        Args:
            x: (B, T, H).
            attention_mask: In the form that the attention engine wants.
            output_attentions: Whether the attention map is wanted.
            is_kept: False where LayerDrop leaves the layer out: it hands `x` on, and its parameters take part
                with gradient 0.

        Returns:
            The (B, T, H) result and the attention map or None.
        """
        if not is_kept:
            # In here and not around the layer: sharded parameters are whole only while their layer runs.
            return x + 0.0 * sum(parameter.sum() for parameter in self.parameters()), None
        attended, attention_map = self.attention(
            self.layer_norm(x) if self.norm_first else x, attention_mask, output_attentions
        )
        x = x + self.dropout(attended)
        if self.norm_first:
            x = x + self.feed_forward(self.final_layer_norm(x))
        else:
            x = self.layer_norm(x)
            x = self.final_layer_norm(x + self.feed_forward(x))
        if self.adapter_layer is not None:
            x = x + self.adapter_layer(x)
        return x, attention_map


class Encoder(nn.Module):
    """Position, dropout and the stack of layers.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.norm_first = config.do_stable_layer_norm
        self.pos_conv_embed = PositionalConvEmbedding(
            config.hidden_size,
            config.num_conv_pos_embeddings,
            config.num_conv_pos_embedding_groups,
            config.feat_extract_activation,
        )
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.num_heads = config.num_attention_heads
        self.layers = nn.ModuleList(UniSpeechEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        x: Tensor,
        is_padding: Tensor | None = None,
        *,
        is_kept: Tensor | None = None,
        keep_hidden_states: Collection[int] | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor | None, ...] | None, tuple[Tensor, ...] | None]:
        """Encode a batch.

        A layer that LayerDrop leaves out hands its input on: the tuples keep their length, its attention map
        is zero, and its parameters take part with gradient 0, so that distributed training sees every
        parameter in every step.

        Args:
            x: (B, T, H) projected latents.
            is_padding: (B, T) boolean, True at padding; None: none is.
            is_kept: (num_layers,) boolean on the CPU, False for the layers left out in this pass; None: all
                kept.
            keep_hidden_states: Which of the num_layers + 1 states to return; None: no states at all.
            output_attentions: Whether to return the attention maps.

        Returns:
            The (B, T, H) context; the states (input of the first layer, then each layer's output; before the
            final norm of norm-first models; None where not kept) or None; the (B, A, T, T) maps or None.
        """
        if is_padding is not None:
            x = x.masked_fill(is_padding[..., None], 0.0)
        x = x + self.pos_conv_embed(x)
        if not self.norm_first:
            x = self.layer_norm(x)
        x = self.dropout(x)
        attention_mask = self._attention_mask(x, is_padding, output_attentions)
        kept = [True] * len(self.layers) if is_kept is None else is_kept.tolist()
        states: list[Tensor | None] = [x if keep_hidden_states and 0 in keep_hidden_states else None]
        maps: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            x, attention_map = layer(x, attention_mask, output_attentions, kept[number])
            if output_attentions:
                empty = (x.shape[0], self.num_heads, x.shape[1], x.shape[1])
                maps.append(x.new_zeros(empty) if attention_map is None else attention_map)
            states.append(x if keep_hidden_states and number + 1 in keep_hidden_states else None)
        if self.norm_first:
            x = self.layer_norm(x)
        return (
            x,
            tuple(states) if keep_hidden_states is not None else None,
            tuple(maps) if output_attentions else None,
        )

    def _attention_mask(self, x: Tensor, is_padding: Tensor | None, eager: bool) -> Tensor | None:
        """The mask of padded keys in the form that the attention engine wants."""
        if is_padding is None:
            return None
        is_masked = is_padding.clone()
        # An utterance without a single frame may look at its first: a softmax over nothing is not a number.
        is_masked[:, 0] &= ~is_padding.all(dim=1)
        if eager or self.config._attn_implementation == "eager":
            return torch.zeros_like(is_masked, dtype=x.dtype).masked_fill(
                is_masked, torch.finfo(x.dtype).min
            )[:, None, None]
        mask: Tensor | None = create_bidirectional_mask(self.config, x, ~is_masked)
        return mask
