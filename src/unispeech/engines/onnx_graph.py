"""A recogniser as an ONNX model, opset 20; of 8 bits with an operator of ONNX Runtime's own.

Shapes in this file: B batch, S samples, T frames, C channels, K kernel of the first convolution.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from unispeech.engines.narrowing import Array, Limits, narrowed
from unispeech.engines.network import Draft, Recogniser
from unispeech.engines.ops import Narrowing

OPSET = 20
"""The first that has GELU; runtimes since 2024 know it."""

RUNTIME = "com.microsoft"
"""Domain of ONNX Runtime's own operators; `MatMulIntegerToFloat` takes levels and gives float32."""


class OnnxOps:
    """Makes nodes of ONNX, which are named by their outputs: `ops.Ops` and `ops.NarrowOps`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._steps: dict[str, str] = {}
        """Name of each tensor of levels, or of a weight of levels -> name of the size of a step."""

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node.

        Args:
            kind: Of operator.
            inputs: Names.
            attributes: Of the operator.

        Returns:
            The name of its output.
        """
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        """A constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, x: str, y: str) -> str:
        """Sum."""
        return self.node("Add", x, y)

    def subtract(self, x: str, y: str) -> str:
        """Difference."""
        return self.node("Sub", x, y)

    def multiply(self, x: str, y: str) -> str:
        """Product of elements."""
        return self.node("Mul", x, y)

    def floor_divide(self, x: str, divisor: int) -> str:
        """Quotient of integers."""
        return self.node("Div", x, self._integers(divisor))

    def clamp(self, x: str) -> str:
        """Integers below 0 become 0."""
        return self.node("Max", x, self._integers(0))

    def inverse_root(self, x: str) -> str:
        """1 / sqrt(x)."""
        return self.node("Reciprocal", self.node("Sqrt", x))

    def total(self, x: str) -> str:
        """Sum over the last axis."""
        return self.node("ReduceSum", x, self._integers(-1), keepdims=0)

    def matmul(self, x: str, y: str, *, transpose: bool = False) -> str:
        """Matrix product; runtimes turn a constant when they load it, and `narrow_weight` has turned its."""
        if x in self._steps:
            steps = self._steps[x], self._steps[y]
            return self.node("MatMulIntegerToFloat", x, y, *steps, domain=RUNTIME)
        return self.node("MatMul", x, self.node("Transpose", y, perm=(1, 0)) if transpose else y)

    def convolve(
        self,
        x: str,
        weight: str,
        shape: Sequence[int],
        stride: int,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> str:
        """Convolution over the last axis."""
        return self.node(
            "Conv", x, weight, kernel_shape=[shape[2]], strides=[stride], pads=list(pads), group=groups
        )

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """Reorder axes."""
        return self.node("Transpose", x, perm=list(order))

    def expand(self, x: str, axis: int) -> str:
        """Insert an axis."""
        return self.node("Unsqueeze", x, self._integers(axis))

    def split_heads(self, x: str, num_heads: int) -> str:
        """(B, T, H) -> (B, A, T, D)."""
        return self.transpose(self.node("Reshape", x, self._integers(0, 0, num_heads, -1)), (0, 2, 1, 3))

    def join_heads(self, x: str) -> str:
        """(B, A, T, D) -> (B, T, H)."""
        return self.node("Reshape", self.transpose(x, (0, 2, 1, 3)), self._integers(0, 0, -1))

    def frames(self, x: str, first: int, count: int, kernel: int, stride: int) -> str:
        """What some taps of a strided convolution see."""
        length = self.node("Shape", x, start=1, end=2)
        num_out = self.floor_divide(self.add(length, self._integers(stride - kernel)), stride)
        begin = self._integers(first)
        end = self.add(begin, self.multiply(num_out, self._integers(stride)))
        step = stride if count == 1 else 1
        seen = self.node("Slice", x, begin, end, self._integers(1), self._integers(step))
        if count > 1:
            shape = self.node("Concat", self._integers(0), num_out, self._integers(-1), axis=0)
            seen = self.node("Reshape", seen, shape)
        return self._like(x, seen)

    def concatenate(self, parts: Sequence[str]) -> str:
        """Join along the last axis."""
        return parts[0] if len(parts) == 1 else self._like(parts[0], self.node("Concat", *parts, axis=-1))

    def normalise(self, x: str, eps: float) -> str:
        """Zero mean and unit variance over the last axis."""
        centred = self.subtract(x, self.node("ReduceMean", x, self._integers(-1)))
        variance = self.node("ReduceMean", self.multiply(centred, centred), self._integers(-1))
        return self.multiply(
            centred, self.inverse_root(self.add(variance, self.constant(np.full(1, eps, np.float32))))
        )

    def activate(self, x: str, name: str) -> str:
        """An activation."""
        if name in {"gelu", "gelu_tanh"}:
            return self.node("Gelu", x, approximate="none" if name == "gelu" else "tanh")
        return self.node("Relu", x) if name == "relu" else self.multiply(x, self.node("Sigmoid", x))

    def attend(self, query: str, key: str, value: str, mask: str) -> str:
        """Attention."""
        size = self.node("Cast", self.node("Shape", query, start=3, end=4), to=TensorProto.FLOAT)
        query = self.multiply(query, self.inverse_root(size))
        scores = self.node("MatMul", query, self.transpose(key, (0, 1, 3, 2)))
        return self.node("MatMul", self.node("Softmax", self.add(scores, mask), axis=-1), value)

    def is_within(self, x: str, lengths: str) -> str:
        """1 at frames before the lengths."""
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        width = self.node("Squeeze", self.node("Shape", x, start=1, end=2))
        positions = self.expand(self.node("Range", zero, width, one), 0)
        within = self.node("Less", positions, self.expand(lengths, 1))
        return self.expand(self.node("Cast", within, to=TensorProto.FLOAT), 2)

    def log_softmax(self, x: str) -> str:
        """Over the last axis."""
        return self.node("LogSoftmax", x, axis=-1)

    def narrow(self, x: str, limits: Limits, *, is_apart: bool = False) -> str:
        """Divide by the scale, take the shift and round: bytes, of which views are made in no time."""
        rest = np.full(1, limits.low, np.float32)
        if limits.scale is not None and limits.shift is not None:
            x = self.multiply(x, self.constant(np.reciprocal(limits.scale)))
            rest = limits.shift + rest
        x = self.subtract(x, self.constant(rest))
        step = self.constant(np.float32((limits.high - limits.low) / 255))
        levels = self.node("QuantizeLinear", x, step, self.constant(np.uint8(0)))
        self._steps[levels] = step
        return levels

    def narrow_weight(self, weight: Array) -> str:
        """Round a weight (C_out, C_in) to 255 levels, for each of its first axis by itself, and turn it."""
        rounded, scale = narrowed(weight)
        levels = self.constant(rounded.T)
        self._steps[levels] = self.constant(scale.ravel())
        return levels

    def _like(self, x: str, view: str) -> str:
        """Note that a view of levels is levels."""
        if x in self._steps:
            self._steps[view] = self._steps[x]
        return view

    def _integers(self, *values: int) -> str:
        """A vector of integers."""
        return self.constant(np.array(values, np.int64))


def draw_onnx(
    recogniser: Recogniser,
    *,
    has_moments: bool,
    limits: Mapping[str, Limits] | None = None,
    shows_places: bool = False,
) -> onnx.ModelProto:
    """Make an ONNX model of a recogniser.

    Args:
        recogniser: The recogniser.
        has_moments: Whether lengths and group norm's statistics are inputs; False: all of each row counts.
        limits: As for `ops.Narrowing`, of places that are products and have `means`; a model with any runs
            in ONNX Runtime only. None: all is float32.
        shows_places: Whether what comes to each place is an output too.

    Returns:
        A model from `waveforms` (B, S), with moments also `lengths` (B,), `mean` (B, K) and `spread`
        (B, K, K), to `log_probs` (B, T, N) and to the places by their names.
    """
    ops = OnnxOps()
    inputs = [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["B", "S"])]
    kernel = recogniser.kernels[0]
    moments: tuple[str, str] | None = None
    if has_moments:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]))
        lengths = "lengths"
        if recogniser.has_group_norm:
            inputs += [
                helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", kernel]),
                helper.make_tensor_value_info("spread", TensorProto.FLOAT, ["B", kernel, kernel]),
            ]
            moments = ("mean", "spread")
    else:
        size = ops.node("Shape", "waveforms")
        parts = [ops.node("Slice", size, *(ops.constant(np.array([n])) for n in (i, i + 1))) for i in (0, 1)]
        lengths = ops.node("Expand", parts[1], parts[0])
    draft = Draft[str](ops, recogniser, Narrowing(ops=ops, limits=limits or {}))
    named = {"log_probs": draft.log_probs("waveforms", lengths, moments)}
    if shows_places:
        named |= draft.places
    shape: list[str | int | None] = ["B", "T", recogniser.num_symbols]
    outputs = []
    for name, found in named.items():
        ops.nodes.append(helper.make_node("Identity", [found], [name]))
        widths = shape if name == "log_probs" else ["B", None, None]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, widths))
    graph = helper.make_graph(ops.nodes, "unispeech", inputs, outputs, ops.constants)
    domains = [helper.make_opsetid("", OPSET)] + ([helper.make_opsetid(RUNTIME, 1)] if limits else [])
    return helper.make_model(graph, opset_imports=domains, ir_version=9)
