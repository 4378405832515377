"""A recogniser as a graph, described once for all engines that run graphs.

The description follows the modules of `unispeech.models` part by part and knows nothing of any engine: an
engine brings an `ops.Ops`, which makes nodes. Products may be narrowed to 8 bits: their inputs then pass
through `NarrowOps.narrow`, their weights through `NarrowOps.narrow_weight`. Channels come last everywhere:
convolutions are matrix products of views, which engines run faster than convolutions of 8 bits.

Shapes in this file: B batch, S samples, T frames, C channels, H hidden, A heads, D = H / A, K kernel of the
first convolution, N vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Generic

import numpy as np

from unispeech.engines.narrowing import Array, Limits, narrowed
from unispeech.engines.ops import ACTIVATIONS, Narrowing, Node, Ops

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = 4
"""Raised whenever the same weights would give another graph: engines in caches are then made anew."""

CONV_EPS = 1e-5
"""Added to the variances in the norms of the convolutions."""

MASKED = -1e9
"""Added to the attention scores of padding."""


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """A CTC model in numpy: what a graph is made of."""

    weights: Mapping[str, Array]
    """The weights by transformers' names."""
    kernels: tuple[int, ...]
    """Kernel size of each convolution."""
    strides: tuple[int, ...]
    """Stride of each convolution."""
    has_group_norm: bool
    """Whether the first convolution is normalised over time, instead of all over channels."""
    conv_activation: str
    """A value of `ACTIVATIONS`."""
    hidden_activation: str
    """A value of `ACTIVATIONS`."""
    norm_first: bool
    """Whether layers normalise before attention and feed-forward."""
    eps: float
    """Added to variances in layer norms, those of the convolutions excepted."""
    num_layers: int
    """Transformer layers."""
    num_heads: int
    """A."""
    num_position_groups: int
    """Groups of the positional convolution."""
    num_symbols: int
    """N."""
    blank: int | None
    """The class that is the CTC blank."""


def recogniser_of(model: "PreTrainedModel") -> Recogniser:
    """Take a model apart.

    Args:
        model: A CTC model of this package or of transformers.

    Returns:
        Its weights and what is to be known of its configuration.

    Raises:
        ValueError: If an activation is none that a graph can have.
    """
    config = model.config
    for field in ("feat_extract_activation", "hidden_act"):
        if getattr(config, field) not in ACTIVATIONS:
            raise ValueError(
                f"`{field}` must be one of {', '.join(ACTIVATIONS)} for openvino and onnxruntime, but is "
                f"{getattr(config, field)!r}; run it by engine torch."
            )
    weights = {name: value.detach().float().cpu().numpy() for name, value in model.state_dict().items()}
    return Recogniser(
        weights=weights,
        kernels=tuple(config.conv_kernel),
        strides=tuple(config.conv_stride),
        has_group_norm=config.feat_extract_norm == "group",
        conv_activation=ACTIVATIONS[config.feat_extract_activation],
        hidden_activation=ACTIVATIONS[config.hidden_act],
        norm_first=config.do_stable_layer_norm,
        eps=config.layer_norm_eps,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_position_groups=config.num_conv_pos_embedding_groups,
        num_symbols=config.vocab_size,
        blank=config.pad_token_id,
    )


class Draft(Generic[Node]):
    """Draws a recogniser.

    Args:
        ops: Makes the nodes.
        recogniser: What to draw.
        narrowing: What is narrowed to 8 bits; None: nothing.
    """

    def __init__(
        self, ops: Ops[Node], recogniser: Recogniser, narrowing: Narrowing[Node] | None = None
    ) -> None:
        self.ops, self.recogniser, self.narrowing = ops, recogniser, narrowing
        self.limits: Mapping[str, Limits] = {} if narrowing is None else narrowing.limits
        self.places: dict[str, Node] = {}
        """Name of each place that can be narrowed -> the node that products take there."""

    def log_probs(self, waveforms: Node, lengths: Node, moments: tuple[Node, Node] | None) -> Node:
        """Draw the whole.

        Args:
            waveforms: (B, S) float32.
            lengths: (B,) int64 samples of each row.
            moments: Mean (B, K) and spread (B, K, K) of the windows of each utterance, a matrix whose product
                with its transpose is their covariance; None for models without group norm, and where all
                rows are utterances without padding.

        Returns:
            (B, T, N) log-probabilities.
        """
        ops = self.ops
        is_group = self.recogniser.has_group_norm
        latents = self._normalised(waveforms, moments) if is_group else self._convolved(waveforms)
        latents = self._norm("feature_projection.layer_norm", latents)
        x = self._linear("feature_projection.projection", latents, "projection")
        is_valid = ops.is_within(x, self._num_frames(lengths))
        x = ops.multiply(x, is_valid)
        x = ops.add(x, self._position(x))
        if not self.recogniser.norm_first:
            x = self._norm("encoder.layer_norm", x)
        one, masked = (ops.constant(np.full(1, value, np.float32)) for value in (1.0, MASKED))
        penalty = ops.multiply(ops.subtract(one, is_valid), masked)
        mask = ops.expand(ops.transpose(penalty, (0, 2, 1)), 1)  # (B, T, 1) -> (B, 1, 1, T)
        for number in range(self.recogniser.num_layers):
            x = self._layer(f"encoder.layers.{number}", x, mask)
        if self.recogniser.norm_first:
            x = self._norm("encoder.layer_norm", x)
        return ops.log_softmax(self._linear("lm_head", x, "head"))

    def _num_frames(self, lengths: Node) -> Node:
        """(B,) samples -> frames, as `frames.num_frames` counts them."""
        for kernel, stride in zip(self.recogniser.kernels, self.recogniser.strides, strict=True):
            lengths = self.ops.add(lengths, self.ops.constant(np.array([stride - kernel], np.int64)))
            lengths = self.ops.floor_divide(self.ops.clamp(lengths), stride)
        return lengths

    def _normalised(self, waveforms: Node, moments: tuple[Node, Node] | None) -> Node:
        """The convolutions of models with group norm: (B, S) -> (B, T, C)."""
        recogniser = self.recogniser
        x = self._first(waveforms, moments)
        for number in range(1, len(recogniser.kernels)):
            x = self.ops.activate(self._taps(number, x), recogniser.conv_activation)
        return x

    def _first(self, waveforms: Node, moments: tuple[Node, Node] | None) -> Node:
        """The first convolution with its group norm: (B, S) -> (B, T, C)."""
        ops, name = self.ops, "feature_extractor.conv_layers.0"
        kernels = self._weight(f"{name}.conv.weight")  # (C, 1, K)
        gain, offset = (self._weight(f"{name}.layer_norm.{part}") for part in ("weight", "bias"))
        if moments is None:
            x = self._windows(waveforms, kernels)
            x = ops.multiply(ops.normalise(x, CONV_EPS), ops.constant(gain[:, None]))
            x = ops.transpose(ops.add(x, ops.constant(offset[:, None])), (0, 2, 1))
        else:
            # Kernels that differ with each utterance: a product of the windows, which a one ends.
            size = kernels.shape[2]
            ends = np.eye(size + 1, dtype=np.float32)[:, -1:]  # (K + 1, 1)
            windows = self._windows(waveforms, np.eye(size + 1, size, dtype=np.float32)[:, None])
            windows = ops.transpose(ops.add(windows, ops.constant(ends)), (0, 2, 1))  # (B, T, K + 1)
            scale, shift = self._scale_and_shift(kernels[:, 0], gain, offset, moments)
            taps = ops.constant(np.append(kernels[:, 0].T, np.zeros((1, len(kernels)), np.float32), axis=0))
            matrix = ops.multiply(taps, ops.expand(scale, 1))  # (B, K + 1, C)
            matrix = ops.add(matrix, ops.multiply(ops.constant(ends), ops.expand(shift, 1)))
            x = ops.matmul(windows, matrix)
        return ops.activate(x, self.recogniser.conv_activation)

    def _windows(self, waveforms: Node, kernels: Array) -> Node:
        """What kernels (C, 1, K) make of the samples at the stride of the first convolution: -> (B, C, T)."""
        x = self.ops.expand(waveforms, 1)
        return self.ops.convolve(x, self.ops.constant(kernels), kernels.shape, self.recogniser.strides[0])

    def _scale_and_shift(
        self, weight: Array, gain: Array, offset: Array, moments: tuple[Node, Node]
    ) -> tuple[Node, Node]:
        """Group norm as a scale and a shift of each channel, (B, C), from its kernels (C, K).

        The mean of a channel is w . mean, its variance |w' spread|^2. w' Cov w, as
        `models.features.WaveformGroupNorm` has it, is the same in float64; in float32 nothing is left of it
        for speech without high frequencies.
        """
        ops, node, (mean, spread) = self.ops, self.ops.constant(weight), moments
        spread = ops.matmul(node, spread)  # (B, C, K)
        variance = ops.total(ops.multiply(spread, spread))  # (B, C)
        variance = ops.add(variance, ops.constant(np.full(1, CONV_EPS, np.float32)))
        scale = ops.multiply(ops.inverse_root(variance), ops.constant(gain))
        middle = ops.multiply(ops.matmul(mean, node, transpose=True), scale)
        return scale, ops.subtract(ops.constant(offset), middle)

    def _convolved(self, waveforms: Node) -> Node:
        """The convolutions of models with layer norm: (B, S) -> (B, T, C)."""
        ops, recogniser = self.ops, self.recogniser
        x = waveforms
        for number in range(len(recogniser.kernels)):
            name = f"feature_extractor.conv_layers.{number}"
            if number == 0:
                x = ops.transpose(self._windows(x, self._weight(f"{name}.conv.weight")), (0, 2, 1))
                x = self._biased(f"{name}.conv", x, (-1,))
            else:
                x = self._taps(number, x)
            x = ops.activate(self._norm(f"{name}.layer_norm", x, eps=CONV_EPS), recogniser.conv_activation)
        return x

    def _taps(self, number: int, x: Node) -> Node:
        """A strided convolution of (B, T, C) as products, with its bias.

        Of 8 bits it is one product, since views of bytes are joined in no time; else one for each `stride`
        taps and one for each of the rest.
        """
        ops, place, stride = self.ops, f"conv.{number}", self.recogniser.strides[number]
        name = f"feature_extractor.conv_layers.{number}.conv"
        weight = self._weight(f"{name}.weight")
        kernel = weight.shape[2]
        x, make = self._input(place, x)
        taps_first = weight.transpose(0, 2, 1)  # (C_out, K, C_in)
        num_whole = kernel // stride * stride
        starts = [(first, stride) for first in range(0, num_whole, stride)]
        starts += [(first, 1) for first in range(num_whole, kernel)]
        views = [ops.frames(x, first, count, kernel, stride) for first, count in starts]
        if place in self.limits:
            matrix = taps_first.reshape(len(weight), -1)
            y = ops.matmul(ops.concatenate(views), make(matrix), transpose=True)
            return self._biased(name, y, (-1,), self._error(matrix, place))
        products = []
        for view, (first, count) in zip(views, starts, strict=True):
            matrix = taps_first[:, first : first + count].reshape(len(weight), -1)
            products.append(ops.matmul(view, make(np.ascontiguousarray(matrix)), transpose=True))
        return self._biased(name, reduce(ops.add, products), (-1,))

    def _error(self, matrix: Array, place: str) -> Array | None:
        """What a product with (C_out, C_in) is off by on average where the place is narrow: (C_out,)."""
        limits = self.limits.get(place)
        if limits is None or limits.means is None:
            return None
        before, after = (np.resize(mean, matrix.shape[1]) for mean in limits.means)
        levels, step = narrowed(_scaled(matrix, limits))
        error: Array = (levels * step) @ after - matrix @ before
        return error

    def _position(self, x: Node) -> Node:
        """The positional convolution: (B, T, H) -> (B, T, H)."""
        ops, name = self.ops, "encoder.pos_conv_embed.conv"
        magnitude, direction = (
            self._weight(f"{name}.parametrizations.weight.original{number}") for number in (0, 1)
        )
        kernels = magnitude * direction / np.sqrt((direction**2).sum(axis=(0, 1), keepdims=True))
        # An even kernel would yield one frame too many, the last: it is not padded for.
        pads = (kernels.shape[2] // 2, (kernels.shape[2] - 1) // 2)
        x, make = self._input("position", x)
        x = ops.transpose(x, (0, 2, 1))
        x = ops.convolve(x, make(kernels), kernels.shape, 1, pads, self.recogniser.num_position_groups)
        x = ops.activate(self._biased(name, x, (-1, 1)), self.recogniser.conv_activation)
        return ops.transpose(x, (0, 2, 1))

    def _layer(self, name: str, x: Node, mask: Node) -> Node:
        """One layer of the Transformer."""
        ops, norm_first = self.ops, self.recogniser.norm_first
        attended = self._norm(f"{name}.layer_norm", x) if norm_first else x
        x = ops.add(x, self._attention(f"{name}.attention", attended, mask))
        if norm_first:
            fed = self._norm(f"{name}.final_layer_norm", x)
            x = ops.add(x, self._feed_forward(f"{name}.feed_forward", fed))
        else:
            x = self._norm(f"{name}.layer_norm", x)
            x = ops.add(x, self._feed_forward(f"{name}.feed_forward", x))
            x = self._norm(f"{name}.final_layer_norm", x)
        if f"unispeech.{name}.adapter_layer.norm.weight" in self.recogniser.weights:
            x = ops.add(x, self._adapter(f"{name}.adapter_layer", x))
        return x

    def _attention(self, name: str, x: Node, mask: Node) -> Node:
        """Self-attention with its projections."""
        ops, num_heads = self.ops, self.recogniser.num_heads
        query, key, value = (self._linear(f"{name}.{part}_proj", x, f"{name}.in") for part in "qkv")
        # The weights that attention gives stay wide: most are below any level.
        query, key = self._input(f"{name}.query", query)[0], self._input(f"{name}.key", key)[0]
        query, key, value = (ops.split_heads(part, num_heads) for part in (query, key, value))
        mixed = ops.join_heads(ops.attend(query, key, value, mask))
        return self._linear(f"{name}.out_proj", mixed, f"{name}.out")

    def _feed_forward(self, name: str, x: Node) -> Node:
        """Two linear maps with an activation between."""
        inner = self._linear(f"{name}.intermediate_dense", x, f"{name}.in")
        inner = self.ops.activate(inner, self.recogniser.hidden_activation)
        return self._linear(f"{name}.output_dense", inner, f"{name}.out")

    def _adapter(self, name: str, x: Node) -> Node:
        """The per-language part of a layer, without the residual."""
        inner = self._linear(f"{name}.linear_1", self._norm(f"{name}.norm", x), f"{name}.in")
        return self._linear(f"{name}.linear_2", self.ops.activate(inner, "relu"), f"{name}.out")

    def _linear(self, name: str, x: Node, place: str) -> Node:
        """A linear map of the last axis."""
        x, make = self._input(place, x)
        weight = self._weight(f"{name}.weight")
        y = self.ops.matmul(x, make(weight), transpose=True)
        return self._biased(name, y, (-1,), self._error(weight, place))

    def _biased(self, name: str, x: Node, shape: tuple[int, ...], error: Array | None = None) -> Node:
        """Add a bias, where there is one, less an error, where there is one."""
        bias = self._weight(f"{name}.bias") if self._has(f"{name}.bias") else None
        if error is not None:
            bias = -error if bias is None else bias - error
        if bias is None:
            return x
        return self.ops.add(x, self.ops.constant(bias.astype(np.float32).reshape(shape)))

    def _norm(self, name: str, x: Node, eps: float | None = None) -> Node:
        """Layer norm."""
        ops = self.ops
        x = ops.normalise(x, self.recogniser.eps if eps is None else eps)
        x = ops.multiply(x, ops.constant(self._weight(f"{name}.weight")))
        return ops.add(x, ops.constant(self._weight(f"{name}.bias")))

    def _input(self, place: str, x: Node) -> tuple[Node, Callable[[Array], Node]]:
        """What comes to products, and what makes their weights: both of 8 bits where the place is narrow."""
        if self.narrowing is None or place not in self.limits:
            self.places[place] = x
            return x, self.ops.constant
        ops, limits = self.narrowing.ops, self.limits[place]
        if place not in self.places:  # query, key and value have one input
            is_apart = place == "conv.1" and self.recogniser.has_group_norm
            self.places[place] = ops.narrow(x, limits, is_apart=is_apart)
        return self.places[place], lambda weight: ops.narrow_weight(_scaled(weight, limits))

    def _has(self, name: str) -> bool:
        """Whether there is such a weight."""
        return self._full(name) in self.recogniser.weights

    def _weight(self, name: str) -> Array:
        """A weight by its name below the bare model."""
        return self.recogniser.weights[self._full(name)]

    def _full(self, name: str) -> str:
        """The name as a recogniser has it."""
        return name if name.startswith("lm_head") else f"unispeech.{name}"


def _scaled(weight: Array, limits: Limits) -> Array:
    """Multiply the second axis of a weight, which channels repeat along, with their scale."""
    return weight if limits.scale is None else weight * np.resize(limits.scale, weight.shape[1])
