"""The model that a server runs, and what it is asked to do.

Shape in this file: S samples.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import cast

from unispeech.audio import Waveform
from unispeech.checkpoints.hub import model_files
from unispeech.data.g2p import open_phonemizer
from unispeech.decoding.decoder import GreedyDecoder
from unispeech.decoding.inventory import known_inventories, restrict
from unispeech.engines.torch_engine import Precision as TorchPrecision
from unispeech.frames import SAMPLE_RATE
from unispeech.phones import nearest
from unispeech.pipelines.aligner import Aligner
from unispeech.pipelines.classifier import Classifier
from unispeech.pipelines.streaming import StreamingTranscriber
from unispeech.pipelines.transcriber import Transcriber
from unispeech.results import Classification, Transcript
from unispeech.serving.refusals import Refusal
from unispeech.serving.settings import ModelSettings
from unispeech.serving.worker import Task

GiveWay = Callable[[], None]


class Served:
    """A recogniser or a classifier, loaded; all but `close` makes tasks for the thread that loaded it.

    Args:
        settings: Which model, and how it runs.

    Raises:
        CheckpointError: If the directory holds no recogniser and no classifier.
        ValueError: If a setting is out of its range.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        files = model_files(settings.model)
        self.created = int((files / "config.json").stat().st_mtime) if (files / "config.json").exists() else 0
        self._stack = ExitStack()
        self._transcribers: dict[str | None, Transcriber] = {}
        self._inventories: dict[str, list[str]] = {}
        self.classifier: Classifier | None = None
        # 0 runs every request alone, but one alone is always allowed.
        batch_seconds = settings.batch_seconds or 1.0
        if is_classifier(files):
            self.classifier = Classifier(
                settings.model,
                device=settings.device,
                # It runs in torch, which says what it cannot.
                precision=cast("TorchPrecision", settings.precision),
                batch_seconds=batch_seconds,
                window_seconds=settings.window_seconds,
            )
            # One object, so that tasks know that they can share a pass.
            self._classify_batch = partial(self.classifier.classify_batch, top_k=len(self.classifier.labels))
            return
        transcriber = Transcriber(
            settings.model,
            device=settings.device,
            precision=settings.precision,
            engine=settings.engine,
            cuda_graphs=settings.cuda_graphs,
            batch_seconds=batch_seconds,
            window_seconds=settings.window_seconds,
            overlap_seconds=settings.overlap_seconds,
        )
        self._transcribers[None] = transcriber
        self._inventories = known_inventories(files, transcriber.vocabulary)
        self._phonemizer = None
        if settings.g2p is not None:
            opened = open_phonemizer(settings.g2p, language=settings.language, lexicon=settings.lexicon)
            self._phonemizer = self._stack.enter_context(opened)

    def close(self) -> None:
        """End the process of the phonemizer, where it has one."""
        self._stack.close()

    @property
    def languages(self) -> list[str]:
        """Languages of which the model knows the inventory, in alphabetical order."""
        return sorted(self._inventories)

    @property
    def labeller(self) -> Classifier:
        """The classifier.

        Raises:
            Refusal: If a recogniser is served.
        """
        if self.classifier is None:
            message = "is a recogniser; send recordings to /v1/audio/transcriptions."
            raise Refusal(404, f"{self.settings.shown_name} {message}", code="wrong_model")
        return self.classifier

    @property
    def recogniser(self) -> Transcriber:
        """The recogniser.

        Raises:
            Refusal: If a classifier is served.
        """
        if self.classifier is not None:
            message = "is a classifier; send recordings to /v1/classify."
            raise Refusal(404, f"{self.settings.shown_name} {message}", code="wrong_model")
        return self._transcribers[None]

    def transcribe(self, transcriber: Transcriber, waveform: Waveform) -> Task[Transcript]:
        """Make the task of writing down what is said.

        Args:
            transcriber: As `for_language` gives it.
            waveform: (S,) samples at 16 kHz.
        """

        def run(give_way: GiveWay) -> Transcript:
            return transcriber.transcribe(waveform, SAMPLE_RATE, on_progress=lambda seconds: give_way())

        if self.is_long(waveform):
            return Task(run, is_long=True)
        return Task(run, run_batch=transcriber.transcribe_batch, waveform=waveform)

    def align(self, waveform: Waveform, text: str, *, is_phones: bool, wildcard: bool) -> Task[Transcript]:
        """Make the task of finding when a known text is said.

        Args:
            waveform: (S,) samples at 16 kHz.
            text: What is said.
            is_phones: Whether `text` holds phones.
            wildcard: Whether what cannot be spelled becomes a wildcard.
        """
        transcriber = self.recogniser

        def run(give_way: GiveWay) -> Transcript:
            give_way()
            aligner = Aligner(
                transcriber,
                phonemizer=self._phonemizer,
                language=self.settings.language if transcriber.vocabulary.languages else None,
                wildcard=wildcard,
            )
            return aligner.align(
                waveform,
                text,
                is_phones=is_phones,
                sample_rate=SAMPLE_RATE,
                on_progress=lambda seconds: give_way(),
            )

        return Task(run, is_long=self.is_long(waveform))

    def classify(self, waveform: Waveform) -> Task[Classification]:
        """Make the task of telling how well every label fits.

        Args:
            waveform: (S,) samples at 16 kHz.
        """
        classifier = self.labeller
        num_labels = len(classifier.labels)

        def run(give_way: GiveWay) -> Classification:
            return classifier.classify(
                waveform, SAMPLE_RATE, top_k=num_labels, on_progress=lambda seconds: give_way()
            )

        if self.is_long(waveform):
            return Task(run, is_long=True)
        return Task(run, run_batch=self._classify_batch, waveform=waveform)

    def open_stream(self) -> StreamingTranscriber:
        """Begin a stream; its blocks are fed on the thread.

        Raises:
            Refusal: If a classifier is served.
        """
        return StreamingTranscriber(self.recogniser)

    def is_long(self, waveform: Waveform) -> bool:
        """Whether a recording goes through the network in windows.

        Args:
            waveform: (S,) samples at 16 kHz.
        """
        return len(waveform) > self.settings.window_seconds * SAMPLE_RATE

    def for_language(self, language: str | None) -> Transcriber:
        """Give the recogniser with the inventory of a language.

        Args:
            language: One of `languages`; None: all symbols.

        Raises:
            Refusal: If the model does not know the language, or is a classifier.
        """
        plain = self.recogniser
        if language not in self._transcribers:
            known = self.languages
            if not known:
                name = self.settings.shown_name
                message = f"`language` must be left out, {name} knows no inventories of languages, but is"
                raise _bad_language(f"{message} {language!r}.")
            if language not in self._inventories:
                found = nearest(str(language), known)
                message = f"`language` must be one of {', '.join(known)}, but is {language!r}{found}"
                raise _bad_language(message)
            # The same network behind another vocabulary.
            restriction = restrict(plain.vocabulary, self._inventories[str(language)], language=language)
            bound = copy(plain)
            bound.inventory, bound.vocabulary = restriction, restriction.vocabulary
            bound.decoder = GreedyDecoder(restriction.vocabulary.blank)
            self._transcribers[language] = bound
        return self._transcribers[language]


def is_classifier(files: Path) -> bool:
    """Whether a model directory says that it holds a classifier.

    Args:
        files: The directory.
    """
    try:
        config = json.loads((files / "config.json").read_text(encoding="utf-8"))
        return any(str(name).endswith("ForSequenceClassification") for name in config["architectures"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # loading it says what is wrong


def _bad_language(message: str) -> Refusal:
    return Refusal(422, message, code="unknown_language", param="language")
