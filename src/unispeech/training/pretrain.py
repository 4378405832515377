"""Pre-training from a recipe to a run directory: streams, vocabulary, model, loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.data.batches import BatchLoader
from unispeech.data.streams import Stream, make_mixed_loader
from unispeech.errors import CheckpointError, ManifestError
from unispeech.models import UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize
from unispeech.training.loop import Outcome
from unispeech.training.pretraining import PretrainingStage
from unispeech.training.recipe import PretrainRecipe
from unispeech.training.run import Run
from unispeech.training.session import Learner, Report, Session, open_session
from unispeech.training.starting_model import make_pretrainer
from unispeech.training.targets import build_vocabulary, check_times


def run_pretraining(
    recipe_path: Path | None, directory: Path, overrides: Sequence[str] = (), *, resume: bool = False
) -> Outcome:
    """Pre-train as a recipe says, or go on with a run.

    Args:
        recipe_path: The recipe; a resumption takes that of the run.
        directory: The run directory.
        overrides: "section.key=value" strings that win over the recipe.
        resume: Whether to go on with the run in the directory.

    Returns:
        How it ended.

    Raises:
        ValueError: If the recipe, the data or the model cannot be used, or the run collapses; one line that
            says what to do.
        FileNotFoundError: If a file is missing.
        OSError: If a checkpoint cannot be written.
    """
    session = open_session(recipe_path, directory, overrides, PretrainRecipe, resume=resume)
    run, recipe = session.run, session.recipe
    with session.reading():
        learner = _resumed_learner(run) if run.checkpoint else _new_learner(recipe, session.report)
        train_batches = _train_loader(session, learner)
        dev_batches = _dev_loader(session, learner)
    assert isinstance(learner.model, UniSpeechForPreTraining)
    stage = PretrainingStage(
        learner.model,
        learner.vocabulary,
        objective=recipe.objective,
        health=recipe.health,
        optim=recipe.optim,
        has_labels=bool(recipe.data.labelled),
    )
    return session.carry_out(learner, stage, train_batches, dev_batches)


def streams(recipe: PretrainRecipe) -> list[Stream]:
    """The streams of a run with their shares of the batches.

    Args:
        recipe: What the run does.

    Returns:
        The labelled stream, the unlabelled one, or both.
    """
    data = recipe.data
    if not data.unlabelled:
        return [Stream(cuts=data.labelled, share=1.0, is_labelled=True)]
    if not data.labelled:
        return [Stream(cuts=data.unlabelled, share=1.0, is_labelled=False)]
    return [
        Stream(cuts=data.labelled, share=1 - data.unlabelled_share, is_labelled=True),
        Stream(cuts=data.unlabelled, share=data.unlabelled_share, is_labelled=False),
    ]


def _new_learner(recipe: PretrainRecipe, report: Report) -> Learner:
    """The model of a new run."""
    model, data = recipe.model, recipe.data
    do_normalize = data.normalize
    if model.init is not None:
        own = read_do_normalize(model_files(model.init))
        if do_normalize not in {None, own}:
            raise CheckpointError(
                f"{model.init}: `data.normalize` must be {own} as the model was trained, but is "
                f"{do_normalize}; leave it out."
            )
        do_normalize = own
    vocabulary = _vocabulary(recipe)
    pretrainer = make_pretrainer(
        model, recipe.masking, recipe.objective, vocabulary if data.labelled else None, report
    )
    return Learner(
        model=pretrainer,
        vocabulary=vocabulary,
        do_normalize=True if do_normalize is None else do_normalize,
    )


def _vocabulary(recipe: PretrainRecipe) -> Vocabulary | None:
    """The symbols of the CTC head: of the labelled stream, or what the model brings along."""
    data, init = recipe.data, recipe.model.init
    if data.labelled:
        return build_vocabulary(data.labelled, "phones", data, init)
    if init is None:
        return None
    try:
        vocabulary = Vocabulary.load(model_files(init))
    except (CheckpointError, FileNotFoundError):
        return None
    # A head that is not carried over has lost its vocabulary too.
    return vocabulary if isinstance(load_model(init), UniSpeechForPreTraining) else None


def _resumed_learner(run: Run[PretrainRecipe]) -> Learner:
    """The model of a checkpoint."""
    assert run.checkpoint is not None
    model = load_model(run.checkpoint, head="pretraining")
    try:
        vocabulary = Vocabulary.load(run.checkpoint)
    except (CheckpointError, FileNotFoundError):
        vocabulary = None
    return Learner(model=model, vocabulary=vocabulary, do_normalize=read_do_normalize(run.checkpoint))


def _train_loader(session: Session[PretrainRecipe], learner: Learner) -> BatchLoader:
    recipe, data = session.recipe, session.recipe.data
    if recipe.objective.frame_updates and data.labelled:
        check_times(data.labelled)
    return make_mixed_loader(
        streams(recipe),
        batch_seconds=data.batch_seconds,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        num_buckets=data.num_buckets,
        num_workers=data.num_workers,
        language_exponent=data.language_exponent,
        augmentation=recipe.augmentation.build(),
        seed=recipe.runtime.seed,
        **session.place,
        **_loader_settings(recipe, learner),
    )


def _dev_loader(session: Session[PretrainRecipe], learner: Learner) -> BatchLoader | None:
    """The dev data; without a labelled stream its transcripts judge a head that was carried over."""
    settings = learner.loader_settings()
    if session.recipe.data.labelled:
        return session.dev_batches(settings)
    try:
        return session.dev_batches(settings | {"allow_unlabelled": True})
    except ManifestError as error:
        batches = session.dev_batches(settings | {"vocabulary": None})  # says what else is wrong with them
        session.report(f"dev: no dev/per, the head does not know all of its phones: {error}")
        return batches


def _loader_settings(recipe: PretrainRecipe, learner: Learner) -> dict[str, Any]:
    """What a loader must know of the model; without a labelled stream no transcript is looked at."""
    settings = learner.loader_settings()
    return settings if recipe.data.labelled else settings | {"vocabulary": None}
