"""Recordings -> labels: which of a classifier's classes a recording belongs to, with scores.

Shapes in this file: S samples, N labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unispeech.audio import Waveform
from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.engines.torch_engine import Precision, TorchEngine, find_device
from unispeech.frames import SAMPLE_RATE, Seconds, hop, receptive_field
from unispeech.pipelines.passes import Passes
from unispeech.pipelines.recordings import OnProgress, Recording, open_samples, run_in_batches, run_paths
from unispeech.pipelines.windows import Survey, Window
from unispeech.results import Classification, ClassifiedWindow, LabelScore
from unispeech.tokenizer_files import read_do_normalize


class Classifier:
    """Says which of a model's labels fit a recording: a keyword, a language, a speaker, a mood.

    The head averages over the frames of a recording before its last, linear layer. Recordings of up to
    `window_seconds` go through the network whole. Longer ones go through it in windows that are cut where it
    is quietest and do not overlap; the logits of the windows are averaged, each weighted by its frames, which
    up to attention and positions (a window sees itself only) is what one pass would give. The scores of each
    window are told beside those of the whole. Files are read in blocks, long ones twice.

    Args:
        model: A model directory, a Hub id, or a classifier with its weights.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance; None takes what the
            directory says, and True for a model with its weights.
        device: As for `Transcriber`.
        precision: As for `Transcriber`.
        batch_seconds: Most seconds of audio that run at once, padding included; a longer recording runs
            alone.
        window_seconds: Most seconds that the network hears at once, at least 1. For keywords in a long
            recording take the length of the utterances that the model was trained on.

    Raises:
        CheckpointError: If the directory holds no classifier.
        ValueError: If a setting is out of its range, or the model has no labels to tell apart.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        do_normalize: bool | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        batch_seconds: Seconds = 60.0,
        window_seconds: Seconds = 30.0,
    ) -> None:
        if isinstance(model, PreTrainedModel):
            name = model.name_or_path or type(model).__name__
        else:
            name = str(model)
            network = load_model(model, head="classification", dtype=torch.float32)
            do_normalize = read_do_normalize(model_files(model)) if do_normalize is None else do_normalize
            model, device = network, find_device(device)
        self.labels = _labels(model, name)
        self.is_exclusive = model.config.problem_type != "multi_label_classification"
        self.batch_seconds = batch_seconds
        self.window_seconds = window_seconds
        self.engine = TorchEngine(model, device=device, precision=precision)
        self.passes = Passes(
            self.engine,
            do_normalize=do_normalize is not False,
            window_seconds=window_seconds,
            overlap_seconds=0.0,
            batch_seconds=batch_seconds,
        )
        self._shortest = receptive_field(self.passes.kernels, self.passes.strides)

    def classify(
        self,
        audio: str | Path | npt.ArrayLike,
        sample_rate: int | None = None,
        *,
        top_k: int = 5,
        on_progress: OnProgress | None = None,
    ) -> Classification:
        """Classify one recording of any length.

        Args:
            audio: Path of an audio file of any kind, or (S,) float samples.
            sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.
            top_k: How many labels to give at most.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Returns:
            The labels that fit best; its `audio` is the path, or empty for samples.

        Raises:
            ManifestError: If the file is not audio.
            OSError: If the file cannot be opened.
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape, are not finite, `sample_rate` is missing
                for samples or given for a file, or `top_k` is not positive.
        """
        open_blocks = open_samples(audio, sample_rate)
        waveform = self.passes.read_short(open_blocks)
        if waveform is None:
            found = self._classify_long(open_blocks, top_k, on_progress)
        else:
            [found] = self.classify_batch([waveform], top_k=top_k)
            if on_progress is not None:
                on_progress(found.duration)
        return replace(found, audio=str(audio)) if isinstance(audio, str | Path) else found

    def classify_many(
        self, paths: Iterable[str | Path], *, top_k: int = 5, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Classification | Exception]]:
        """Classify many recordings in batches by length; as `Transcriber.transcribe_many` in all else.

        Args:
            paths: Audio files.
            top_k: How many labels to give at most.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            Each path with its labels or with the error that reading it raised, as they finish.
        """
        yield from run_paths(
            paths,
            lambda recordings: self.classify_recordings(recordings, top_k=top_k, on_progress=on_progress),
        )

    def classify_recordings(
        self, recordings: Iterable[Recording], *, top_k: int = 5, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Classification | Exception]]:
        """Classify recordings from anywhere, such as cuts of a corpus.

        Args:
            recordings: What to read.
            top_k: How many labels to give at most.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            The source of each recording, with its labels or with the error that reading it raised.
        """
        outcomes = run_in_batches(
            recordings,
            lambda waveforms: partial(self.classify_batch, waveforms, top_k=top_k),
            batch_seconds=self.batch_seconds,
            process_long=lambda recording: self._classify_long(recording.open_blocks, top_k, on_progress),
            long_seconds=self.window_seconds,
            on_progress=on_progress,
        )
        for recording, outcome in outcomes:
            if isinstance(outcome, Classification):
                outcome = replace(outcome, audio=str(recording.source))
            yield recording.source, outcome

    def classify_batch(self, waveforms: Sequence[Waveform], *, top_k: int = 5) -> list[Classification]:
        """Classify waveforms in one forward pass.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each recording, short enough for one pass together.
            top_k: How many labels to give at most.

        Returns:
            The labels of each, in the order given, its `audio` empty; none where it is too short for a frame.

        Raises:
            ValueError: If `top_k` is not positive.
        """
        if not waveforms:
            return []
        logits = self.engine.logits(self.passes.scale(waveforms))
        return [
            Classification(
                audio="",
                duration=len(waveform) / SAMPLE_RATE,
                labels=self._best(row, top_k) if len(waveform) >= self._shortest else [],
            )
            for waveform, row in zip(waveforms, logits, strict=True)
        ]

    def _classify_long(
        self, open_blocks: Callable[[], Iterable[Waveform]], top_k: int, on_progress: OnProgress | None
    ) -> Classification:
        """Classify a recording window by window."""
        survey = self.passes.survey(open_blocks())
        duration = survey.num_samples / SAMPLE_RATE
        hop_seconds = hop(self.passes.strides) / SAMPLE_RATE
        total = torch.zeros(len(self.labels))
        windows: list[ClassifiedWindow] = []
        for window, logits in self._window_logits(open_blocks(), survey):
            total += logits * (window.kept_to - window.kept_from)
            start = window.kept_from * hop_seconds
            # The last frame ends before the recording does.
            end = duration if window.kept_to == len(survey.loudness) else window.kept_to * hop_seconds
            windows.append(ClassifiedWindow(start=start, end=end, labels=self._best(logits, top_k)))
            if on_progress is not None:
                on_progress(end - start)
        return Classification(
            audio="",
            duration=duration,
            labels=self._best(total / len(survey.loudness), top_k),
            windows=windows,
        )

    def _window_logits(self, blocks: Iterable[Waveform], survey: Survey) -> Iterator[tuple[Window, Tensor]]:
        """Run a long recording.

        Yields:
            Each window with its (N,) logits.
        """
        for part in self.passes.cut(blocks, survey):
            yield from zip(
                part.windows, self.engine.logits(part.waveforms, moments=part.moments), strict=True
            )

    def _best(self, logits: Tensor, top_k: int) -> list[LabelScore]:
        """The labels that fit best, of (N,) logits."""
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, but is {top_k}.")
        scores = logits.softmax(dim=-1) if self.is_exclusive else logits.sigmoid()
        best = scores.topk(min(top_k, len(self.labels)))
        return [
            LabelScore(label=self.labels[index], score=score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def _labels(model: PreTrainedModel, name: str) -> list[str]:
    """The labels of a classifier in the order of its logits."""
    if getattr(model, "classifier", None) is None:
        raise ValueError(f"`model` must have a classification head, but is {type(model).__name__}.")
    labels = model.config.id2label
    if model.config.problem_type == "regression" or len(labels) < 2:
        raise ValueError(
            f"{name}: must tell at least two labels apart, but {', '.join(labels.values())} is a regression; "
            "run the model in Python."
        )
    return [labels[index] for index in range(len(labels))]
