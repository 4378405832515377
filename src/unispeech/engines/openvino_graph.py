"""A recogniser as an OpenVINO model.

Shapes in this file: B batch, S samples, T frames, C channels, K kernel of the first convolution.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from unispeech.engines.narrowing import Array, Limits, narrowed
from unispeech.engines.network import Draft, Recogniser
from unispeech.engines.ops import Narrowing


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import openvino within: by itself it reports its import to its makers, over the network."""
    name = "openvino.tools.ovc"  # converts models of other frameworks; what reports stands there
    is_loaded = name in sys.modules
    if not is_loaded:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not is_loaded:
            del sys.modules[name]


with without_telemetry():
    import openvino as openvino
    from openvino import Node, Output, Type, opset13

Value: TypeAlias = "Node | Output"


class OpenvinoOps:
    """Makes nodes of OpenVINO, as `network.Ops` describes them."""

    def constant(self, value: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Value:
        """A constant."""
        return opset13.constant(np.ascontiguousarray(value))

    def add(self, x: Value, y: Value) -> Value:
        """Sum."""
        return opset13.add(x, y)

    def subtract(self, x: Value, y: Value) -> Value:
        """Difference."""
        return opset13.subtract(x, y)

    def multiply(self, x: Value, y: Value) -> Value:
        """Product of elements."""
        return opset13.multiply(x, y)

    def floor_divide(self, x: Value, divisor: int) -> Value:
        """Quotient of integers."""
        return opset13.divide(x, self._integers(divisor))

    def clamp(self, x: Value) -> Value:
        """Integers below 0 become 0."""
        return opset13.maximum(x, self._integers(0))

    def inverse_root(self, x: Value) -> Value:
        """1 / sqrt(x)."""
        return opset13.divide(self.constant(np.ones(1, np.float32)), opset13.sqrt(x))

    def total(self, x: Value) -> Value:
        """Sum over the last axis."""
        return opset13.reduce_sum(x, self._integers(-1))

    def matmul(self, x: Value, y: Value, *, transpose: bool = False) -> Value:
        """Matrix product."""
        return opset13.matmul(x, y, False, transpose)

    def convolve(
        self,
        x: Value,
        weight: Value,
        shape: Sequence[int],
        stride: int,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> Value:
        """Convolution over the last axis."""
        before, after = pads
        if groups == 1:
            return opset13.convolution(x, weight, [stride], [before], [after], [1])
        split = opset13.reshape(weight, self._integers(groups, shape[0] // groups, *shape[1:]), False)
        return opset13.group_convolution(x, split, [stride], [before], [after], [1])

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """Reorder axes."""
        return opset13.transpose(x, self._integers(*order))

    def expand(self, x: Value, axis: int) -> Value:
        """Insert an axis."""
        return opset13.unsqueeze(x, self._integers(axis))

    def split_heads(self, x: Value, num_heads: int) -> Value:
        """(B, T, H) -> (B, A, T, D)."""
        split = opset13.reshape(x, self._integers(0, 0, num_heads, -1), True)
        return self.transpose(split, (0, 2, 1, 3))

    def join_heads(self, x: Value) -> Value:
        """(B, A, T, D) -> (B, T, H)."""
        return opset13.reshape(self.transpose(x, (0, 2, 1, 3)), self._integers(0, 0, -1), True)

    def frames(self, x: Value, first: int, count: int, kernel: int, stride: int) -> Value:
        """What some taps of a strided convolution see."""
        length = opset13.gather(opset13.shape_of(x), self._integers(1), self._integer(0))
        num_out = self.floor_divide(self.add(length, self._integers(stride - kernel)), stride)
        begin, axis = self._integers(first), self._integers(1)
        end = opset13.add(begin, opset13.multiply(num_out, self._integers(stride)))
        if count == 1:
            return opset13.slice(x, begin, end, self._integers(stride), axis)
        seen = opset13.slice(x, begin, end, self._integers(1), axis)
        shape = opset13.concat([self._integers(0), num_out, self._integers(-1)], 0)
        return opset13.reshape(seen, shape, True)

    def concatenate(self, parts: Sequence[Value]) -> Value:
        """Join along the last axis."""
        return parts[0] if len(parts) == 1 else opset13.concat(parts, -1)

    def normalise(self, x: Value, eps: float) -> Value:
        """Zero mean and unit variance over the last axis."""
        return opset13.mvn(x, self._integers(-1), True, eps, "inside_sqrt")

    def activate(self, x: Value, name: str) -> Value:
        """An activation."""
        if name in {"gelu", "gelu_tanh"}:
            return opset13.gelu(x, "erf" if name == "gelu" else "tanh")
        return opset13.relu(x) if name == "relu" else opset13.swish(x)

    def attend(self, query: Value, key: Value, value: Value, mask: Value) -> Value:
        """Attention."""
        return opset13.scaled_dot_product_attention(query, key, value, mask)

    def is_within(self, x: Value, lengths: Value) -> Value:
        """1 at frames before the lengths."""
        width = opset13.gather(opset13.shape_of(x), self._integer(1), self._integer(0))
        positions = opset13.range(self._integer(0), width, self._integer(1), "i64")
        within = opset13.less(opset13.unsqueeze(positions, self._integers(0)), self.expand(lengths, 1))
        return self.expand(opset13.convert(within, "f32"), 2)

    def log_softmax(self, x: Value) -> Value:
        """Over the last axis."""
        return opset13.log_softmax(x, -1)

    def narrow(self, x: Value, limits: Limits, *, is_apart: bool = False) -> Value:
        """Divide by the scale, take the shift and round."""
        if is_apart:  # the plugin does not look through an axis
            x = self.expand(x, 2)
        if limits.scale is not None and limits.shift is not None:
            x = self.multiply(x, self.constant(np.reciprocal(limits.scale)))
            x = self.subtract(x, self.constant(limits.shift))
        low, high = (self.constant(np.full(1, limit, np.float32)) for limit in (limits.low, limits.high))
        first, last = low, high
        if limits.means is not None:
            first = self.constant(np.zeros(1, np.float32))
            last = self.constant(np.full(1, limits.high - limits.low, np.float32))
        x = opset13.fake_quantize(x, low, high, first, last, 256)
        return opset13.squeeze(x, self._integers(2)) if is_apart else x

    def narrow_weight(self, weight: Array) -> Value:
        """Round a weight to 255 levels, for each of its first axis by itself."""
        rounded, scale = narrowed(weight)
        wide = opset13.convert(opset13.constant(rounded), "f32")
        return opset13.multiply(wide, self.constant(scale))

    def _integers(self, *values: int) -> Value:
        """A vector of integers."""
        return opset13.constant(np.array(values, np.int64))

    def _integer(self, value: int) -> Value:
        """A single integer."""
        return opset13.constant(np.int64(value))


def draw_openvino(
    recogniser: Recogniser, limits: Mapping[str, Limits], *, shows_places: bool = False
) -> openvino.Model:
    """Make an OpenVINO model of a recogniser.

    Args:
        recogniser: The recogniser.
        limits: As for `ops.Narrowing`; empty: all is float32.
        shows_places: Whether what comes to each place is an output too.

    Returns:
        A model from `waveforms` (B, S), `lengths` (B,) and, with group norm, `mean` (B, K) and `spread`
        (B, K, K), to `log_probs` (B, T, N) and to the places by their names.
    """
    waveforms = opset13.parameter([-1, -1], Type.f32, name="waveforms")
    lengths = opset13.parameter([-1], Type.i64, name="lengths")
    inputs, moments = [waveforms, lengths], None
    if recogniser.has_group_norm:
        kernel = recogniser.kernels[0]
        moments = (
            opset13.parameter([-1, kernel], Type.f32, name="mean"),
            opset13.parameter([-1, kernel, kernel], Type.f32, name="spread"),
        )
        inputs += moments
    ops = OpenvinoOps()
    draft = Draft[Value](ops, recogniser, Narrowing(ops=ops, limits=limits))
    outputs = {"log_probs": draft.log_probs(waveforms, lengths, moments)}
    if shows_places:
        outputs |= draft.places
    model = openvino.Model([opset13.result(node) for node in outputs.values()], inputs, "unispeech")
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    for entry, parameter in zip(model.inputs, inputs, strict=True):
        entry.get_tensor().set_names({parameter.get_friendly_name()})
    return model
