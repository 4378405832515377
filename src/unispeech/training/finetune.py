"""Fine-tuning from a recipe to a run directory: data, vocabulary, model, loop."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.data.batches import BatchLoader, make_loader
from unispeech.data.cuts import CutFiles
from unispeech.errors import ManifestError
from unispeech.models import UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize
from unispeech.training.classification import ClassificationStage
from unispeech.training.loop import Outcome, TrainingLoop
from unispeech.training.processes import make_accelerator
from unispeech.training.recipe import DataSettings, FinetuneRecipe
from unispeech.training.recognition import CTCStage
from unispeech.training.run import Run, open_run, write_recipe
from unispeech.training.starting_model import make_classifier, make_recogniser
from unispeech.training.state import BEST, TrainingState, load_state, seed_update

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model with what its outputs mean."""

    model: UniSpeechForCTC | UniSpeechForSequenceClassification
    """The bare model."""
    vocabulary: Vocabulary | None = None
    """Symbols of a recogniser."""
    label2id: dict[str, int] | None = None
    """Classes of a classifier."""
    do_normalize: bool = True
    """Whether it takes waveforms of zero mean and unit variance."""


def run_finetuning(
    recipe_path: Path | None, directory: Path, overrides: Sequence[str] = (), *, resume: bool = False
) -> Outcome:
    """Fine-tune as a recipe says, or go on with a run.

    Args:
        recipe_path: The recipe; a resumption takes that of the run.
        directory: The run directory.
        overrides: "section.key=value" strings that win over the recipe.
        resume: Whether to go on with the run in the directory.

    Returns:
        How it ended.

    Raises:
        ValueError: If the recipe, the data or the model cannot be used; one line that says what to do.
        FileNotFoundError: If a file is missing.
        OSError: If a checkpoint cannot be written.
    """
    report = _reporter()
    run = open_run(directory, recipe_path, overrides, resume=resume, report=report)
    recipe = run.recipe
    accelerator = make_accelerator(recipe.runtime.precision)
    if not accelerator.is_main_process:
        report = _say_nothing
    accelerator.wait_for_everyone()  # all have read the directory before one writes to it
    # All processes start from the same weights; what they draw later, every update seeds.
    seed_update(recipe.runtime.seed, 0, 0, "model")
    learner = _resumed_learner(run) if run.checkpoint else _new_learner(recipe, report)
    state = load_state(run.checkpoint) if run.checkpoint else TrainingState()
    if recipe.model.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    rank, world_size = accelerator.process_index, accelerator.num_processes
    train_batches = _train_loader(recipe, learner, rank, world_size)
    dev_batches = _dev_loader(recipe, learner, rank, world_size)
    _report_data(recipe, train_batches, dev_batches, report)
    text = write_recipe(run) if accelerator.is_main_process else ""
    if run.checkpoint:
        report(f"{run.checkpoint}: going on after update {state.update}")
    loop = TrainingLoop(
        model=learner.model,
        stage=_make_stage(recipe, learner),
        train_batches=train_batches,
        dev_batches=None if dev_batches is None else dev_batches.__iter__,
        optim=recipe.optim,
        schedule=recipe.schedule,
        runtime=recipe.runtime,
        run=directory,
        state=state,
        save_model=_saver(learner),
        recipe=text,
        accelerator=accelerator,
    )
    outcome = loop.run()
    if train_batches.num_unreadable:
        report(f"{len(train_batches.unreadable)} utterances were left out because they cannot be read")
    _report_outcome(directory, loop.stage.metric, outcome, report)
    return outcome


def build_vocabulary(settings: DataSettings, init: str | None) -> Vocabulary:
    """The symbols that a recogniser is to write.

    Args:
        settings: Where the vocabulary, or else the transcripts, are.
        init: The model directory that the run starts from.

    Returns:
        The vocabulary: loaded, or built from the transcripts of the training cuts.

    Raises:
        ManifestError: If no cut has a transcript.
        CheckpointError: If a directory holds no vocabulary.
        ValueError: If it holds other units than the recipe wants.
    """
    if settings.vocabulary is not None:
        place = init if settings.vocabulary == "init" and init is not None else settings.vocabulary
        vocabulary = Vocabulary.load(place)
        if vocabulary.kind != settings.units:
            raise ValueError(f"{place}: vocabulary must hold {settings.units}, but holds {vocabulary.kind}.")
        return vocabulary
    transcripts: dict[tuple[str, str], None] = {}
    for supervision in _supervisions(settings):
        custom = supervision.custom or {}
        text = custom.get("phones") if settings.units == "phones" else supervision.text
        if text:
            transcripts[text, supervision.language or "und"] = None
    if not transcripts:
        raise ManifestError(
            f"{settings.train[0]}: cuts must have {settings.units}, but have none; prepare them with "
            f"--units {settings.units}."
        )
    return Vocabulary.build(
        [text for text, _ in transcripts],
        kind="phones" if settings.units == "phones" else "characters",
        languages=[language for _, language in transcripts] if settings.tag_languages else None,
    )


def build_labels(settings: DataSettings) -> dict[str, int]:
    """The classes of the training cuts, in alphabetical order.

    Args:
        settings: Where the cuts are.

    Returns:
        Name -> number.

    Raises:
        ManifestError: If no cut has a label.
    """
    customs = [supervision.custom or {} for supervision in _supervisions(settings)]
    labels: set[str] = {custom["label"] for custom in customs if custom.get("label")}
    if not labels:
        raise ManifestError(
            f"{settings.train[0]}: cuts must have a label, but have none; prepare them with --units label."
        )
    return {label: index for index, label in enumerate(sorted(labels))}


def _new_learner(recipe: FinetuneRecipe, report: Report) -> Learner:
    """The model of a new run."""
    model, data = recipe.model, recipe.data
    do_normalize = data.normalize
    if do_normalize is None:
        do_normalize = read_do_normalize(Path(model.init)) if model.init else True
    if recipe.objective.task == "classification":
        label2id = build_labels(data)
        classifier = make_classifier(model, recipe.masking, label2id, report)
        return Learner(model=classifier, label2id=label2id, do_normalize=do_normalize)
    vocabulary = build_vocabulary(data, model.init)
    recogniser = make_recogniser(model, recipe.masking, vocabulary, report)
    return Learner(model=recogniser, vocabulary=vocabulary, do_normalize=do_normalize)


def _resumed_learner(run: Run) -> Learner:
    """The model of a checkpoint."""
    assert run.checkpoint is not None
    do_normalize = read_do_normalize(run.checkpoint)
    if run.recipe.objective.task == "classification":
        classifier = load_model(run.checkpoint, head="classification")
        assert isinstance(classifier, UniSpeechForSequenceClassification)
        return Learner(model=classifier, label2id=dict(classifier.config.label2id), do_normalize=do_normalize)
    recogniser = load_model(run.checkpoint, head="ctc")
    assert isinstance(recogniser, UniSpeechForCTC)
    vocabulary = Vocabulary.load(run.checkpoint)
    return Learner(model=recogniser, vocabulary=vocabulary, do_normalize=do_normalize)


def _make_stage(recipe: FinetuneRecipe, learner: Learner) -> CTCStage | ClassificationStage:
    if isinstance(learner.model, UniSpeechForSequenceClassification):
        return ClassificationStage(learner.model, optim=recipe.optim)
    assert learner.vocabulary is not None
    return CTCStage(learner.model, learner.vocabulary, objective=recipe.objective, optim=recipe.optim)


def _train_loader(recipe: FinetuneRecipe, learner: Learner, rank: int, world_size: int) -> BatchLoader:
    data = recipe.data
    if recipe.objective.frame_updates and recipe.objective.frame_labels == "alignment":
        _check_times(data)
    return make_loader(
        data.train,
        batch_seconds=data.batch_seconds,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        num_buckets=data.num_buckets,
        num_workers=data.num_workers,
        seed=recipe.runtime.seed,
        rank=rank,
        world_size=world_size,
        **_targets(learner),
    )


def _dev_loader(recipe: FinetuneRecipe, learner: Learner, rank: int, world_size: int) -> BatchLoader | None:
    """Every utterance of the dev data, in one process each."""
    data = recipe.data
    if not data.dev:
        return None
    longest = max((cut.duration for cut in CutFiles(data.dev)), default=0.0)
    return make_loader(
        data.dev,
        batch_seconds=max(data.batch_seconds, longest),
        shuffle=False,
        num_workers=data.num_workers,
        rank=rank,
        world_size=world_size,
        **_targets(learner),
    )


def _targets(learner: Learner) -> dict[str, Any]:
    """What a loader must know of the model."""
    return {
        "vocabulary": learner.vocabulary,
        "label2id": learner.label2id,
        "do_normalize": learner.do_normalize,
        "kernels": learner.model.config.conv_kernel,
        "strides": learner.model.config.conv_stride,
    }


def _saver(learner: Learner) -> Callable[[Path], None]:
    """What writes the model directory of a checkpoint."""

    def save(place: Path) -> None:
        save_model(learner.model, place, learner.vocabulary, do_normalize=learner.do_normalize)

    return save


def _check_times(settings: DataSettings) -> None:
    """Refuse a frame-level start on speech without phone times."""
    if not any((supervision.alignment or {}).get("phone") for supervision in _supervisions(settings)):
        raise ManifestError(
            f"{settings.train[0]}: cuts must have phone times for `objective.frame_updates`, but have none; "
            "set `objective.frame_labels` to uniform."
        )


def _supervisions(settings: DataSettings) -> Iterator[Any]:
    """The supervisions of the training cuts.

    Yields:
        One per cut.
    """
    for cut in CutFiles(settings.train):
        yield cut.supervisions[0]


def _report_data(
    recipe: FinetuneRecipe, train_batches: BatchLoader, dev_batches: BatchLoader | None, report: Report
) -> None:
    """Say how much there is to learn from."""
    for name, batches in (("train", train_batches), ("dev", dev_batches)):
        if batches is not None:
            plan = batches.plan
            report(f"{name}: {plan.num_utterances} utterances, {plan.duration / 60:.1f} min")
    if dev_batches is None:
        report("dev: no data, so there will be no validation and no best/")


def _report_outcome(directory: Path, metric: str, outcome: Outcome, report: Report) -> None:
    """Say what came out."""
    if outcome.best is not None:
        report(f"{directory / BEST}: {metric} {outcome.best:.4f}")
    if outcome.is_interrupted:
        report(f"{directory}: stopped after update {outcome.update}; --resume goes on")


def _reporter() -> Report:
    """Prints lines to stderr as they are."""
    console = Console(file=sys.stderr)
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _say_nothing(line: str) -> None:
    """The report of every process but the first."""
