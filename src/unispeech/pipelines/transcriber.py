"""Recordings -> transcripts: phones and words with times and scores.

Shapes in this file: B batch, S samples, T frames, N vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from unispeech.audio import Waveform, check_waveform, load_audio, normalise_waveform
from unispeech.checkpoints.hub import is_on_hub
from unispeech.checkpoints.huggingface import load_model
from unispeech.decoding.greedy import TokenSpan, greedy
from unispeech.engines.torch_engine import Precision, TorchEngine, find_device
from unispeech.errors import CheckpointError
from unispeech.frames import SAMPLE_RATE, Seconds, frame_to_seconds, num_frames
from unispeech.models.adapters import check_vocabulary
from unispeech.pipelines.recordings import FAILURES, NUM_AHEAD, Recording, open_recording, run_in_batches
from unispeech.results import Phone, Transcript, Word
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

SILENCE_PEAK = 2.0 / 32768
"""A recording that strays no further than this from its mean is silence: two steps of 16-bit audio, -84 dB.

Normalisation would blow the rounding noise of such a recording up to the level of speech.
"""


class Transcriber:
    """Writes down what is said: audio in, phones with times out.

    Greedy CTC: each frame (20 ms) names its best symbol, repeats are joined, blanks dropped. A symbol's times
    are those of the frames in which it wins, each frame standing for the 20 ms around its centre. A CTC
    network is free to name a symbol on a single frame of it, so **these times are places, not durations**:
    expect `start` to lie inside the phone and `end` one or two frames later.

    A whole recording goes through the network at once, which takes memory by the square of its length.
    Recordings too short for one frame (under 400 samples, 25 ms) and digital silence give no phones.

    Args:
        model: A model directory, a Hub id, or a CTC model with its weights.
        vocabulary: The symbols of the head; None reads them beside the model.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance; None takes what the
            directory's `preprocessor_config.json` or `processor_config.json` says, and True for a model with
            its weights.
        device: Where to run, such as "cpu" or "cuda:1"; "auto" takes the first GPU if there is one, and
            leaves a model with its weights where it is.
        precision: "float32", "bf16" or "auto", which is bf16 on GPUs that have it and float32 elsewhere. In
            float32 a recording gets the same phones in any batch.
        batch_seconds: Most seconds of audio that run at once, padding included; a longer recording runs
            alone.

    Raises:
        CheckpointError: If the directory lacks weights or vocabulary, or the vocabulary does not fit.
        ValueError: If a setting is out of its range, or a model with its weights comes without a vocabulary.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        *,
        vocabulary: Vocabulary | None = None,
        do_normalize: bool | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        batch_seconds: Seconds = 60.0,
    ) -> None:
        if not batch_seconds > 0:
            raise ValueError(f"`batch_seconds` must be positive, but is {batch_seconds}.")
        if isinstance(model, PreTrainedModel):
            name = model.name_or_path or type(model).__name__
            if vocabulary is None:
                raise ValueError("`vocabulary` must be given along with a model in memory, but is None.")
        else:
            name = str(model)
            network = load_model(model, head="ctc", dtype=torch.float32)
            files = model_files(model)
            vocabulary = Vocabulary.load(files) if vocabulary is None else vocabulary
            do_normalize = read_do_normalize(files) if do_normalize is None else do_normalize
            model, device = network, find_device(device)
        _check_head(model, vocabulary, name)
        self.vocabulary = vocabulary
        self.do_normalize = do_normalize is not False
        self.batch_seconds = batch_seconds
        self.engine = TorchEngine(model, device=device, precision=precision)

    def transcribe(self, audio: str | Path | npt.ArrayLike, sample_rate: int | None = None) -> Transcript:
        """Transcribe one recording.

        Args:
            audio: Path of an audio file of any kind, or (S,) float samples.
            sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.

        Returns:
            The transcript; its `audio` is the path, or empty for samples.

        Raises:
            ManifestError: If the file is not audio.
            OSError: If the file cannot be opened.
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape, are not finite, or `sample_rate` is missing
                for samples or given for a file.
        """
        if isinstance(audio, str | Path):
            if sample_rate is not None:
                raise ValueError(
                    f"`sample_rate` must be None for a file, which states its own, but is {sample_rate}."
                )
            [transcript] = self.transcribe_batch([load_audio(audio)])
            return replace(transcript, audio=str(audio))
        if sample_rate is None:
            raise ValueError(
                "`sample_rate` must be the rate of the samples in Hz, but is None; pass it along, "
                "or pass the path of a file."
            )
        [transcript] = self.transcribe_batch([check_waveform(audio, sample_rate=sample_rate, name="audio")])
        return transcript

    def transcribe_many(
        self, paths: Iterable[str | Path]
    ) -> Iterator[tuple[str | Path, Transcript | Exception]]:
        """Transcribe many recordings in batches by length.

        Results come as they finish, not in the order given: of every 256 paths the longest recordings go
        first. Each equals what `transcribe` gives for the path alone.

        Args:
            paths: Audio files; taken as they are needed, so that a generator of many is fine.

        Yields:
            Each path as it was given, with its transcript or with the error that reading it raised.
        """
        remaining = iter(paths)
        while ahead := list(islice(remaining, NUM_AHEAD)):
            recordings = []
            for path in ahead:
                try:
                    recordings.append(open_recording(path))
                except FAILURES as error:
                    yield path, error
            yield from self.transcribe_recordings(recordings)

    def transcribe_recordings(
        self, recordings: Iterable[Recording]
    ) -> Iterator[tuple[str | Path, Transcript | Exception]]:
        """Transcribe recordings from anywhere, such as cuts of a corpus; as `transcribe_many` in all else.

        Args:
            recordings: What to read.

        Yields:
            The source of each recording, with its transcript or with the error that reading it raised.
        """
        outcomes = run_in_batches(recordings, self.transcribe_batch, batch_seconds=self.batch_seconds)
        for recording, outcome in outcomes:
            if isinstance(outcome, Transcript):
                outcome = replace(outcome, audio=str(recording.source))
            yield recording.source, outcome

    def transcribe_batch(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms in one forward pass.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each recording.

        Returns:
            A transcript for each, in the order given, its `audio` empty.
        """
        spoken = [index for index, waveform in enumerate(waveforms) if self._is_spoken(waveform)]
        spans: list[list[TokenSpan]] = [[] for _ in waveforms]
        if spoken:
            inputs = [
                normalise_waveform(waveforms[index]) if self.do_normalize else waveforms[index]
                for index in spoken
            ]
            log_probs = self.engine.logits(inputs).log_softmax(dim=-1).numpy()  # (B, T, N)
            for row, index in enumerate(spoken):
                frames = num_frames(len(waveforms[index]), *self._geometry)
                spans[index] = greedy(log_probs[row, :frames], self.vocabulary.blank)
        return [
            self._transcript(found, len(waveform) / SAMPLE_RATE)
            for found, waveform in zip(spans, waveforms, strict=True)
        ]

    @property
    def _geometry(self) -> tuple[Sequence[int], Sequence[int]]:
        """Kernels and strides of the model's convolutions."""
        config = self.engine.model.config
        return config.conv_kernel, config.conv_stride

    def _is_spoken(self, waveform: Waveform) -> bool:
        """Whether there is a frame to look at and a sound in it."""
        if num_frames(len(waveform), *self._geometry) == 0:
            return False
        return float(np.abs(waveform - waveform.mean()).max()) > SILENCE_PEAK

    def _transcript(self, spans: Sequence[TokenSpan], duration: Seconds) -> Transcript:
        """Name the spans of a recording and give them seconds; special tokens are never shown."""
        vocabulary = self.vocabulary
        spans = [span for span in spans if span.token not in vocabulary.special]
        symbols = [self._phone(span) for span in spans]
        is_boundary = [span.token == vocabulary.word_boundary for span in spans]
        phones = [symbol for symbol, boundary in zip(symbols, is_boundary, strict=True) if not boundary]
        words = None
        if vocabulary.word_boundary is not None:
            pairs = groupby(zip(is_boundary, symbols, strict=True), key=lambda pair: pair[0])
            words = [_word([symbol for _, symbol in group]) for boundary, group in pairs if not boundary]
        # Boundaries may come first, last or twice; words show each once.
        is_spelled = words is not None and vocabulary.kind == "characters"
        text = (
            " ".join(word.word for word in words or [])
            if is_spelled
            else vocabulary.join(phone.phone for phone in phones)
        )
        return Transcript(audio="", duration=duration, text=text, phones=phones, words=words)

    def _phone(self, span: TokenSpan) -> Phone:
        """A span of frames in seconds: a frame stands for half a hop on either side of its centre."""
        return Phone(
            phone=self.vocabulary.symbols[span.token],
            start=max(frame_to_seconds(span.start_frame - 0.5, *self._geometry), 0.0),
            end=frame_to_seconds(span.end_frame - 0.5, *self._geometry),
            score=span.score,
        )


def model_files(source: str | Path) -> Path:
    """Find the vocabulary and the settings of a model.

    Args:
        source: A model directory or a Hub id, whose JSON files are then fetched into the Hub's cache.

    Returns:
        A local directory with the files.

    Raises:
        CheckpointError: If the Hub cannot be reached and its cache does not hold the model.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    is_away = not is_on_hub(source)
    return Path(snapshot_download(str(source), allow_patterns=["*.json"], local_files_only=is_away))


def _check_head(model: PreTrainedModel, vocabulary: Vocabulary, name: str) -> None:
    """Refuse a model that writes nothing, or writes other symbols than the vocabulary's."""
    if getattr(model, "lm_head", None) is None:
        raise ValueError(f"`model` must have a CTC head, but is {type(model).__name__}.")
    try:
        check_vocabulary(vocabulary, model)
    except CheckpointError as error:
        raise CheckpointError(
            f"{name}: {str(error).removesuffix('.')}; take the vocab.json that the head was trained with."
        ) from error


def _word(symbols: Sequence[Phone]) -> Word:
    """The symbols between two boundaries as one word."""
    return Word(
        word="".join(symbol.phone for symbol in symbols),
        start=symbols[0].start,
        end=symbols[-1].end,
        score=sum(symbol.score for symbol in symbols) / len(symbols),
    )
