"""ONNX Runtime, for processors where OpenVINO does not run: float32, int8.

Shapes in this file: B batch, T frames, C channels, N vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime

from unispeech.engines.cache import Made, facts_of
from unispeech.engines.graph_engine import Feed, GraphEngine
from unispeech.engines.narrowing import Limits
from unispeech.engines.network import Recogniser, recogniser_of
from unispeech.engines.quantisation import Look, find_narrow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OnnxEngine(GraphEngine):
    """Runs a recogniser in ONNX Runtime.

    Args:
        made: The engine, as `make_onnx` makes it.
        precision: "float32", or "int8" for a narrow engine.
    """

    name = "onnxruntime"

    def __init__(self, made: Made, precision: str) -> None:
        super().__init__(made.facts, precision)
        self._session = open_session(made.parts[0])

    def run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """Run the graph."""
        [log_probs] = self._session.run(None, dict(feed))
        return np.asarray(log_probs)


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Make a graph ready to run.

    Args:
        graph: A serialised model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not has_vnni():
        # Products of 8 bits are added up in 16 there, which overflow; with this they are not.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def has_vnni() -> bool:
    """Whether an x86 processor adds products of 8 bits up in 32, as far as can be told without torch."""
    information = Path("/proc/cpuinfo")
    return information.exists() and "vnni" in information.read_text(encoding="utf-8", errors="replace")


def make_onnx(model: "PreTrainedModel", *, is_narrow: bool = False) -> Made:
    """Make an engine.

    Args:
        model: A CTC model.
        is_narrow: Whether products are narrowed to 8 bits where that does not hurt: see
            `quantisation.find_narrow`.

    Returns:
        The engine.

    Raises:
        ValueError: If the model has an activation that a graph cannot have.
    """
    recogniser = recogniser_of(model)
    if not is_narrow:
        return drawn(recogniser, {})
    limits = find_narrow(
        lambda found: OnnxEngine(drawn(recogniser, found), "int8" if found else "float32"),
        look_at(recogniser),
        is_uneven=recogniser.has_group_norm,
        has_even=False,
    )
    return drawn(recogniser, limits)


def drawn(recogniser: Recogniser, limits: Mapping[str, Limits]) -> Made:
    """Make an engine with some places narrowed.

    Args:
        recogniser: The recogniser.
        limits: As for `draw_onnx`; empty: all is float32.

    Returns:
        The engine.
    """
    from unispeech.engines.onnx_graph import draw_onnx

    graph = draw_onnx(recogniser, has_moments=True, limits=limits).SerializeToString()
    return Made(facts=facts_of(recogniser), parts=[graph])


def look_at(recogniser: Recogniser) -> Look:
    """Open a recogniser that shows what comes to the places that can be narrowed.

    Args:
        recogniser: The recogniser.

    Returns:
        Runs it.
    """
    from unispeech.engines.onnx_graph import draw_onnx

    session = open_session(draw_onnx(recogniser, has_moments=True, shows_places=True).SerializeToString())
    names = [output.name for output in session.get_outputs()][1:]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))
