"""ONNX Runtime, for processors where OpenVINO does not run: float32 and int8.

Shapes in this file: B batch, T frames, N vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.cache import Made, facts_of
from unispeech.engines.graph_engine import Feed, GraphEngine
from unispeech.engines.narrowing import Limits
from unispeech.engines.network import Recogniser, recogniser_of
from unispeech.engines.quantisation import choose_narrow, find_limits, speech
from unispeech.frames import num_frames

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDE_PLACES = ("position", ".query", ".key")
"""How places end that stay wide: ONNX Runtime narrows products with weights alone."""


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


def make_onnx(model: "PreTrainedModel", *, is_narrow: bool = False) -> Made:
    """Make an engine.

    Args:
        model: A CTC model.
        is_narrow: As for `openvino_engine.make_openvino`.

    Returns:
        The engine.

    Raises:
        ValueError: If the model has an activation that a graph cannot have.
    """
    recogniser = recogniser_of(model)
    plain = serialised(recogniser, {})
    if not is_narrow:
        return plain
    exact, sentences = OnnxEngine(plain, "float32"), speech()
    limits = find_limits(run_places(recogniser, exact, sentences), is_uneven=recogniser.has_group_norm)
    limits = {place: limit for place, limit in limits.items() if not place.endswith(WIDE_PLACES)}

    def run(found: Mapping[str, Limits]) -> Sequence[LogProbs]:
        return OnnxEngine(serialised(recogniser, found), "int8").log_probs(sentences)

    return serialised(recogniser, choose_narrow(limits, run, exact.log_probs(sentences)))


def serialised(recogniser: Recogniser, limits: Mapping[str, Limits]) -> Made:
    """Make an engine with some places narrowed.

    Args:
        recogniser: The recogniser.
        limits: Name of each place that is narrowed -> its limits.

    Returns:
        The engine.
    """
    from unispeech.engines.onnx_graph import draw_onnx

    graph = draw_onnx(recogniser, limits, has_moments=True).SerializeToString()
    return Made(facts=facts_of(recogniser), parts=[graph])


def run_places(
    recogniser: Recogniser, engine: OnnxEngine, sentences: Sequence[Waveform]
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Run sentences and look at what comes to the places that can be narrowed.

    Args:
        recogniser: The recogniser.
        engine: An engine of it, which knows how it is fed.
        sentences: (S_i,) samples of each.

    Yields:
        Name of each place -> what came to it, for a sentence.
    """
    from unispeech.engines.onnx_graph import draw_onnx

    graph = draw_onnx(recogniser, {}, has_moments=True, shows_places=True)
    session = open_session(graph.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    for sentence in sentences:
        frames = num_frames(len(sentence), engine.kernels, engine.strides)
        found = dict(zip(names, session.run(None, dict(engine.feed(sentence, frames))), strict=True))
        yield {name: values for name, values in found.items() if name != "log_probs"}


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Open a graph.

    Args:
        graph: As ONNX serialises it.

    Returns:
        What runs it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
