"""The operations that a graph is drawn with: what an engine has to bring.

Shapes in this file: B batch, T frames, C channels, H hidden, A heads, D = H / A, K kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from unispeech.engines.narrowing import Array, Limits

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names of the activations that a graph can have -> their names in `Ops.activate`."""

Node = TypeVar("Node")


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

    def concatenate(self, parts: Sequence[Node]) -> Node:
        """Join along the last axis."""
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


class NarrowOps(Protocol[Node]):
    """Makes the nodes of 8 bits of an engine that has such products."""

    def narrow(self, x: Node, limits: Limits, *, is_apart: bool = False) -> Node:
        """Divide the last axis by the scale and take the shift, where there are any, and round to 256 levels.

        `is_apart` keeps this out of the product that makes x (B, T, C): OpenVINO's products of matrices that
        are no constants take four times as long with it.
        """
        ...

    def narrow_weight(self, weight: Array) -> Node:
        """Round a weight to 255 levels around 0, for each of its first axis by itself."""
        ...


@dataclass(frozen=True, kw_only=True)
class Narrowing(Generic[Node]):
    """What is narrowed to 8 bits."""

    ops: NarrowOps[Node]
    """Makes the nodes for it."""
    limits: Mapping[str, Limits]
    """Name of each place that is narrowed -> how."""
