"""Which engine runs a recogniser here: the one that was asked for, or the fastest that there is.

Nothing here imports torch before a checkpoint has to be read: an engine from the cache starts without it.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from unispeech.engines import cache
from unispeech.engines.cache import Made
from unispeech.engines.engine import Engine, EngineName, Precision
from unispeech.engines.network import FORMAT
from unispeech.phones import nearest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Engine -> the extra that installs it; also its package's name."""

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What is there where a GPU may be; torch, which takes seconds to import, is asked only then."""


def open_engine(
    model: "str | Path | PreTrainedModel",
    directory: Path | None,
    *,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    device: "str | torch.device" = "auto",
    compile: bool = False,
    cuda_graphs: bool = False,
) -> Engine:
    """Open the engine for a recogniser, from the cache where it is there.

    "auto" takes what computes the same as the plain path, to rounding: on a GPU torch, on a processor
    OpenVINO where it is installed, else torch, in float32 unless another precision is asked for. A model with
    its weights in memory, which may change, is left to torch.

    Args:
        model: A model directory, or a model with its weights.
        directory: Where the files of the model are; None for a model in memory.
        engine: Which engine.
        precision: What to compute in.
        device: Where to run; "auto" takes the first GPU if there is one.
        compile: As for `TorchEngine`, which "auto" then takes.
        cuda_graphs: Likewise.

    Returns:
        The engine; its `name` and `precision` say which it is.

    Raises:
        ValueError: If engine, precision, device, compile and cuda_graphs do not go together.
        ImportError: If the engine is not installed.
    """
    for field, value, choices in (
        ("engine", engine, get_args(EngineName)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in choices:
            raise ValueError(
                f"`{field}` must be one of {', '.join(choices)}, but is {value!r}{nearest(value, choices)}"
            )

    def load() -> "PreTrainedModel":
        return read_recogniser(model) if isinstance(model, str | Path) else model

    if compile or cuda_graphs:
        if engine not in {"auto", "torch"}:
            option = "compile" if compile else "cuda_graphs"
            raise ValueError(f"`engine` must be auto or torch along with `{option}`, but is {engine}.")
        engine = "torch"
    is_auto = engine == "auto"
    name = choose(precision, device, is_on_disk=directory is not None) if is_auto else engine
    if name != "torch":
        try:
            return _open_graph(name, precision, device, load, directory)
        except ValueError:
            # A network that no graph can be made of, or no bf16 here, which torch emulates.
            if not is_auto or precision == "int8":
                raise
    if precision == "int8":
        raise ValueError("`precision` must be auto, float32 or bf16 for engine torch, but is int8.")
    from unispeech.engines.torch_engine import TorchEngine, find_device

    # "auto" leaves a model in memory where it is.
    place = device if directory is None else find_device(device)
    return TorchEngine(load(), device=place, precision=precision, compile=compile, cuda_graphs=cuda_graphs)


def read_recogniser(source: str | Path) -> "PreTrainedModel":
    """Read a checkpoint, in float32 whatever its weights are kept in.

    Args:
        source: A model directory or a Hub id.

    Returns:
        The model.

    Raises:
        CheckpointError: If it cannot be read or is no recogniser.
    """
    import torch

    from unispeech.checkpoints.huggingface import load_model

    return load_model(source, head="ctc", dtype=torch.float32)


def choose(precision: Precision, device: "str | torch.device", *, is_on_disk: bool) -> EngineName:
    """Choose the fastest engine that gives what is asked for.

    Args:
        precision: What to compute in.
        device: Where to run.
        is_on_disk: Whether the model is a directory.

    Returns:
        Its name; OpenVINO for int8 where neither engine that has it is installed.
    """
    is_cpu = str(device) == "cpu" or (str(device) == "auto" and not _has_gpu())
    if precision == "int8":
        has_only_onnx = is_installed("onnxruntime") and not is_installed("openvino")
        return "onnxruntime" if has_only_onnx else "openvino"
    return "openvino" if is_cpu and is_on_disk and is_installed("openvino") else "torch"


def is_installed(name: str) -> bool:
    """Find out whether an engine can be imported.

    Args:
        name: Of the engine, which is that of its package.
    """
    return find_spec(name) is not None


def _has_gpu() -> bool:
    """Whether torch finds a GPU."""
    if sys.platform == "linux" and not any(map(Path.exists, map(Path, DRIVERS))):
        return False
    import torch

    return torch.cuda.is_available()


def _open_graph(
    name: str,
    precision: Precision,
    device: "str | torch.device",
    load: Callable[[], "PreTrainedModel"],
    directory: Path | None,
) -> Engine:
    """Open an engine that runs a graph."""
    if str(device) not in {"auto", "cpu"}:
        raise ValueError(f"`device` must be auto or cpu for engine {name}, but is {str(device)!r}.")
    if not is_installed(name):
        raise ImportError(
            f"engine {name} is not installed; install it with pip install 'unispeech[{EXTRAS[name]}]'."
        )
    wanted = "float32" if precision == "auto" else precision
    if name == "onnxruntime":
        if wanted == "bf16":
            raise ValueError(
                "`precision` must be auto, float32 or int8 for engine onnxruntime, but is bf16; "
                "engine openvino has bf16."
            )
        from unispeech.engines.onnx_engine import OnnxEngine, make_onnx

        return OnnxEngine(
            cached(name, wanted, directory, lambda: make_onnx(load(), is_narrow=wanted == "int8")), wanted
        )
    from unispeech.engines.openvino_engine import OpenvinoEngine, has_bf16, make_openvino

    if wanted == "bf16" and not has_bf16():
        raise ValueError(
            "`precision` must be auto, float32 or int8 on this processor, which has no bf16, but is bf16; "
            "engine torch emulates it."
        )
    graph = "int8" if wanted == "int8" else "float32"
    return OpenvinoEngine(
        cached(name, graph, directory, lambda: make_openvino(load(), is_narrow=graph == "int8")), wanted
    )


def cached(name: str, graph: str, directory: Path | None, make: Callable[[], Made]) -> Made:
    """Take an engine from the cache, or make it and keep it there.

    Args:
        name: Of the engine.
        graph: "float32" or "int8".
        directory: Of the model; None: nothing is kept.
        make: Makes the engine.

    Returns:
        The engine.
    """
    checkpoint_hash = None if directory is None else cache.hash_checkpoint(directory)
    if directory is None or checkpoint_hash is None:
        return make()
    key: cache.Key = {
        "checkpoint": checkpoint_hash,
        "engine": name,
        "engine_version": version(name),
        "format": FORMAT,
        "graph": graph,
        "unispeech": version("unispeech"),
    }
    places = cache.places(directory, f"{name}-{graph}", checkpoint_hash)
    for place in places:
        found = cache.read(place, key)
        if found is not None:
            return found
    made = make()
    any(cache.write(place, key, made) for place in places)
    return made
