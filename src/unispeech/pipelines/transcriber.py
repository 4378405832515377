"""Recordings -> transcripts: phones and words with times and scores.

Shapes in this file: B batch, S samples, T frames, N vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy.typing as npt

from unispeech.audio import Waveform
from unispeech.decoding.beam_decoder import BeamDecoder, NbestDecoder, join_nbest
from unispeech.decoding.calibration import Calibration, read_calibration
from unispeech.decoding.decoder import Decoder, GreedyDecoder, LogProbs, decode_blocks
from unispeech.decoding.greedy import TokenSpan
from unispeech.decoding.inventory import Restriction
from unispeech.engines.choice import open_engine, read_recogniser
from unispeech.engines.engine import Engine, EngineName, Precision
from unispeech.errors import CheckpointError
from unispeech.frames import SAMPLE_RATE, Seconds, frame_to_seconds, hop
from unispeech.pipelines.emissions import Emitter
from unispeech.pipelines.recordings import OnProgress, Recording, open_samples, run_in_batches, run_paths
from unispeech.pipelines.segments import MAX_PAUSE, split_at_pauses
from unispeech.pipelines.timing import Sound, TimingDecoder
from unispeech.pipelines.voice import Vad
from unispeech.results import Candidate, Phone, Reading, Transcript, Word
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Times = Literal["extents", "spikes"]
"""What the times of phones are: how long they last, or the frames in which the network names them."""


class Transcriber:
    """Writes down what is said: audio in, phones with times out.

    Greedy CTC: each frame (20 ms) names its best symbol, repeats are joined, blanks dropped. A CTC network is
    free to name a symbol on a single frame of it. How long the symbol lasts is found by `decoding.extents`,
    on a grid of 5 ms: the frames between two symbols go to the one, the other, or the silence between them.
    Where neither sound nor network speaks for silence, one symbol ends where the next begins.

    Recordings of up to `window_seconds` go through the network whole, longer ones in windows that are cut
    where it is quietest (`vad`), overlap, and are joined by their log-probabilities: memory does not grow
    with the length. Files are read in blocks, long ones twice, since scaling and group norm take the
    statistics of the whole. Recordings too short for one frame (under 400 samples, 25 ms) and digital silence
    give no phones.

    Args:
        model: A model directory, a Hub id, or a CTC model with its weights.
        vocabulary: The symbols of the head; None reads them beside the model.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance; None takes what the
            directory's `preprocessor_config.json` or `processor_config.json` says, and True for a model with
            its weights.
        device: Where to run, such as "cpu" or "cuda:1"; "auto" takes the first GPU if there is one, and
            leaves a model with its weights where it is.
        precision: "float32", "bf16", "int8" or "auto", which is bf16 on GPUs that have it and float32
            elsewhere. In float32 a recording gets the same phones in any batch.
        engine: "torch", "openvino", "onnxruntime" or "auto", which is the fastest here that computes the
            same up to rounding; see `engines.choice.open_engine`. `transcriber.engine.name` says which it is.
        compile: Whether torch compiles the layers, see `TorchEngine`; "auto" is then torch.
        cuda_graphs: Whether short recordings that run alone are replayed from CUDA graphs, see
            `TorchEngine`; "auto" is then torch.
        batch_seconds: Most seconds of audio that run at once, padding included; a longer recording runs
            alone.
        window_seconds: Most seconds that the network hears at once of one recording, at least 1.
        overlap_seconds: Seconds at either side of a window that are heard but not kept, in
            [0, window_seconds / 4].
        vad: What says where windows may be cut: "energy" where it is quietest; "silero" where nobody speaks,
            by the network of silero-vad (extra vad), and there where it is quietest.
        decoder: Turns log-probabilities into spans; None decodes greedily. Longer recordings than five
            minutes are decoded in sections, see `decoding.decoder.decode_blocks`. A `BeamDecoder` that is to
            list several transcripts fills `nbest` and the phones' `alternatives`.
        inventory: Lays another vocabulary upon the model's, as `decoding.inventory.restrict` makes it for the
            model's own; `decoder` then gets log-probabilities of that one. None changes nothing.
        times: "extents" are from where a symbol begins to where it ends. "spikes" are the frames in which the
            network names it, each standing for the 20 ms around its centre: places, not durations.
        max_pause: Longest silence within a segment, at least 0.
        calibration: What makes probabilities of the phones' scores; it changes nothing that is recognised,
            nor `alternatives` and `nbest`. None reads the `calibration.json` of a directory that has one, and
            leaves the scores of a model with its weights as they are.

    Raises:
        CheckpointError: If the directory lacks weights or vocabulary, or the vocabulary does not fit, or its
            calibration is broken.
        ImportError: If an extra that `engine` or `vad` needs is not installed.
        ValueError: If a setting is out of its range, or a model with its weights comes without a vocabulary.
    """

    def __init__(
        self,
        model: "str | Path | PreTrainedModel",
        *,
        vocabulary: Vocabulary | None = None,
        do_normalize: bool | None = None,
        device: "str | torch.device" = "auto",
        precision: Precision = "auto",
        engine: EngineName = "auto",
        compile: bool = False,
        cuda_graphs: bool = False,
        batch_seconds: Seconds = 60.0,
        window_seconds: Seconds = 20.0,
        overlap_seconds: Seconds = 1.0,
        vad: Vad = "energy",
        decoder: Decoder | None = None,
        inventory: Restriction | None = None,
        times: Times = "extents",
        max_pause: Seconds = MAX_PAUSE,
        calibration: Calibration | None = None,
    ) -> None:
        if times not in get_args(Times):
            raise ValueError(f"`times` must be one of {', '.join(get_args(Times))}, but is {times!r}.")
        if not max_pause >= 0:
            raise ValueError(f"`max_pause` must not be negative, but is {max_pause}.")
        name, files = str(getattr(model, "name_or_path", "") or type(model).__name__), None
        if isinstance(model, str | Path):
            name, files = str(model), Path(model)
            if not files.is_dir():
                model, files = _fetch(model)
        elif vocabulary is None:
            raise ValueError("`vocabulary` must be given along with a model in memory, but is None.")
        elif getattr(model, "lm_head", None) is None:
            raise ValueError(f"`model` must have a CTC head, but is {type(model).__name__}.")
        self.engine = open_engine(
            model,
            files,
            engine=engine,
            precision=precision,
            device=device,
            compile=compile,
            cuda_graphs=cuda_graphs,
        )
        if files is not None:
            vocabulary = Vocabulary.load(files) if vocabulary is None else vocabulary
            do_normalize = read_do_normalize(files) if do_normalize is None else do_normalize
            calibration = read_calibration(files) if calibration is None else calibration
        assert vocabulary is not None
        _check_head(self.engine, vocabulary, name)
        self.inventory = inventory
        self.times, self.max_pause = times, max_pause
        self.calibration = calibration or Calibration()
        self.vocabulary = vocabulary = vocabulary if inventory is None else inventory.vocabulary
        self.do_normalize = do_normalize is not False
        self.batch_seconds = batch_seconds
        self.window_seconds = window_seconds
        self.decoder = GreedyDecoder(vocabulary.blank) if decoder is None else decoder
        self.emitter = Emitter(
            self.engine,
            do_normalize=self.do_normalize,
            window_seconds=window_seconds,
            overlap_seconds=overlap_seconds,
            batch_seconds=batch_seconds,
            vad=vad,
        )

    def transcribe(
        self,
        audio: str | Path | npt.ArrayLike,
        sample_rate: int | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> Transcript:
        """Transcribe one recording of any length.

        Args:
            audio: Path of an audio file of any kind, or (S,) float samples.
            sample_rate: Rate of the samples in Hz, 16000; None for a file, which states its own.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Returns:
            The transcript; its `audio` is the path, or empty for samples.

        Raises:
            ManifestError: If the file is not audio.
            OSError: If the file cannot be opened.
            TypeError: If the samples are not floats.
            ValueError: If the samples have another rate or shape, are not finite, or `sample_rate` is missing
                for samples or given for a file.
        """
        transcript = self._transcribe(open_samples(audio, sample_rate), on_progress)
        return replace(transcript, audio=str(audio)) if isinstance(audio, str | Path) else transcript

    def log_probs(
        self, audio: str | Path | npt.ArrayLike, sample_rate: int | None = None
    ) -> Iterator[LogProbs]:
        """Give the log-probabilities of a recording of any length, for who decodes or aligns by himself.

        Args:
            audio: As for `transcribe`.
            sample_rate: As for `transcribe`.

        Yields:
            (T_i, N) natural log-probabilities that follow one another and cover each frame once; nothing for
            silence.

        Raises:
            ManifestError: As `transcribe`.
            OSError: As `transcribe`.
            TypeError: As `transcribe`.
            ValueError: As `transcribe`.
        """
        open_blocks = open_samples(audio, sample_rate)
        waveform = self.emitter.read_short(open_blocks)
        if waveform is None:
            survey = self.emitter.survey(open_blocks())
            yield from self._restricted(self.emitter.emit_windows(open_blocks(), survey))
        else:
            yield from self._restricted(self.emitter.emit([waveform]))

    def transcribe_many(
        self, paths: Iterable[str | Path], *, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Transcript | Exception]]:
        """Transcribe many recordings in batches by length.

        Results come as they finish, not in the order given: of every 256 paths the longest recordings go
        first. Each equals what `transcribe` gives for the path alone.

        Args:
            paths: Audio files; taken as they are needed, so that a generator of many is fine.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            Each path as it was given, with its transcript or with the error that reading it raised.
        """
        yield from run_paths(
            paths, lambda recordings: self.transcribe_recordings(recordings, on_progress=on_progress)
        )

    def transcribe_recordings(
        self, recordings: Iterable[Recording], *, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[str | Path, Transcript | Exception]]:
        """Transcribe recordings from anywhere, such as cuts of a corpus; as `transcribe_many` in all else.

        Args:
            recordings: What to read.
            on_progress: Called with seconds of audio as they are done; None for nobody.

        Yields:
            The source of each recording, with its transcript or with the error that reading it raised.
        """
        outcomes = run_in_batches(
            recordings,
            self._start_batch,
            batch_seconds=self.batch_seconds,
            num_ahead=lambda: self.engine.num_ahead,
            process_long=lambda recording: self._transcribe(recording.open_blocks, on_progress),
            long_seconds=self.window_seconds,
            on_progress=on_progress,
        )
        for recording, outcome in outcomes:
            if isinstance(outcome, Transcript):
                outcome = replace(outcome, audio=str(recording.source))
            yield recording.source, outcome

    def transcribe_batch(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms in one forward pass.

        Args:
            waveforms: (S_i,) float32 samples at 16 kHz of each recording, short enough for one pass together.

        Returns:
            A transcript for each, in the order given, its `audio` empty.
        """
        return self._decode_batch(waveforms, self.emitter.emit(waveforms))

    def _start_batch(self, waveforms: Sequence[Waveform]) -> Callable[[], list[Transcript]]:
        """Start on a batch of many that follow one another."""
        finish = self.emitter.start(waveforms)
        return lambda: self._decode_batch(waveforms, finish())

    def _decode_batch(self, waveforms: Sequence[Waveform], emitted: Iterable[LogProbs]) -> list[Transcript]:
        """Turn what was emitted for whole recordings into their transcripts."""
        emitted = self._restricted(emitted)
        transcripts = []
        for log_probs, waveform in zip(emitted, waveforms, strict=True):
            sound = Sound(*self._geometry)
            sound.hear(waveform)
            transcripts.append(self._decode(len(waveform) / SAMPLE_RATE, [log_probs], None, sound))
        return transcripts

    def _restricted(self, blocks: Iterable[LogProbs]) -> Iterator[LogProbs]:
        """The log-probabilities of the inventory's symbols, where there is one."""
        return iter(blocks) if self.inventory is None else map(self.inventory.apply, blocks)

    def _transcribe(
        self, open_blocks: Callable[[], Iterable[Waveform]], on_progress: OnProgress | None
    ) -> Transcript:
        """Transcribe what can be read from its start, once or, if it is long, twice."""
        waveform = self.emitter.read_short(open_blocks)
        if waveform is not None:
            [transcript] = self.transcribe_batch([waveform])
            if on_progress is not None:
                on_progress(transcript.duration)
            return transcript
        survey = self.emitter.survey(open_blocks())
        sound = Sound(*self._geometry)
        blocks = sound.listen(open_blocks()) if self.times == "extents" else open_blocks()
        windows = self._restricted(self.emitter.emit_windows(blocks, survey))
        return self._decode(survey.num_samples / SAMPLE_RATE, windows, on_progress, sound)

    def _decode(
        self, duration: Seconds, blocks: Iterable[LogProbs], on_progress: OnProgress | None, sound: Sound
    ) -> Transcript:
        """Decode log-probabilities and sound as they come, telling how far they are."""

        def watched() -> Iterator[LogProbs]:
            done = 0.0
            for block in blocks:
                yield block
                seconds = min(len(block) * hop(self._geometry[1]) / SAMPLE_RATE, duration - done)
                done += seconds
                if on_progress is not None:
                    on_progress(seconds)
            # The last frame ends before the recording does, and silence has no frames.
            if on_progress is not None and duration > done:
                on_progress(duration - done)

        decoder, blank = self.decoder, self.vocabulary.blank
        if isinstance(decoder, BeamDecoder) and decoder.settings.nbest > 1:
            decoder = NbestDecoder(decoder)
        timing = TimingDecoder(decoder, blank, sound) if self.times == "extents" else None
        spans = list(decode_blocks(watched(), timing or decoder, blank))
        transcript = self.name_spans(spans, duration, None if timing is None else timing.times)
        return (
            self._with_nbest(transcript, spans, decoder) if isinstance(decoder, NbestDecoder) else transcript
        )

    def _with_nbest(
        self, transcript: Transcript, spans: Sequence[TokenSpan], decoder: NbestDecoder
    ) -> Transcript:
        """Add what else may have been said: other transcripts, and other symbols for each."""
        boundary = self.vocabulary.word_boundary
        others = [
            [Candidate(phone=self.vocabulary.symbols[other.token], prob=other.prob) for other in found]
            for span, found in zip(spans, decoder.alternatives, strict=True)
            if span.token != boundary and span.token not in self.vocabulary.special
        ]
        phones = [
            replace(phone, alternatives=found) for phone, found in zip(transcript.phones, others, strict=True)
        ]
        nbest = [
            Reading(
                text=self.vocabulary.join(self.vocabulary.decode(hypothesis.tokens)),
                log_prob=hypothesis.log_prob,
                score=hypothesis.score,
            )
            for hypothesis in join_nbest(decoder.sections, decoder.decoder.settings.nbest)
        ]
        return replace(transcript, phones=phones, nbest=nbest)

    @property
    def _geometry(self) -> tuple[Sequence[int], Sequence[int]]:
        """Kernels and strides of the model's convolutions."""
        return self.engine.kernels, self.engine.strides

    def name_spans(
        self,
        spans: Sequence[TokenSpan],
        duration: Seconds,
        times: Sequence[tuple[Seconds, Seconds]] | None = None,
    ) -> Transcript:
        """Name what was decoded and give it seconds; special tokens are never shown.

        Args:
            spans: Of one recording, in the order of time.
            duration: Of the recording.
            times: Start and end of each span; None takes its frames, half a hop on either side of their
                centres.

        Returns:
            The transcript, its `audio` empty.
        """
        vocabulary = self.vocabulary
        times = [self._spike(span) for span in spans] if times is None else times
        symbols, is_boundary = [], []
        for span, (start, end) in zip(spans, times, strict=True):
            if span.token not in vocabulary.special:
                phone, score = vocabulary.symbols[span.token], self.calibration.apply(span.score)
                symbols.append(Phone(phone=phone, start=start, end=min(end, duration), score=score))
                is_boundary.append(span.token == vocabulary.word_boundary)
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
        transcript = Transcript(audio="", duration=duration, text=text, phones=phones, words=words)
        return replace(transcript, segments=split_at_pauses(transcript, self.max_pause))

    def _spike(self, span: TokenSpan) -> tuple[Seconds, Seconds]:
        """The frames of a span in seconds."""
        start, end = (frame_to_seconds(f - 0.5, *self._geometry) for f in (span.start_frame, span.end_frame))
        return max(start, 0.0), end


def _fetch(model: str | Path) -> "tuple[PreTrainedModel, Path]":
    """Read a Hub id, whose files then lie in the Hub's cache, or say why what is no folder cannot be read."""
    from unispeech.checkpoints.hub import model_files

    return read_recogniser(model), model_files(model)


def _check_head(engine: Engine, vocabulary: Vocabulary, name: str) -> None:
    """Refuse a model that writes other symbols than the vocabulary's."""
    try:
        vocabulary.check_head(engine.num_symbols, engine.blank)
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
