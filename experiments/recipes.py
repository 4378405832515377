"""The recipe of every training of the comparison, as plain values; "@NAME/path" names a parent's outcome."""

import dataclasses
from typing import Any, Literal

from experiments.settings import Settings, TrainingSettings
from unispeech.training.sections import MaskingSettings

Recipe = dict[str, Any]


def pretraining(
    settings: Settings,
    *,
    labelled: str | None,
    unlabelled: list[str],
    seed: int,
    updates: int | None = None,
    init: str | None = None,
    ctc_weight: float = 0.5,
    replace_prob: float = 0.5,
    time_prob: float | None = None,
) -> Recipe:
    """A run of `unispeech pretrain`: stage 1, stage 2, contrast alone, or both streams at once.

    Args:
        settings: The size.
        labelled: The corpus with phones; None for none.
        unlabelled: The corpora that are only listened to.
        seed: Seed of the training.
        updates: Updates; None takes all that a system has.
        init: Model to start from; None starts with random weights.
        ctc_weight: Weight of CTC on labelled speech.
        replace_prob: Chance that CTC sees a frame's quantized latent.
        time_prob: Share of frames under masks; None: that of the size.

    Returns:
        The recipe.
    """
    updates = updates or settings.pretraining.updates
    masking = settings.masking if labelled else settings.unlabelled_masking
    if time_prob is not None:
        masking = dataclasses.replace(masking, time_prob=time_prob)
    objective = _plain(settings.objective) | {
        "ctc_weight": ctc_weight,
        "replace_prob": replace_prob,
        "negatives_from": "all" if labelled else "masked",
    }
    if labelled:
        objective["frame_updates"] = round(
            settings.pretraining.frame_updates * updates / settings.pretraining.updates
        )
    # The Gumbel temperature ends where it is meant to, however short the run.
    objective["temperature_decay"] = round(
        settings.objective.temperature_decay ** (settings.pretraining.updates / updates), 8
    )
    data: dict[str, Any] = _batches(settings.pretraining) | {"language_exponent": 0.5}
    if labelled:
        data |= {
            "labelled": [f"@{labelled}/train"],
            "dev": [f"@{labelled}/valid"],
            "vocabulary": f"@{labelled}/vocabulary",
        }
    if unlabelled:
        data |= {"unlabelled": [f"@{name}/train" for name in unlabelled]}
    if labelled and unlabelled:
        data["unlabelled_share"] = 0.5
    recipe = {
        "version": 1,
        "model": _model(settings, init, pretraining=True),
        "data": data,
        "masking": _given(masking),
        "objective": objective,
        **_training(settings.pretraining, updates, seed),
    }
    if init is not None:
        recipe["optim"]["learning_rate"] *= settings.design.stage2_rate
    return recipe


def transfer(settings: Settings, *, source: str, seed: int) -> Recipe:
    """CTC on the source alone: supervised transfer.

    Args:
        settings: The size.
        source: The corpus with phones.
        seed: Seed of the training.

    Returns:
        A recipe of `unispeech finetune`, of as many updates as a pre-training has.
    """
    return _recognition(
        settings,
        settings.pretraining,
        init=None,
        train=f"@{source}/train",
        dev=f"@{source}/valid",
        vocabulary=f"@{source}/vocabulary",
        seed=seed,
    )


def finetuning(
    settings: Settings,
    *,
    labelled: str,
    labelled_part: Literal["labelled", "train"],
    target: str,
    init: str | None,
    seed: int,
    has_times: bool,
) -> Recipe:
    """What every system gets at the end.

    Args:
        settings: The size.
        labelled: The corpus whose transcripts are learned.
        labelled_part: Its few minutes, or all of it.
        target: The corpus on which the curves are measured.
        init: The pre-trained model; None starts with random weights.
        seed: Seed of the training.
        has_times: Whether phone times are known.

    Returns:
        A recipe of `unispeech finetune`.
    """
    tuning = settings.finetuning
    recipe = _recognition(
        settings,
        tuning,
        init=init,
        train=f"@{labelled}/{labelled_part}",
        dev=f"@{target}/valid",
        vocabulary=f"@{labelled}/vocabulary",
        seed=seed,
    )
    if not has_times:
        recipe["objective"].pop("frame_updates")
        recipe["schedule"]["num_updates"] = tuning.human_updates or tuning.updates
    if init is not None:
        recipe["optim"] |= {
            "freeze_encoder_updates": tuning.freeze_encoder_updates,
            "freeze_convolutions": tuning.freeze_convolutions,
        }
    return recipe


def _recognition(
    settings: Settings,
    training: TrainingSettings,
    *,
    init: str | None,
    train: str,
    dev: str,
    vocabulary: str,
    seed: int,
) -> Recipe:
    return {
        "version": 1,
        "model": _model(settings, init, pretraining=False),
        "data": {
            "train": [train],
            "dev": [dev],
            "vocabulary": vocabulary,
            "units": "phones",
            **_batches(training),
        },
        "masking": _given(settings.finetuning_masking),
        "objective": {"task": "ctc", "normaliser": "labels", "frame_updates": training.frame_updates},
        **_training(training, training.updates, seed),
    }


def _model(settings: Settings, init: str | None, *, pretraining: bool) -> dict[str, Any]:
    model = _given(settings.model)
    if not pretraining:
        model.pop("feat_quantizer_dropout", None)
    if init is not None:
        model.pop("config")
        model["init"] = init
    return model


def _batches(training: TrainingSettings) -> dict[str, Any]:
    workers = {"num_workers": training.num_workers} if training.num_workers else {}
    return {"batch_seconds": training.batch_seconds, **workers}


def _training(training: TrainingSettings, updates: int, seed: int) -> dict[str, Any]:
    return {
        "optim": {
            "learning_rate": training.learning_rate,
            "weight_decay": training.weight_decay,
            "max_grad_norm": training.max_grad_norm,
        },
        "schedule": {
            "num_updates": updates,
            "kind": "tri-stage",
            "warmup_fraction": training.warmup_fraction,
            "hold_fraction": training.hold_fraction,
            "final_factor": training.final_factor,
        },
        "runtime": {
            "seed": seed,
            "log_every": max(updates // 40, 1),
            "validate_every": max(updates // 8, 1),
            "save_every": max(updates // 8, 1),
        },
    }


def _plain(section: Any) -> dict[str, Any]:
    return {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}


def _given(section: MaskingSettings | Any) -> dict[str, Any]:
    """The settings of a section that are not left to the model."""
    return {name: value for name, value in _plain(section).items() if value not in (None, False)}
