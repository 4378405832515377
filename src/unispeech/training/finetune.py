"""Fine-tuning from a recipe to a run directory: data, vocabulary, model, loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.data.batches import BatchLoader, make_loader
from unispeech.data.streams import Stream, make_mixed_loader
from unispeech.models import UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize
from unispeech.training.classification import ClassificationStage
from unispeech.training.loop import Outcome
from unispeech.training.recipe import FinetuneRecipe
from unispeech.training.recognition import CTCStage
from unispeech.training.run import Run
from unispeech.training.session import Learner, Report, Session, open_session
from unispeech.training.starting_model import make_classifier, make_recogniser
from unispeech.training.targets import build_labels, build_vocabulary, check_times, collect_languages


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
    session = open_session(recipe_path, directory, overrides, FinetuneRecipe, resume=resume)
    run, recipe = session.run, session.recipe
    with session.reading():
        learner = _resumed_learner(run) if run.checkpoint else _new_learner(recipe, session.report)
        if learner.vocabulary is not None:
            learner = replace(learner, inventories=collect_languages(recipe.data.train, learner.vocabulary))
        train_batches = _train_loader(session, learner)
        dev_batches = session.dev_batches(learner.loader_settings())
    return session.carry_out(learner, _make_stage(recipe, learner), train_batches, dev_batches)


def _new_learner(recipe: FinetuneRecipe, report: Report) -> Learner:
    """The model of a new run."""
    model, data = recipe.model, recipe.data
    do_normalize = data.normalize
    if do_normalize is None:
        do_normalize = read_do_normalize(model_files(model.init)) if model.init else True
    if data.units == "label":
        label2id = build_labels(data.train)
        classifier = make_classifier(model, recipe.masking, label2id, report)
        return Learner(model=classifier, label2id=label2id, do_normalize=do_normalize)
    vocabulary = build_vocabulary(data.train, data.units, data, model.init)
    recogniser = make_recogniser(model, recipe.masking, vocabulary, report)
    return Learner(model=recogniser, vocabulary=vocabulary, do_normalize=do_normalize)


def _resumed_learner(run: Run[FinetuneRecipe]) -> Learner:
    """The model of a checkpoint."""
    assert run.checkpoint is not None
    do_normalize = read_do_normalize(run.checkpoint)
    if run.recipe.objective.task == "classification":
        classifier = load_model(run.checkpoint, head="classification")
        return Learner(model=classifier, label2id=dict(classifier.config.label2id), do_normalize=do_normalize)
    recogniser = load_model(run.checkpoint, head="ctc")
    vocabulary = Vocabulary.load(run.checkpoint)
    return Learner(model=recogniser, vocabulary=vocabulary, do_normalize=do_normalize)


def _make_stage(recipe: FinetuneRecipe, learner: Learner) -> CTCStage | ClassificationStage:
    if isinstance(learner.model, UniSpeechForSequenceClassification):
        return ClassificationStage(learner.model, optim=recipe.optim)
    assert isinstance(learner.model, UniSpeechForCTC)
    assert learner.vocabulary is not None
    return CTCStage(learner.model, learner.vocabulary, objective=recipe.objective, optim=recipe.optim)


def _train_loader(session: Session[FinetuneRecipe], learner: Learner) -> BatchLoader:
    recipe, data = session.recipe, session.recipe.data
    if recipe.objective.frame_updates and recipe.objective.frame_labels == "alignment":
        check_times(data.train)
    settings: dict[str, Any] = {
        "batch_seconds": data.batch_seconds,
        "min_seconds": data.min_seconds,
        "max_seconds": data.max_seconds,
        "num_buckets": data.num_buckets,
        "num_workers": data.num_workers,
        "language_exponent": data.language_exponent,
        "augmentation": recipe.augmentation.build(),
        "seed": recipe.runtime.seed,
        **session.place,
        **learner.loader_settings(),
    }
    if data.shares is None:
        return make_loader(data.train, **settings)
    pairs = zip(data.train, data.shares, strict=True)
    return make_mixed_loader(
        [Stream(cuts=cuts, share=share, is_labelled=True) for cuts, share in pairs], **settings
    )
