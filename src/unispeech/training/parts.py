"""Which parts of a model take part in an update: frozen parameters, dropped layers, known labels."""

import torch
from torch import Tensor

from unispeech.models import UniSpeechPreTrainedModel
from unispeech.objectives import IGNORED_LABEL
from unispeech.training.sections import OptimSettings


def frozen_prefixes(model: UniSpeechPreTrainedModel, optim: OptimSettings, update: int) -> tuple[str, ...]:
    """Which parameters do not learn in an update.

    What the configuration leaves without a gradient is among them, because distributed training would wait
    for it.

    Args:
        model: The bare model.
        optim: What is to be frozen.
        update: Number of updates made before it.

    Returns:
        Prefixes of parameter names.
    """
    base, config = f"{model.base_model_prefix}.", model.config
    if update < optim.freeze_encoder_updates:
        return (base,)
    prefixes = []
    if optim.freeze_convolutions or config.feature_grad_mult == 0:
        prefixes.append(f"{base}feature_extractor.")
    elif config.feat_extract_norm == "group" and config.conv_bias:
        prefixes.append(f"{base}feature_extractor.conv_layers.0.conv.bias")
    if config.mask_time_prob == 0 or not config.apply_spec_augment:
        prefixes.append(f"{base}masked_spec_embed")
    if config.do_stable_layer_norm and config.use_weighted_layer_sum:
        # The weighted sum is one of states, which stand before the last norm.
        prefixes.append(f"{base}encoder.layer_norm")
    return tuple(prefixes)


def draw_layers(model: UniSpeechPreTrainedModel, shared: torch.Generator) -> Tensor | None:
    """Draw which encoder layers LayerDrop keeps, the same in every process.

    Args:
        model: The bare model.
        shared: The generator that all processes share.

    Returns:
        (num_layers,) boolean, True for those kept; None where there is no LayerDrop.
    """
    config = model.config
    if config.layerdrop == 0:
        return None
    return torch.rand(config.num_hidden_layers, generator=shared) >= config.layerdrop


def check_labels(labels: Tensor, num_classes: int, ids: list[str]) -> None:
    """Refuse labels that the head has no output for.

    Args:
        labels: (B, L); `IGNORED_LABEL` is skipped.
        num_classes: Outputs of the head.
        ids: The utterances, for the message.

    Raises:
        ValueError: If one lies outside; the message names the first.
    """
    is_wrong = ((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= num_classes)
    if bool(is_wrong.any()):
        row, column = is_wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{ids[row]}: `labels` must lie in [0, {num_classes - 1}], the outputs of the head, but hold "
            f"{int(labels[row, column])}."
        )
