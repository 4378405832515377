"""Latent frames -> context: the Transformer with its convolutional position.

Shapes in this file: B batch, T frames, H hidden, A heads, D = H / A.
"""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from unispeech.configuration import UniSpeechConfig
from unispeech.models.dropout import (
    Dropout,
    DroppedAttention,
    GeluDropoutLinear,
    draw_kept,
    draws_here,
    is_eager_cpu,
    rounded,
)


class WeightNormParameters(nn.Module):
    """The magnitude and the direction of a weight-normed kernel, under the names that checkpoints use.

    `original0` is the magnitude g, (1, 1, K): one number per kernel position. `original1` is the direction v,
    (H, H / groups, K). The weight is g * v / |v|, the norm taken over the first two axes.

    Args:
        out_channels: H.
        in_channels: H / groups.
        kernel_size: K.
        init_std: Standard deviation of the initial weight.

    Source:
        Salimans and Kingma 2016 (arXiv:1602.07868). Our own module because torch's parametrisation cannot be
        pickled and hides the weight from initialisers.
    """

    def __init__(self, out_channels: int, in_channels: int, kernel_size: int, *, init_std: float) -> None:
        super().__init__()
        self.init_std = init_std
        self.original0 = nn.Parameter(torch.ones(1, 1, kernel_size))
        self.original1 = nn.Parameter(torch.ones(out_channels, in_channels, kernel_size))

    def weight(self) -> Tensor:
        """The (H, H / groups, K) kernel."""
        return torch._weight_norm(self.original1, self.original0, dim=2)

    @torch.no_grad()
    def reset_parameters(self, *, keep_magnitude: bool = False, keep_direction: bool = False) -> None:
        """Draw the kernel from N(0, init_std): the direction is drawn, the magnitude is its norm."""
        if not keep_direction:
            self.original1.normal_(0.0, self.init_std)
        if not keep_magnitude:
            self.original0.copy_(self.original1.norm(dim=(0, 1), keepdim=True))


class WeightNormConv(nn.Module):
    """A grouped, padded, weight-normed convolution over time.

    Args:
        channels: H, in and out.
        kernel_size: K, in frames.
        groups: Groups of channels.
    """

    def __init__(self, channels: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.kernel_size, self.groups = kernel_size, groups
        self.bias = nn.Parameter(torch.zeros(channels))
        self.parametrizations = nn.ModuleDict({
            "weight": WeightNormParameters(
                channels, channels // groups, kernel_size, init_std=(4 / (kernel_size * channels)) ** 0.5
            )
        })

    @property
    def weight(self) -> Tensor:
        """The (H, H / groups, K) kernel, computed."""
        parameters: WeightNormParameters = self.parametrizations["weight"]  # type: ignore[assignment]
        return parameters.weight()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, H, T) -> (B, H, T + 1 - K mod 2)."""
        return F.conv1d(x, self.weight, self.bias, padding=self.kernel_size // 2, groups=self.groups)


class PositionalConvEmbedding(nn.Module):
    """Relative position by a wide convolution: conv -> cut to T -> activation.

    Args:
        hidden_size: H.
        kernel_size: Width in frames; an even width yields one frame too many, which is cut.
        groups: Groups of channels.
        activation: A name that transformers knows.

    Source:
        arXiv:2006.11477, section 2; initial weights N(0, 4 / (K H)), bias 0.
    """

    def __init__(self, hidden_size: int, kernel_size: int, groups: int, activation: str) -> None:
        super().__init__()
        self.conv = WeightNormConv(hidden_size, kernel_size, groups)
        self.activation = ACT2FN[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Embed position.

        Args:
            x: (B, T, H), zero at padding.

        Returns:
            (B, T, H).
        """
        position = self.conv(x.transpose(1, 2))[..., : x.shape[1]]
        embedded: Tensor = self.activation(position).transpose(1, 2)
        return embedded


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
        attention_mask: Boolean, broadcast to (B, A, T, T), True at keys that count; None: all do.
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
        self.intermediate_dense = nn.Linear(hidden_size, intermediate_size)
        self.intermediate_act_fn = ACT2FN[activation]
        self.intermediate_dropout = Dropout(activation_dropout)
        self.output_dense = nn.Linear(intermediate_size, hidden_size)
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
        return type(self.output_dense) is nn.Linear and is_eager_cpu(x) and (prob == 0 or draws_here(x, prob))

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
