"""ONNX Runtime, for processors where OpenVINO does not run: float32.

Shapes in this file: B batch, T frames, N vocabulary.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime

from unispeech.engines.cache import Made, facts_of
from unispeech.engines.graph_engine import Feed, GraphEngine
from unispeech.engines.network import recogniser_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OnnxEngine(GraphEngine):
    """Runs a recogniser in ONNX Runtime.

    Args:
        made: The engine, as `make_onnx` makes it.
    """

    name = "onnxruntime"

    def __init__(self, made: Made) -> None:
        super().__init__(made.facts, "float32")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            made.parts[0], options, providers=["CPUExecutionProvider"]
        )

    def run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """Run the graph."""
        [log_probs] = self._session.run(None, dict(feed))
        return np.asarray(log_probs)


def make_onnx(model: "PreTrainedModel") -> Made:
    """Make an engine.

    Args:
        model: A CTC model.

    Returns:
        The engine.

    Raises:
        ValueError: If the model has an activation that a graph cannot have.
    """
    from unispeech.engines.onnx_graph import draw_onnx

    recogniser = recogniser_of(model)
    graph = draw_onnx(recogniser, has_moments=True).SerializeToString()
    return Made(facts=facts_of(recogniser), parts=[graph])
