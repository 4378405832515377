"""OpenVINO, for processors: float32, bf16 where the processor has it, int8.

Shapes in this file: B batch, T frames, N vocabulary.
"""

import functools
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unispeech.engines.cache import Made, facts_of
from unispeech.engines.graph_engine import Feed, GraphEngine
from unispeech.engines.narrowing import Limits
from unispeech.engines.network import Recogniser, recogniser_of
from unispeech.engines.openvino_graph import draw_openvino, openvino
from unispeech.engines.quantisation import Look, Seen, find_narrow
from unispeech.frames import SAMPLE_RATE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HINTS = {"float32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision -> what layers are computed in that are not narrowed to 8 bits."""


MANY = 60 * SAMPLE_RATE
"""Samples that run one utterance after the other before utterances run side by side, which takes a second to
prepare."""

MAX_WEIGHTS = 256 * 2**20
"""Bytes of weights up to which utterances run side by side: it takes them once more, and each stream its own
memory; large networks gain next to nothing."""

MAX_STREAMS = 4
"""Utterances that run side by side at most."""


class OpenvinoEngine(GraphEngine):
    """Runs a recogniser in OpenVINO.

    Args:
        made: The engine, as `make_openvino` makes it.
        precision: "float32", "bf16" on a processor that has it, or "int8" for a narrow engine.
    """

    name = "openvino"

    def __init__(self, made: Made, precision: str) -> None:
        super().__init__(made.facts, precision)
        self._hint = "bf16" if precision == "int8" and has_bf16() else HINTS[precision]
        self._lock, self._num_started = threading.Lock(), 0
        self._idle: list[Any] = []
        graph, weights = made.parts
        self._is_light = len(weights) <= MAX_WEIGHTS
        self._model = core().read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)))

    def run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """Run the graph with all threads; of several callers one at a time."""
        with self._lock:
            log_probs: npt.NDArray[np.float32] = self._request.infer(dict(feed), share_inputs=True)[0]
        return log_probs

    @property
    def num_ahead(self) -> int:
        """As many as run side by side."""
        return self._num_streams if self._is_light and self._num_started > MANY else 0

    def start_all(self, feeds: Sequence[Feed]) -> Callable[[], list[npt.NDArray[np.float32]]]:
        """Start utterances side by side, where threads do not wait for one another, nor for the caller."""
        self._num_started += sum(feed["waveforms"].size for feed in feeds)
        if not self._is_light or self._num_started <= MANY:
            return super().start_all(feeds)
        begun = list(map(self._begin, feeds))
        return lambda: list(map(self._end, begun))

    def _begin(self, feed: Feed) -> Any:
        """Start an utterance as soon as a stream is free."""
        try:
            request = self._idle.pop()
        except IndexError:
            with self._lock:
                request = self._side_by_side.create_infer_request()
        # With inputs of its own: whoever gives up what he started lets go of the feed.
        request.start_async(dict(feed))
        return request

    def _end(self, request: Any) -> npt.NDArray[np.float32]:
        """Wait for an utterance."""
        request.wait()
        log_probs: npt.NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        self._idle.append(request)
        return log_probs

    @functools.cached_property
    def _request(self) -> Any:
        """What runs one utterance."""
        return self._compile({"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    @functools.cached_property
    def _side_by_side(self) -> Any:
        """The graph for several utterances."""
        return self._compile({"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": MAX_STREAMS})

    @functools.cached_property
    def _num_streams(self) -> int:
        """Utterances that run side by side."""
        return int(self._side_by_side.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def _compile(self, how: Mapping[str, str | int]) -> Any:
        """Make the graph ready to run, the first time that it is to run so."""
        settings = {
            **how,
            "INFERENCE_PRECISION_HINT": self._hint,
            # Two processes that bind their threads would bind them to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        return core().compile_model(self._model, "CPU", settings)


def make_openvino(model: "PreTrainedModel", *, is_narrow: bool = False) -> Made:
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
        return serialised(recogniser, {})
    limits = find_narrow(
        lambda found: OpenvinoEngine(serialised(recogniser, found), "int8" if found else "float32"),
        look_at(recogniser),
        is_uneven=recogniser.has_group_norm,
    )
    return serialised(recogniser, limits)


def serialised(recogniser: Recogniser, limits: Mapping[str, Limits]) -> Made:
    """Make an engine with some places narrowed.

    Args:
        recogniser: The recogniser.
        limits: Name of each place that is narrowed -> its limits.

    Returns:
        The engine.
    """
    model = draw_openvino(recogniser, limits)
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
        openvino.serialize(model, graph, weights)
        parts = [graph.read_bytes(), weights.read_bytes()]
    return Made(facts=facts_of(recogniser), parts=parts)


def look_at(recogniser: Recogniser) -> Look:
    """Open a recogniser that shows what comes to the places that can be narrowed.

    Args:
        recogniser: The recogniser.

    Returns:
        Runs it.
    """
    model = draw_openvino(recogniser, {}, shows_places=True)
    names = [next(iter(output.get_names())) for output in model.outputs]
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def look(feed: Feed) -> Seen:
        found = compiled(dict(feed))
        return {name: found[number] for number, name in enumerate(names) if name != "log_probs"}

    return look


@functools.cache
def core() -> openvino.Core:
    """OpenVINO itself, one for the life of the process.

    Its processor plugin gives the thread another stack for signals, and takes it away when the last user of a
    `Core` is gone. With two of them the first takes away what the second puts back: the next signal, such as
    the end of a worker process, then ends the process by a segmentation fault.
    """
    return openvino.Core()


def has_bf16() -> bool:
    """Whether the processor multiplies in bf16."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
