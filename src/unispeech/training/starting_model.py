"""The model that a run starts with, of a model directory or a configuration, with its head."""

import copy
from collections.abc import Callable, Mapping

from unispeech.checkpoints.hub import model_files
from unispeech.checkpoints.huggingface import load_model
from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError
from unispeech.models import (
    UniSpeechForCTC,
    UniSpeechForPreTraining,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
    UniSpeechPreTrainedModel,
)
from unispeech.text import Vocabulary
from unispeech.training.recipe import PretrainObjectiveSettings
from unispeech.training.sections import MaskingSettings, ModelSettings

DROPOUTS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "feat_quantizer_dropout",
    "final_dropout",
    "layerdrop",
)
"""Settings of the recipe's model section that replace fields of the configuration."""

WHOLE_GRADIENT: Mapping[str, object] = {"feature_grad_mult": 1.0}
"""Fine-tuning freezes the convolutions or does not, whatever pre-training did to their gradient."""

QUANTIZER = ("num_codevectors_per_group", "num_codevector_groups", "codevector_dim", "proj_codevector_dim")
"""Fields of the configuration that only a model in pre-training has weights for."""


def make_recogniser(
    settings: ModelSettings, masking: MaskingSettings, vocabulary: Vocabulary, report: Callable[[str], None]
) -> UniSpeechForCTC:
    """Make the recogniser that a run starts with.

    From a model directory the encoder is kept; the head is kept where it writes the same vocabulary, and
    starts with random weights else.

    Args:
        settings: Where the model comes from, and its dropouts.
        masking: Its masks.
        vocabulary: The symbols of its head.
        report: Is given a line on what was kept.

    Returns:
        The model.

    Raises:
        CheckpointError: If the model directory cannot be used.
        ValueError: If `model.config` states what the vocabulary gives.
    """
    given = {"vocab_size": len(vocabulary), "pad_token_id": vocabulary.blank}
    if settings.init is None:
        return UniSpeechForCTC(_fresh_config(settings, masking, given))
    source = load_model(settings.init)
    model = UniSpeechForCTC(_derived_config(source.config, settings, masking, {**given, **WHOLE_GRADIENT}))
    _copy_encoder(source, model, settings.init, report)
    head = getattr(source, "lm_head", None) or getattr(source, "ctc_proj", None)
    if head is None:
        report(f"{settings.init}: encoder kept; fresh head for {len(vocabulary)} symbols, it has none")
    elif not _has_vocabulary(settings.init, vocabulary):
        report(f"{settings.init}: encoder kept; fresh head for {len(vocabulary)} symbols, its own are others")
    elif head.out_features != len(vocabulary):
        raise CheckpointError(
            f"{settings.init}: vocabulary must have a symbol for each of the {head.out_features} outputs of "
            f"the head, but has {len(vocabulary)}."
        )
    else:
        model.lm_head.load_state_dict(head.state_dict())
        report(f"{settings.init}: encoder and head kept")
    return model


def make_classifier(
    settings: ModelSettings,
    masking: MaskingSettings,
    label2id: Mapping[str, int],
    report: Callable[[str], None],
) -> UniSpeechForSequenceClassification:
    """Make the classifier that a run starts with; the head is kept where it has the same classes.

    Args:
        settings: Where the model comes from, and its dropouts.
        masking: Its masks.
        label2id: The classes.
        report: Is given a line on what was kept.

    Returns:
        The model.

    Raises:
        CheckpointError: If the model directory cannot be used.
        ValueError: If `model.config` states what the classes give.
    """
    given = {
        "label2id": dict(label2id),
        "id2label": {index: label for label, index in label2id.items()},
        "problem_type": "single_label_classification",
    }
    if settings.init is None:
        return UniSpeechForSequenceClassification(_fresh_config(settings, masking, given))
    source = load_model(settings.init)
    config = _derived_config(source.config, settings, masking, {**given, **WHOLE_GRADIENT})
    model = UniSpeechForSequenceClassification(config)
    _copy_encoder(source, model, settings.init, report)
    is_classifier = isinstance(source, UniSpeechForSequenceClassification)
    if is_classifier and source.config.label2id == dict(label2id):
        model.projector.load_state_dict(source.projector.state_dict())
        model.classifier.load_state_dict(source.classifier.state_dict())
        report(f"{settings.init}: encoder and head kept")
    else:
        report(f"{settings.init}: encoder kept; fresh head for {len(label2id)} classes")
    return model


def make_pretrainer(
    settings: ModelSettings,
    masking: MaskingSettings,
    objective: PretrainObjectiveSettings,
    vocabulary: Vocabulary | None,
    report: Callable[[str], None],
) -> UniSpeechForPreTraining:
    """Make the model that a stage of pre-training starts with.

    From a pre-trained model everything is carried over, the quantizer and its projections too; the CTC head
    where it writes the same vocabulary, or where this stage has no transcripts. From another model the
    encoder is. (The original drops the biases of the convolutions between its stages, by an oversight of its
    scripts; here they stay.)

    Args:
        settings: Where the model comes from, its dropouts, and what its configuration must be.
        masking: Its masks.
        objective: Its loss weights.
        vocabulary: The symbols of its CTC head; None where no stream has transcripts.
        report: Is given a line on what was kept.

    Returns:
        The model.

    Raises:
        CheckpointError: If the model directory cannot be used, or its configuration is not as the recipe
            says.
        ValueError: If `model.config` states what other settings give.
    """
    given = objective.config_fields()
    if vocabulary is not None:
        given |= {"num_ctc_classes": len(vocabulary), "pad_token_id": vocabulary.blank}
    if settings.init is None:
        return UniSpeechForPreTraining(_fresh_config(settings, masking, given))
    source = load_model(settings.init)
    stated = dict(settings.config or {})
    is_pretrainer = isinstance(source, UniSpeechForPreTraining)
    if not is_pretrainer:
        given |= {name: stated.pop(name) for name in QUANTIZER if name in stated}
    _check_stated(settings.init, source.config, stated)
    model = UniSpeechForPreTraining(_derived_config(source.config, settings, masking, given))
    _copy_encoder(source, model, settings.init, report)
    kept = ["encoder"]
    if isinstance(source, UniSpeechForPreTraining):
        for name in ("quantizer", "project_q", "project_hid"):
            model.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())
        kept.append("quantizer")
    if is_pretrainer and (vocabulary is None or _has_vocabulary(settings.init, vocabulary)):
        model.ctc_proj.load_state_dict(source.get_submodule("ctc_proj").state_dict())
        kept.append("CTC head")
    fresh = [part for part in ("quantizer", "CTC head") if part not in kept]
    report(f"{settings.init}: {', '.join(kept)} kept" + (f"; fresh {', '.join(fresh)}" if fresh else ""))
    return model


def _check_stated(name: str, config: UniSpeechConfig, stated: Mapping[str, object]) -> None:
    """Refuse a model whose configuration is not what the recipe says."""
    for field, wanted in stated.items():
        own = getattr(config, field)
        if own != wanted and not (isinstance(own, list | tuple) and list(own) == list(_listed(wanted))):
            raise CheckpointError(
                f"{name}: `{field}` must be {wanted} as in `model.config`, but is {own}; start from another "
                "run, or leave `model.config` out."
            )


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _settings_fields(settings: ModelSettings, masking: MaskingSettings) -> dict[str, object]:
    """Dropouts and masks that the recipe states, under the names of the configuration."""
    dropouts = {name: getattr(settings, name) for name in DROPOUTS if getattr(settings, name) is not None}
    return {**dropouts, **masking.config_fields()}


def _fresh_config(
    settings: ModelSettings, masking: MaskingSettings, given: Mapping[str, object]
) -> UniSpeechConfig:
    """The configuration that the recipe states."""
    stated = dict(settings.config or {})
    for name in given:
        if name in stated:
            raise ValueError(f"`model.config.{name}` must be left out: the data give it.")
    return UniSpeechConfig(**{**stated, **_settings_fields(settings, masking), **given})


def _derived_config(
    config: UniSpeechConfig, settings: ModelSettings, masking: MaskingSettings, given: Mapping[str, object]
) -> UniSpeechConfig:
    """A copy of the configuration with what the recipe and the data say."""
    derived = copy.deepcopy(config)
    for name, value in {**_settings_fields(settings, masking), **given}.items():
        setattr(derived, name, value)
    return derived


def _copy_encoder(
    source: UniSpeechPreTrainedModel,
    model: UniSpeechForCTC | UniSpeechForSequenceClassification | UniSpeechForPreTraining,
    name: str,
    report: Callable[[str], None],
) -> None:
    """Take over every weight below the head; only the mask embedding may be new or be left."""
    base = source if isinstance(source, UniSpeechModel) else source.get_submodule(source.base_model_prefix)
    missing, unexpected = model.unispeech.load_state_dict(base.state_dict(), strict=False)
    others = [weight for weight in (*missing, *unexpected) if weight != "masked_spec_embed"]
    if others:
        raise CheckpointError(f"{name}: encoder must fit its configuration, but {others[0]} does not.")
    if missing:
        report(f"{name}: fresh mask embedding, it was trained without masks")


def _has_vocabulary(source: str, vocabulary: Vocabulary) -> bool:
    """Whether a model writes the same symbols with the same ids."""
    try:
        own = Vocabulary.load(model_files(source))
    except (CheckpointError, FileNotFoundError):
        return False
    return own.symbols == vocabulary.symbols and own.blank == vocabulary.blank
