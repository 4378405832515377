"""A model and labelled speech -> error rates with intervals, by group, confusions, calibration of scores."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from transformers import PreTrainedModel

from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.decoding.calibration import (
    Calibration,
    chance_calibration_error,
    expected_calibration_error,
    fit_calibration,
    is_right,
    read_calibration,
)
from unispeech.engines.torch_engine import Precision, find_device
from unispeech.frames import Seconds
from unispeech.metrics import Accuracy, Confusion, ErrorRate, accuracy, confusions, error_rate
from unispeech.phones import nearest
from unispeech.pipelines.classifier import Classifier
from unispeech.pipelines.recordings import Recording
from unispeech.pipelines.transcriber import Transcriber
from unispeech.results import Classification, Transcript
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

if TYPE_CHECKING:
    from lhotse import MonoCut

Group = Literal["language", "speaker"]
"""A field of the utterances by which results can be told apart."""

NO_GROUP = "(none)"
"""The group of utterances without the field."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was said in one utterance and what was recognised, in units to compare."""

    reference: list[str]
    """Phones, characters, or one label; word boundaries left out."""
    hypothesis: list[str]
    """The same of the model."""
    reference_words: list[str] | None = None
    """The words, or None where the vocabulary has no word boundary."""
    hypothesis_words: list[str] | None = None
    """The same of the model."""
    scores: list[float] | None = None
    """Of each symbol of the hypothesis, as the network gives it; None for a classifier."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well a set of utterances was recognised."""

    num_utterances: int
    """Utterances in the set, at least 1."""
    per: ErrorRate | None = None
    """Phone error rate, of models that write phones."""
    cer: ErrorRate | None = None
    """Character error rate, spaces not counted, of models that write characters."""
    wer: ErrorRate | None = None
    """Word error rate, of models that write word boundaries."""
    accuracy: Accuracy | None = None
    """Share of right labels, of classifiers."""
    ece: float | None = None
    """Expected calibration error of the scores as `Transcriber` gives them, in [0, 1]; see
    `decoding.calibration` for what counts as right. None for classifiers."""
    chance_ece: float | None = None
    """What `ece` would be on average if each score were the probability: so few phones tell no less apart."""


@dataclass(frozen=True, kw_only=True)
class CalibrationFit:
    """A calibration that was fitted on a set."""

    calibration: Calibration
    """By all of the set."""
    num_symbols: int
    """Symbols recognised in it."""
    held_out_ece: float
    """Expected calibration error in [0, 1] where each half of the set, every second utterance, is calibrated
    by what was fitted on the other half."""
    chance_ece: float
    """What `held_out_ece` would be on average if each of these scores were the probability."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of an evaluation."""

    model: str
    """The model as the caller named it."""
    data: str
    """The labelled speech as the caller named it."""
    audio_seconds: Seconds
    """Length of the utterances that were scored."""
    scores: Scores
    """Over all utterances."""
    by: Group | None
    """What `groups` tells apart; None for nothing."""
    groups: dict[str, Scores]
    """Name of each group -> its scores, in alphabetical order; empty where nothing is told apart."""
    confusions: list[Confusion]
    """The most frequent errors, insertions and deletions among them."""
    num_unlabelled: int
    """Utterances that were left out because they have no transcript or label of the model's kind."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Id of each utterance that was left out because its audio cannot be read -> why."""
    fit: CalibrationFit | None = None
    """A calibration of the scores; None where none was asked for."""


def evaluate_model(
    model: str | Path,
    data: str | Path,
    *,
    by: Group | None = None,
    top: int = 20,
    calibrate: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    batch_seconds: Seconds = 60.0,
    on_progress: Callable[[Seconds], None] | None = None,
) -> Evaluation:
    """Score a recogniser or a classifier on labelled speech.

    Recognisers are scored as they transcribe, by greedy CTC. What a reference says in symbols that the
    vocabulary lacks counts as errors.

    Args:
        model: A model directory or a Hub id; its configuration says whether it recognises or classifies.
        data: A file of cuts, or a folder with a `cuts.jsonl.gz`.
        by: Field by which results are told apart; None for nothing.
        top: How many kinds of confusion to give at most.
        calibrate: Whether to fit a calibration of the scores too; it is not written anywhere.
        device: Where to run; "auto" takes the first GPU if there is one.
        precision: As for `Transcriber`.
        batch_seconds: Most seconds of audio that run at once.
        on_progress: Called with the seconds of each utterance when it is done; None for nobody.

    Returns:
        The scores.

    Raises:
        CheckpointError: If the model cannot be used.
        ManifestError: If a line is not a cut.
        ValueError: If no utterance can be scored, a label is none of the model's, or scores are to be
            calibrated that do not allow it.
        ImportError: If lhotse is not installed.
    """
    try:
        from unispeech.data.collation import load_cut
        from unispeech.data.cuts import CutFiles
    except ImportError as error:
        raise ImportError(
            f"evaluation needs {error.name}; install it with pip install 'unispeech[train]'."
        ) from error

    network = load_model(model, dtype=torch.float32)
    task = _task(model, network, device, precision, batch_seconds)
    if calibrate and not isinstance(task, _Recognition):
        raise ValueError(
            "`calibrate` must be left out for a classifier, whose scores are not those of phones."
        )
    all_cuts = list(CutFiles(data))
    cuts = [cut for cut in all_cuts if task.has_reference(cut)]
    recordings = (
        Recording(source=str(i), duration=cut.duration, load=lambda cut=cut: load_cut(cut))  # type: ignore[misc]
        for i, cut in enumerate(cuts)
    )
    answers: dict[int, Answer] = {}
    unreadable: dict[str, str] = {}
    for index, outcome in task.answers(cuts, recordings):
        if isinstance(outcome, Answer):
            answers[index] = outcome
        else:
            unreadable[cuts[index].id] = str(outcome)
        if on_progress is not None:
            on_progress(cuts[index].duration)
    if not answers:
        raise ValueError(
            f"{data}: must hold an utterance with {task.wanted} that can be read, but holds none of "
            f"{len(all_cuts)}."
        )
    ordered = [answers[index] for index in sorted(answers)]
    groups = _grouped([cuts[index] for index in sorted(answers)], ordered, by)
    return Evaluation(
        model=str(model),
        data=str(data),
        audio_seconds=sum(cuts[index].duration for index in answers),
        scores=task.score(ordered),
        by=by,
        groups={name: task.score(members) for name, members in sorted(groups.items())},
        confusions=confusions([a.reference for a in ordered], [a.hypothesis for a in ordered], top=top),
        num_unlabelled=len(all_cuts) - len(cuts),
        unreadable=unreadable,
        fit=_fit(ordered) if calibrate else None,
    )


class _Recognition:
    """Scoring of what a CTC model writes."""

    def __init__(self, transcriber: Transcriber, calibration: Calibration) -> None:
        self._transcriber, self._calibration = transcriber, calibration
        self._vocabulary = transcriber.vocabulary
        self.wanted = "phones" if self._vocabulary.kind == "phones" else "a text"

    def has_reference(self, cut: "MonoCut") -> bool:
        return bool(self._reference(cut))

    def answers(
        self, cuts: Sequence["MonoCut"], recordings: Iterable[Recording]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        for source, outcome in self._transcriber.transcribe_recordings(recordings):
            index = int(source)  # type: ignore[arg-type]
            yield index, self._answer(cuts[index], outcome) if isinstance(outcome, Transcript) else outcome

    def score(self, answers: Sequence[Answer]) -> Scores:
        rate = error_rate([a.reference for a in answers], [a.hypothesis for a in answers])
        has_words = self._vocabulary.word_boundary is not None
        scored = _scored(answers, self._calibration)
        is_phones = self._vocabulary.kind == "phones"
        return Scores(
            num_utterances=len(answers),
            per=rate if is_phones else None,
            cer=None if is_phones else rate,
            wer=error_rate(
                [a.reference_words or [] for a in answers], [a.hypothesis_words or [] for a in answers]
            )
            if has_words
            else None,
            ece=expected_calibration_error(*scored),
            chance_ece=chance_calibration_error(scored[0]),
        )

    def _reference(self, cut: "MonoCut") -> str:
        supervision = cut.supervisions[0]
        is_phones = self._vocabulary.kind == "phones"
        return ((supervision.custom or {}).get("phones") if is_phones else supervision.text) or ""

    def _answer(self, cut: "MonoCut", transcript: Transcript) -> Answer:
        vocabulary = self._vocabulary
        try:
            symbols = vocabulary.segment(self._reference(cut), language=cut.supervisions[0].language)
        except ValueError as error:
            raise ValueError(f"{cut.id}: {error}") from error
        boundary = None if vocabulary.word_boundary is None else vocabulary.symbols[vocabulary.word_boundary]
        words = ["".join(units) for is_gap, units in groupby(symbols, lambda s: s == boundary) if not is_gap]
        return Answer(
            reference=[symbol for symbol in symbols if symbol != boundary],
            hypothesis=[phone.phone for phone in transcript.phones],
            reference_words=None if boundary is None else words,
            hypothesis_words=None if transcript.words is None else [word.word for word in transcript.words],
            scores=[phone.score for phone in transcript.phones],
        )


class _Classification:
    """Scoring of the label that a classifier finds best."""

    wanted = "a label"

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def has_reference(self, cut: "MonoCut") -> bool:
        label = (cut.supervisions[0].custom or {}).get("label")
        known = self._classifier.labels
        if label is not None and label not in known:
            raise ValueError(
                f"{cut.id}: label must be one of the model's ({', '.join(known[:20])}), "
                f"but is {label!r}{nearest(label, known)}"
            )
        return label is not None

    def answers(
        self, cuts: Sequence["MonoCut"], recordings: Iterable[Recording]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        for source, outcome in self._classifier.classify_recordings(recordings, top_k=1):
            index = int(source)  # type: ignore[arg-type]
            if isinstance(outcome, Classification):
                label = cuts[index].supervisions[0].custom["label"]
                yield index, Answer(reference=[label], hypothesis=[best.label for best in outcome.labels])
            else:
                yield index, outcome

    def score(self, answers: Sequence[Answer]) -> Scores:
        return Scores(
            num_utterances=len(answers),
            accuracy=accuracy([a.reference[0] for a in answers], ["".join(a.hypothesis) for a in answers]),
        )


def _task(
    source: str | Path,
    model: PreTrainedModel,
    device: str,
    precision: Precision,
    batch_seconds: Seconds,
) -> _Recognition | _Classification:
    """What there is to score of a model."""
    files = model_files(source)
    do_normalize = read_do_normalize(files)
    if hasattr(model, "lm_head"):
        transcriber = Transcriber(
            model,
            vocabulary=Vocabulary.load(files),
            do_normalize=do_normalize,
            device=find_device(device),
            precision=precision,
            batch_seconds=batch_seconds,
            times="spikes",
        )
        return _Recognition(transcriber, read_calibration(files))
    if hasattr(model, "classifier"):
        classifier = Classifier(
            model,
            do_normalize=do_normalize,
            device=find_device(device),
            precision=precision,
            batch_seconds=batch_seconds,
        )
        return _Classification(classifier)
    raise ValueError(f"{source}: must recognise or classify, but is a {type(model).__name__}; finetune it.")


def _scored(answers: Sequence[Answer], calibration: Calibration) -> tuple[list[float], list[bool]]:
    """Score of each symbol recognised, and whether it is right."""
    scores = [calibration.apply(score) for answer in answers for score in answer.scores or []]
    return scores, [right for a in answers for right in is_right(a.reference, a.hypothesis)]


def _fit(answers: Sequence[Answer]) -> CalibrationFit:
    """Fit a calibration, and see what it is worth where it was not fitted."""
    scores, rights = _scored(answers, Calibration())
    calibration = fit_calibration(scores, rights)
    unseen_scores: list[float] = []
    unseen_rights: list[bool] = []
    for half, other in ((answers[::2], answers[1::2]), (answers[1::2], answers[::2])):
        found = _scored(half, fit_calibration(*_scored(other, Calibration())))
        unseen_scores += found[0]
        unseen_rights += found[1]
    return CalibrationFit(
        calibration=calibration,
        num_symbols=len(scores),
        held_out_ece=expected_calibration_error(unseen_scores, unseen_rights),
        chance_ece=chance_calibration_error(unseen_scores),
    )


def _grouped(
    cuts: Sequence["MonoCut"], answers: Sequence[Answer], by: Group | None
) -> dict[str, list[Answer]]:
    """The answers of each group; none where nothing is told apart."""
    groups: dict[str, list[Answer]] = defaultdict(list)
    if by is not None:
        for cut, answer in zip(cuts, answers, strict=True):
            groups[getattr(cut.supervisions[0], by) or NO_GROUP].append(answer)
    return groups
