"""Recordings -> vectors: what the network makes of each frame, or of a whole recording.

Shapes in this file: B batch, S samples, T frames, H hidden, D vector (H, or 2 H for mean and deviation).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unispeech.audio import Waveform
from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.engines.engine import WindowMoments
from unispeech.engines.torch_engine import Precision, TorchEngine, find_device
from unispeech.frames import SAMPLE_RATE, Seconds, frame_to_seconds, hop, num_frames
from unispeech.pipelines.passes import Passes
from unispeech.pipelines.recordings import OnProgress, Recording, open_samples, run_in_batches, run_paths
from unispeech.tokenizer_files import read_do_normalize

Pooling = Literal["none", "mean", "mean+std"]
"""A vector for each frame; their mean; their mean and, behind it, their standard deviation."""

Dtype = Literal["float32", "float16"]

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]
"""(T, H) or (D,)."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What the network makes of one recording."""

    audio: str
    """The path as the caller gave it."""
    duration: Seconds
    """Length of the recording."""
    shape: tuple[int, ...]
    """(T, H), or (D,) where frames are pooled."""
    blocks: Iterable[Vectors]
    """The vectors in pieces that follow one another along the first axis; those of a long recording are
    computed as they are taken, once."""

    def vectors(self) -> Vectors:
        """Put the pieces together.

        Returns:
            An array of `shape`.
        """
        return np.concatenate(list(self.blocks))


class Embedder:
    """Gives the representations of a layer: frames of 20 ms, or one vector for a recording.

    Recordings of up to `window_seconds` go through the network whole and get what the model gives. Longer
    ones go through it in windows, cut where it is quietest, that overlap; each frame is kept once, so that
    there are as many as in one pass. Up to attention and positions, which see a window only, they are the
    same. Files are read in blocks, long ones twice, and memory does not grow with the length.

    Args:
        model: A model directory, a Hub id, or a model with its weights; with any head or none.
        layer: None for the context, which is what heads see (behind the final norm of large models). A number
            for the hidden state 0 (input of the first layer) to num_layers, where negative ones count from
            the last; in large models these are before the final norm. Or a weighted sum: layer -> weight.
        pooling: What becomes of the frames.
        dtype: Number format of the vectors.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance; None takes what the
            directory says, and True for a model with its weights.
        device: As for `Transcriber`.
        precision: As for `Transcriber`.
        batch_seconds: Most seconds of audio that run at once, padding included.
        window_seconds: Most seconds that the network hears at once, at least 1.
        overlap_seconds: Seconds at either side of a window that are heard but not kept, in
            [0, window_seconds / 4].

    Raises:
        CheckpointError: If the directory cannot be used.
        ValueError: If a setting is out of its range, or the model has no such layer.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        layer: int | Mapping[int, float] | None = None,
        pooling: Pooling = "none",
        dtype: Dtype = "float32",
        do_normalize: bool | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        batch_seconds: Seconds = 60.0,
        window_seconds: Seconds = 20.0,
        overlap_seconds: Seconds = 1.0,
    ) -> None:
        for name, value, choices in (
            ("pooling", pooling, get_args(Pooling)),
            ("dtype", dtype, get_args(Dtype)),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, but is {value!r}.")
        if isinstance(model, PreTrainedModel):
            self.name = model.name_or_path or type(model).__name__
        else:
            self.name = str(model)
            network = load_model(model, head="base", dtype=torch.float32)
            do_normalize = read_do_normalize(model_files(model)) if do_normalize is None else do_normalize
            model, device = network, find_device(device)
        self.layers = _layer_weights(layer, model.config.num_hidden_layers)
        self.pooling, self.dtype = pooling, np.dtype(dtype)
        self.batch_seconds, self.window_seconds = batch_seconds, window_seconds
        self.engine = TorchEngine(model, device=device, precision=precision)
        self.passes = Passes(
            self.engine,
            do_normalize=do_normalize is not False,
            window_seconds=window_seconds,
            overlap_seconds=overlap_seconds,
            batch_seconds=batch_seconds,
        )
        self._hidden_size = int(model.config.hidden_size)

    def describe(self) -> dict[str, str | float]:
        """Say what the vectors are, for those who read them later.

        Returns:
            `model`, `layer` ("context", a number, or the weighted sum as `parse_layer` reads it), `pooling`,
            `dtype`, `frame_rate` (frames a second) and `first_frame` (seconds to the centre of the first).
        """
        layer = "context"
        if self.layers is not None:
            is_one = list(self.layers.values()) == [1.0]
            layer = ",".join(f"{n}" if is_one else f"{n}={w:g}" for n, w in self.layers.items())
        return {
            "model": self.name,
            "layer": layer,
            "pooling": self.pooling,
            "dtype": self.dtype.name,
            "frame_rate": SAMPLE_RATE / hop(self.passes.strides),
            "first_frame": frame_to_seconds(0, self.passes.kernels, self.passes.strides),
        }

    def embed(self, audio: str | Path | npt.ArrayLike, sample_rate: int | None = None) -> Vectors:
        """Embed one recording of any length.

        Args:
            audio: Path of an audio file of any kind, or (S,) float samples.
            sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.

        Returns:
            (T, H) vectors, T as `frames.num_frames` counts; or (D,) where frames are pooled.

        Raises:
            ManifestError: If the file is not audio.
            OSError: If the file cannot be opened.
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape or are not finite, `sample_rate` is missing
                for samples or given for a file, there is no frame to pool, or float16 cannot hold a value.
        """
        open_blocks = open_samples(audio, sample_rate)
        waveform = self.passes.read_short(open_blocks)
        heard = self._hear_long(open_blocks, None) if waveform is None else self._hear([waveform])[0]
        return self._finish(heard, str(audio) if isinstance(audio, str | Path) else "").vectors()

    def embed_many(
        self, paths: Iterable[str | Path], *, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Embedding | Exception]]:
        """Embed many recordings in batches by length; as `Transcriber.transcribe_many` in all else.

        Args:
            paths: Audio files.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            Each path with its vectors or with the error that reading it raised, as they finish.
        """
        yield from run_paths(
            paths, lambda recordings: self.embed_recordings(recordings, on_progress=on_progress)
        )

    def embed_recordings(
        self, recordings: Iterable[Recording], *, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Embedding | Exception]]:
        """Embed recordings from anywhere, such as cuts of a corpus.

        Args:
            recordings: What to read.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            The source of each recording, with its vectors or with the error that reading it raised. The
            blocks of a long recording are to be taken before the next is asked for.
        """
        outcomes = run_in_batches(
            recordings,
            lambda waveforms: partial(self._hear, waveforms),
            batch_seconds=self.batch_seconds,
            process_long=lambda recording: self._hear_long(recording.open_blocks, on_progress),
            long_seconds=self.window_seconds,
            on_progress=on_progress,
        )
        for recording, outcome in outcomes:
            if isinstance(outcome, _Heard):
                try:
                    yield recording.source, self._finish(outcome, str(recording.source))
                except ValueError as error:
                    yield recording.source, error
            else:
                yield recording.source, outcome

    def _hear(self, waveforms: Sequence[Waveform]) -> "list[_Heard]":
        """Run whole recordings in one pass."""
        heard = []
        rows = self._represent(self.passes.scale(waveforms), None)
        for waveform, row in zip(waveforms, rows, strict=True):
            frames = num_frames(len(waveform), self.passes.kernels, self.passes.strides)
            heard.append(
                _Heard(num_frames=frames, duration=len(waveform) / SAMPLE_RATE, blocks=[row[:frames].numpy()])
            )
        return heard

    def _hear_long(
        self, open_blocks: Callable[[], Iterable[Waveform]], on_progress: OnProgress | None
    ) -> "_Heard":
        """Run a recording window by window, as its frames are taken."""
        survey = self.passes.survey(open_blocks())
        duration, num = survey.num_samples / SAMPLE_RATE, len(survey.loudness)

        def blocks() -> Iterator[npt.NDArray[np.float32]]:
            done = 0
            for part in self.passes.cut(open_blocks(), survey):
                rows = self._represent(part.waveforms, part.moments)
                for row, window in zip(rows, part.windows, strict=True):
                    if on_progress is not None:
                        on_progress(duration * (window.kept_to - done) / num)
                    done = window.kept_to
                    yield row[window.kept].numpy()

        return _Heard(num_frames=num, duration=duration, blocks=blocks())

    def _represent(self, inputs: Sequence[Waveform], moments: WindowMoments | None) -> Tensor:
        """The (B, T, H) representations of a batch."""
        if self.layers is None:
            return self.engine.states(inputs, moments=moments)[0]
        states = self.engine.states(inputs, list(self.layers), moments=moments)
        mixed = torch.zeros_like(states[0])
        for weight, state in zip(self.layers.values(), states, strict=True):
            mixed += weight * state
        return mixed

    def _finish(self, heard: "_Heard", name: str) -> Embedding:
        """Pool frames where that is asked for, and take the number format asked for."""
        shape: tuple[int, ...] = (heard.num_frames, self._hidden_size)
        blocks = heard.blocks
        if self.pooling != "none":
            if heard.num_frames == 0:
                raise ValueError(
                    f"{name or '`audio`'}: must have a frame to be pooled, but lasts {heard.duration:.3f} s; "
                    "leave it out."
                )
            vector = pool_frames(blocks, with_deviation=self.pooling == "mean+std")
            shape, blocks = vector.shape, [vector]
        return Embedding(audio=name, duration=heard.duration, shape=shape, blocks=map(self._cast, blocks))

    def _cast(self, block: npt.NDArray[np.float32]) -> Vectors:
        """The number format asked for."""
        with np.errstate(over="ignore"):
            vectors: Vectors = block.astype(self.dtype)
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"`dtype` must hold every value, but {self.dtype} does not hold {np.abs(block).max():g}; "
                "take float32."
            )
        return vectors


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """The frames of a recording, before they are pooled."""

    num_frames: int
    duration: Seconds
    blocks: Iterable[npt.NDArray[np.float32]]


def pool_frames(
    blocks: Iterable[npt.NDArray[np.float32]], *, with_deviation: bool
) -> npt.NDArray[np.float32]:
    """Average over frames, in sums of float64, taking one block at a time.

    Args:
        blocks: (T_i, H) frames that follow one another, one at least.
        with_deviation: Whether the standard deviation (of the frames, not of a sample) goes behind the mean.

    Returns:
        (H,) or (2 H,).
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    origin = np.zeros(0)
    for block in blocks:
        frames = block.astype(np.float64)
        # Squares are summed around the first frame: a mean far from 0 would cost digits.
        origin = origin if origin.size else frames[0]
        frames = frames - origin  # not in place: the origin may be one of them
        count += len(frames)
        total = total + frames.sum(axis=0)
        squares = squares + (frames**2).sum(axis=0)
    mean = total / count
    vector = np.asarray(mean + origin, np.float32)
    if not with_deviation:
        return vector
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return np.concatenate([vector, deviation.astype(np.float32)])


def parse_layer(text: str) -> int | dict[int, float] | None:
    """Read a layer, or a weighted sum of layers, as the command line gives it.

    Args:
        text: "context", a number, or "4=0.5,8=0.5".

    Returns:
        What `Embedder` takes.

    Raises:
        ValueError: If it is none of these.
    """
    if text == "context":
        return None
    try:
        if "=" not in text:
            return int(text)
        parts = [part.split("=") for part in text.split(",")]
        weights = {int(layer): float(weight) for layer, weight in parts}
    except ValueError:
        raise ValueError(
            f"`layer` must be context, a number, or a weighted sum such as 4=0.5,8=0.5, but is {text!r}."
        ) from None
    if len(weights) < len(parts):
        raise ValueError(f"`layer` must name each layer once, but is {text!r}.")
    return weights


def _layer_weights(layer: int | Mapping[int, float] | None, num_layers: int) -> dict[int, float] | None:
    """Layer -> weight, layers counted from 0; None for the context."""
    if layer is None:
        return None
    given = {layer: 1.0} if isinstance(layer, int) else dict(layer)
    for number, weight in given.items():
        if not -num_layers - 1 <= number <= num_layers:
            raise ValueError(
                f"`layer` must lie in [{-num_layers - 1}, {num_layers}] for a model of {num_layers} layers, "
                f"but is {number}."
            )
        if not math.isfinite(weight):
            raise ValueError(f"`layer` must have finite weights, but has {weight} for {number}.")
    if not given:
        raise ValueError("`layer` must name a layer at least, but is empty.")
    return {number % (num_layers + 1): float(weight) for number, weight in given.items()}
