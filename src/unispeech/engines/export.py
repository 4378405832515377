"""A recogniser as files for other programs, run again from those files and held to the plain path.

Shapes in this file: S samples, T frames, N vocabulary.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from unispeech.engines.choice import read_recogniser
from unispeech.engines.comparison import Parity, compare
from unispeech.engines.error_rates import ErrorRates, LabelledSpeech, Recognise
from unispeech.engines.network import recogniser_of
from unispeech.engines.quantisation import speech
from unispeech.errors import CheckpointError
from unispeech.frames import SAMPLE_RATE, Seconds
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Target = Literal["onnx", "openvino", "sherpa", "ct2"]

NEEDED = {
    "onnx": {"onnx": "onnx", "onnxruntime": "onnx"},
    "openvino": {"onnx": "onnx", "openvino": "openvino"},
    "sherpa": {"onnx": "onnx", "onnxruntime": "onnx"},
    "ct2": {"ctranslate2": "ct2"},
}
"""Target -> the packages that write and run its files, and the extra that brings each."""

REPORT = "parity.json"
"""Name of the report beside the files."""

PASSES = 3
"""Passes over the carried sentences that are timed, of which the median counts; one before warms up."""

COPIED = (
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
)
"""What of a model directory goes along."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of audio per second on this machine."""

    plain: float
    """Of the plain path: torch in float32."""
    export: float
    """Of what was written."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written, beside the plain path."""

    to: Target
    """For which program."""
    num_sentences: int
    """Carried sentences that both ran on, for parity and speed."""
    parity: Parity
    """How closely it follows."""
    speed: Speed
    """How fast both are here, an utterance at a time."""
    corpus: str | None
    """The labelled speech as the caller named it; None where none was given."""
    error_rates: ErrorRates | None
    """On the labelled speech: the rate of the plain path, then that of what was written."""


def export_recogniser(
    source: Path,
    target: Path,
    to: Target,
    *,
    corpus: Path | None = None,
    on_progress: Callable[[Seconds], None] = lambda seconds: None,
) -> Report:
    """Write a recogniser for another program, read it back, run it, and write how closely it follows.

    `onnx` and `openvino` take `waveforms` (B, S) without padding and give `log_probs` (B, T, N).
    `sherpa` is a folder for sherpa-onnx (its slot `omnilingual_asr_ctc`): model.onnx and tokens.txt. `ct2` is
    a folder for `ctranslate2.models.Wav2Vec2`, which gives logits.

    Args:
        source: A model directory.
        target: A folder that is made, or filled.
        to: For which program.
        corpus: Labelled speech, as `evaluate_model` takes it, on which the error rates of both are measured;
            None: no error rates.
        on_progress: Told the seconds of each labelled utterance when it is done.

    Returns:
        The report that lies beside the files.

    Raises:
        CheckpointError: If the model cannot be read, or the program could not run it.
        FileNotFoundError: If there is no such corpus.
        NotADirectoryError: If `target` is a file.
        ValueError: If `to` is unknown, or the corpus has no transcripts for this model.
        ImportError: If the extra that writes or runs the files is missing.
    """
    if to not in get_args(Target):
        raise ValueError(f"`to` must be one of {', '.join(get_args(Target))}, but is {to!r}.")
    for package, extra in NEEDED[to].items():
        if find_spec(package) is None:
            raise ImportError(
                f"export to {to} needs {package}; install it with pip install 'unispeech[{extra}]'."
            )
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target}: must be a folder, but is a file; name another, or remove it.")
    model = read_recogniser(source)
    labelled = None if corpus is None else LabelledSpeech(corpus, source)
    plain = _plain(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        fresh = Path(folder)
        run = _write(model, source, fresh, to)
        parity, speed = _race(plain, run)
        geometry = model.config.conv_kernel, model.config.conv_stride
        report = Report(
            to=to,
            num_sentences=len(speech()),
            parity=parity,
            speed=speed,
            corpus=None if corpus is None else str(corpus),
            error_rates=None if labelled is None else labelled.measure([plain, run], *geometry, on_progress),
        )
        (fresh / REPORT).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, fresh / name)
        target.mkdir(exist_ok=True)
        for path in fresh.iterdir():
            path.replace(target / path.name)
    return report


def _race(plain: Recognise, run: Recognise) -> tuple[Parity, Speed]:
    """Both on the carried sentences, in turn, so that a drift of the machine meets both."""
    sentences = speech()
    found = [(plain(sentence), run(sentence)) for sentence in sentences]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(PASSES):
        for recognise, taken in zip((plain, run), times, strict=True):
            start = time.perf_counter()
            for sentence in sentences:
                recognise(sentence)
            taken.append(time.perf_counter() - start)
    seconds = sum(map(len, sentences)) / SAMPLE_RATE
    return (
        compare([one for one, _ in found], [other for _, other in found]),
        Speed(plain=seconds / median(times[0]), export=seconds / median(times[1])),
    )


def _plain(model: "PreTrainedModel") -> Recognise:
    """The plain path."""
    from unispeech.engines.torch_engine import TorchEngine

    engine = TorchEngine(model, device="cpu", precision="float32")
    return lambda waveform: engine.log_probs([waveform])[0]


def _write(model: "PreTrainedModel", source: Path, folder: Path, to: Target) -> Recognise:
    """Write the files and open them."""
    if to == "ct2":
        return _write_ct2(model, source, folder)
    if to == "openvino":
        return _write_openvino(model, folder)
    if to == "sherpa":
        _write_tokens(source, folder)
    return _write_onnx(model, folder)


def _write_onnx(model: "PreTrainedModel", folder: Path) -> Recognise:
    """Write model.onnx and open it."""
    import onnx
    import onnxruntime

    from unispeech.engines.onnx_graph import draw_onnx

    onnx.save(draw_onnx(recogniser_of(model), has_moments=False), folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda waveform: np.asarray(session.run(None, {"waveforms": waveform[None]})[0][0])


def _write_openvino(model: "PreTrainedModel", folder: Path) -> Recognise:
    """Write model.xml and model.bin and open them; OpenVINO reads the graph that ONNX gets."""
    from unispeech.engines.onnx_graph import draw_onnx
    from unispeech.engines.openvino_engine import core
    from unispeech.engines.openvino_graph import openvino

    graph = draw_onnx(recogniser_of(model), has_moments=False).SerializeToString()
    openvino.save_model(core().read_model(graph), folder / "model.xml", compress_to_fp16=False)
    compiled = core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda waveform: np.array(compiled([waveform[None]])[0][0])


def _write_ct2(model: "PreTrainedModel", source: Path, folder: Path) -> Recognise:
    """Write what `ctranslate2.models.Wav2Vec2` reads and open it."""
    from unispeech.engines.ct2_files import check_fields, open_ct2, write_ct2

    check_fields(model, source)
    write_ct2(recogniser_of(model), Vocabulary.load(source).symbols, folder)
    return open_ct2(folder)


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
