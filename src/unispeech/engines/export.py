"""A recogniser as files for other programs, run again from those files and held to the plain path.

Shapes in this file: T frames, N vocabulary.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from unispeech.decoding.decoder import LogProbs
from unispeech.engines.choice import read_recogniser
from unispeech.engines.comparison import Parity, compare
from unispeech.engines.network import Recogniser, recogniser_of
from unispeech.engines.quantisation import speech
from unispeech.errors import CheckpointError
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

Target = Literal["onnx", "openvino", "sherpa"]

REPORT = "parity.json"
"""Name of the report beside the files."""

COPIED = (
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
)
"""What of a model directory goes along."""


def export_recogniser(source: Path, target: Path, to: Target) -> Parity:
    """Write a recogniser for another program, read it back, run it, and write how closely it follows.

    `onnx` and `openvino` take `waveforms` (B, S) without padding and give `log_probs` (B, T, N).
    `sherpa` is a folder for sherpa-onnx (its slot `omnilingual_asr_ctc`): model.onnx and tokens.txt.

    Args:
        source: A model directory.
        target: A folder that is made, or filled.
        to: For which program.

    Returns:
        How closely the written files follow the plain path on the carried sentences.

    Raises:
        CheckpointError: If the model cannot be read, or sherpa-onnx could not run it.
        ValueError: If `to` is unknown.
        ImportError: If the extra that writes or runs the files is missing.
    """
    if to not in get_args(Target):
        raise ValueError(f"`to` must be one of {', '.join(get_args(Target))}, but is {to!r}.")
    model = read_recogniser(source)
    recogniser = recogniser_of(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        fresh = Path(folder)
        if to == "sherpa":
            _write_tokens(source, fresh)
        run = _write_openvino(recogniser, fresh) if to == "openvino" else _write_onnx(recogniser, fresh)
        parity = compare(_plain(model), [run(sentence[None])[0] for sentence in speech()])
        report = {"to": to, "sentences": len(speech()), **asdict(parity)}
        (fresh / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, fresh / name)
        target.mkdir(exist_ok=True)
        for path in fresh.iterdir():
            path.replace(target / path.name)
    return parity


Run = Callable[[np.ndarray], np.ndarray]


def _plain(model: object) -> Sequence[LogProbs]:
    """The plain path on the carried sentences."""
    from unispeech.engines.torch_engine import TorchEngine

    engine = TorchEngine(model, device="cpu", precision="float32")
    return [engine.log_probs([sentence])[0] for sentence in speech()]


def _write_onnx(recogniser: Recogniser, folder: Path) -> Run:
    """Write model.onnx and open it."""
    import onnx
    import onnxruntime

    from unispeech.engines.onnx_graph import draw_onnx

    graph = draw_onnx(recogniser, {}, has_moments=False)
    onnx.save(graph, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda waveforms: session.run(None, {"waveforms": waveforms})[0]


def _write_openvino(recogniser: Recogniser, folder: Path) -> Run:
    """Write model.xml and model.bin and open them; OpenVINO reads the graph that ONNX gets."""
    from unispeech.engines.onnx_graph import draw_onnx
    from unispeech.engines.openvino_engine import core
    from unispeech.engines.openvino_graph import openvino

    graph = draw_onnx(recogniser, {}, has_moments=False).SerializeToString()
    openvino.save_model(core().read_model(graph), folder / "model.xml", compress_to_fp16=False)
    compiled = core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda waveforms: compiled([waveforms])[0]


def _write_tokens(source: Path, folder: Path) -> None:
    """Write tokens.txt, in which sherpa-onnx finds the blank by its name."""
    if not read_do_normalize(source):
        raise CheckpointError(
            f"{source}: `do_normalize` must be true for sherpa-onnx, which always normalises, but is false."
        )
    vocabulary = Vocabulary.load(source)
    names = ["<blk>" if i == vocabulary.blank else name for i, name in enumerate(vocabulary.symbols)]
    lines = [f"{name} {number}\n" for number, name in enumerate(names)]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
