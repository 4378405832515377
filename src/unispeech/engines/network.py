"""A recogniser as a graph, described once for all engines that run graphs.

The description follows the modules of `unispeech.models` part by part and knows nothing of any engine: an
engine brings an `Ops`, which makes nodes. Products may be narrowed to 8 bits: their inputs then pass through
`Ops.narrow`, their weights through `Ops.narrow_weight`.

Shapes in this file: B batch, S samples, T frames, C channels, H hidden, A heads, D = H / A, K kernel of the
first convolution, N vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = 2
"""Raised whenever the same weights would give another graph: engines in caches are then made anew."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names of the activations that a graph can have -> their names in `Ops.activate`."""

CONV_EPS = 1e-5
"""Added to the variances in the norms of the convolutions."""

MASKED = -1e9
"""Added to the attention scores of padding."""

Array = npt.NDArray[np.float32]
Node = TypeVar("Node")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How what comes to a place is rounded to 256 levels."""

    low: float
    """The first level."""
    high: float
    """The last level."""
    scale: Array | None = None
    """(C,) what each channel is divided by before, and its weights multiplied with; None: nothing."""


class Ops(Protocol[Node]):
    """Makes the nodes of one engine's graph. Linear maps and constants take numpy arrays."""

    def constant(self, value: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Node:
        """A constant."""
        ...

    def add(self, x: Node, y: Node) -> Node:
        """Sum, broadcast."""
        ...

    def subtract(self, x: Node, y: Node) -> Node:
        """Difference, broadcast."""
        ...

    def multiply(self, x: Node, y: Node) -> Node:
        """Product of elements, broadcast."""
        ...

    def floor_divide(self, x: Node, divisor: int) -> Node:
        """Quotient of non-negative integers, rounded down."""
        ...

    def clamp(self, x: Node) -> Node:
        """Integers below 0 become 0."""
        ...

    def inverse_root(self, x: Node) -> Node:
        """1 / sqrt(x)."""
        ...

    def total(self, x: Node) -> Node:
        """Sum over the last axis, which goes."""
        ...

    def matmul(self, x: Node, y: Node, *, transpose: bool = False) -> Node:
        """Matrix product; `transpose` turns the last two axes of `y`."""
        ...

    def convolve(
        self,
        x: Node,
        weight: Node,
        shape: Sequence[int],
        stride: int,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> Node:
        """Convolve (B, C_in, T) with a weight of `shape` (C_out, C_in / groups, K)."""
        ...

    def transpose(self, x: Node, order: Sequence[int]) -> Node:
        """Reorder axes."""
        ...

    def expand(self, x: Node, axis: int) -> Node:
        """Insert an axis of size 1."""
        ...

    def split_heads(self, x: Node, num_heads: int) -> Node:
        """(B, T, H) -> (B, A, T, D)."""
        ...

    def join_heads(self, x: Node) -> Node:
        """(B, A, T, D) -> (B, T, H)."""
        ...

    def frames(self, x: Node, first: int, count: int, kernel: int, stride: int) -> Node:
        """What `count` taps of a strided convolution see: (B, T, C) -> (B, T_out, count * C).

        `count` is 1 or `stride`; the taps begin at `first`.
        """
        ...

    def normalise(self, x: Node, eps: float) -> Node:
        """Zero mean and unit variance over the last axis."""
        ...

    def activate(self, x: Node, name: str) -> Node:
        """One of the values of `ACTIVATIONS`."""
        ...

    def attend(self, query: Node, key: Node, value: Node, mask: Node) -> Node:
        """Attention over (B, A, T, D), scaled by 1 / sqrt(D); `mask` (B, 1, 1, T) is added to the scores."""
        ...

    def is_within(self, x: Node, lengths: Node) -> Node:
        """(B, T, 1) float32 for x (B, T, C): 1 at frames before the (B,) lengths, 0 behind."""
        ...

    def log_softmax(self, x: Node) -> Node:
        """Over the last axis."""
        ...

    def narrow(self, x: Node, limits: Limits) -> Node:
        """Divide the channels of (B, C, T) by their scale, where there is one, and round to 256 levels."""
        ...

    def narrow_weight(self, weight: Array) -> Node:
        """Round a weight to 255 levels around 0, for each of its first axis by itself."""
        ...


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
        limits: Name of each place that is narrowed to 8 bits -> the values that were seen there; empty: all
            is float32.
    """

    def __init__(self, ops: Ops[Node], recogniser: Recogniser, limits: Mapping[str, Limits]) -> None:
        self.ops, self.recogniser, self.limits = ops, recogniser, limits
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
        ops, recogniser = self.ops, self.recogniser
        x = self._first(waveforms, moments)
        for number in range(1, len(recogniser.kernels)):
            name = f"feature_extractor.conv_layers.{number}.conv"
            kernels = self._weight(f"{name}.weight")
            x, make = self._input(f"conv.{number}", x)
            x = ops.convolve(x, make(kernels), kernels.shape, recogniser.strides[number])
            x = ops.activate(self._biased(name, x, (-1, 1)), recogniser.conv_activation)
        return ops.transpose(x, (0, 2, 1))

    def _first(self, waveforms: Node, moments: tuple[Node, Node] | None) -> Node:
        """The first convolution with its group norm, one scale and one shift a channel: -> (B, C, T).

        The mean of a channel is w . mean, its variance |w' spread|^2. w' Cov w, as
        `models.features.WaveformGroupNorm` has it, is the same in float64; in float32 nothing is left of it
        for speech without high frequencies.
        """
        ops, name = self.ops, "feature_extractor.conv_layers.0"
        kernels = self._weight(f"{name}.conv.weight")  # (C, 1, K)
        gain, offset = (self._weight(f"{name}.layer_norm.{part}") for part in ("weight", "bias"))
        x = ops.expand(waveforms, 1)
        x = ops.convolve(x, ops.constant(kernels), kernels.shape, self.recogniser.strides[0])
        if moments is None:
            x = ops.multiply(ops.normalise(x, CONV_EPS), ops.constant(gain[:, None]))
            return ops.activate(ops.add(x, ops.constant(offset[:, None])), self.recogniser.conv_activation)
        weight, (mean, spread) = ops.constant(kernels[:, 0]), moments
        spread = ops.matmul(weight, spread)  # (B, C, K)
        variance = ops.total(ops.multiply(spread, spread))  # (B, C)
        variance = ops.add(variance, ops.constant(np.full(1, CONV_EPS, np.float32)))
        scale = ops.multiply(ops.inverse_root(variance), ops.constant(gain))
        middle = ops.multiply(ops.matmul(mean, weight, transpose=True), scale)
        shift = ops.subtract(ops.constant(offset), middle)
        x = ops.add(ops.multiply(x, ops.expand(scale, 2)), ops.expand(shift, 2))
        return ops.activate(x, self.recogniser.conv_activation)

    def _convolved(self, waveforms: Node) -> Node:
        """The convolutions of models with layer norm, channels last, which it reads: (B, S) -> (B, T, C)."""
        ops, recogniser = self.ops, self.recogniser
        x = ops.expand(waveforms, 1)
        for number, stride in enumerate(recogniser.strides):
            name = f"feature_extractor.conv_layers.{number}"
            weight = self._weight(f"{name}.conv.weight")
            if number == 0:
                x = ops.convolve(x, ops.constant(weight), weight.shape, stride)
                x = ops.transpose(x, (0, 2, 1))
            else:
                x = self._taps(f"conv.{number}", weight, x, stride)
            x = self._norm(f"{name}.layer_norm", self._biased(f"{name}.conv", x, (-1,)), eps=CONV_EPS)
            x = ops.activate(x, recogniser.conv_activation)
        return x

    def _taps(self, place: str, weight: Array, x: Node, stride: int) -> Node:
        """A strided convolution of (B, T, C): a product for each `stride` taps, the rest tap by tap."""
        ops, kernel = self.ops, weight.shape[2]
        x, make = self._input(place, x)
        taps_first = weight.transpose(0, 2, 1)  # (C_out, K, C_in)
        num_whole = kernel // stride * stride
        starts = [(first, stride) for first in range(0, num_whole, stride)]
        starts += [(first, 1) for first in range(num_whole, kernel)]
        products = []
        for first, count in starts:
            matrix = taps_first[:, first : first + count].reshape(len(weight), -1)
            seen = ops.frames(x, first, count, kernel, stride)
            products.append(ops.matmul(seen, make(np.ascontiguousarray(matrix)), transpose=True))
        return reduce(ops.add, products)

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
        query, key, value = (
            ops.split_heads(self._linear(f"{name}.{part}_proj", x, f"{name}.in"), num_heads) for part in "qkv"
        )
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
        return self._biased(
            name, self.ops.matmul(x, make(self._weight(f"{name}.weight")), transpose=True), (-1,)
        )

    def _biased(self, name: str, x: Node, shape: tuple[int, ...]) -> Node:
        """Add a bias, where there is one."""
        if not self._has(f"{name}.bias"):
            return x
        return self.ops.add(x, self.ops.constant(self._weight(f"{name}.bias").reshape(shape)))

    def _norm(self, name: str, x: Node, eps: float | None = None) -> Node:
        """Layer norm."""
        ops = self.ops
        x = ops.normalise(x, self.recogniser.eps if eps is None else eps)
        x = ops.multiply(x, ops.constant(self._weight(f"{name}.weight")))
        return ops.add(x, ops.constant(self._weight(f"{name}.bias")))

    def _input(self, place: str, x: Node) -> tuple[Node, Callable[[Array], Node]]:
        """What comes to products, and what makes their weights: both of 8 bits where the place is narrow."""
        if place not in self.limits:
            self.places[place] = x
            return x, self.ops.constant
        limits = self.limits[place]
        if place not in self.places:  # query, key and value have one input
            self.places[place] = self.ops.narrow(x, limits)
        scale = 1.0 if limits.scale is None else limits.scale[:, None]
        return self.places[place], lambda weight: self.ops.narrow_weight(weight * scale)

    def _has(self, name: str) -> bool:
        """Whether there is such a weight."""
        return self._full(name) in self.recogniser.weights

    def _weight(self, name: str) -> Array:
        """A weight by its name below the bare model."""
        return self.recogniser.weights[self._full(name)]

    def _full(self, name: str) -> str:
        """The name as a recogniser has it."""
        return name if name.startswith("lm_head") else f"unispeech.{name}"


def limits_of(low: float, high: float, scale: Array | None = None) -> Limits:
    """Widen what was seen until 0 is one of the 256 levels.

    Args:
        low: Least value.
        high: Greatest value.
        scale: As for `Limits`; the values are those behind it.

    Returns:
        The limits.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    below = round(-255 * low / max(high - low, 1e-6))
    # The side that the rounding of 0 would cut gets a wider step, and the other goes along.
    step = max(-low / below if below else 0.0, high / (255 - below) if below < 255 else 0.0, 1e-9)
    return Limits(low=-below * step, high=(255 - below) * step, scale=scale)


def narrowed(weight: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Round a weight to 255 levels around 0, for each of its first axis by itself.

    Args:
        weight: Any shape.

    Returns:
        The levels, and the size of a step in a shape that broadcasts.
    """
    peak = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = (np.maximum(peak, 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale
