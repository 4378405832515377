"""Tiny models and waveforms: the published geometry (400 samples a window, 320 a hop) at a width of 32."""

from typing import Any

import torch
from torch import Tensor

from unispeech import UniSpeechConfig

NORMS = ("group", "layer")
"""The two families: "group" is Base (norms after), "layer" is Large (norms before)."""

SIZES: dict[str, Any] = {
    "vocab_size": 11,
    "num_ctc_classes": 11,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "codevector_dim": 24,
    "proj_codevector_dim": 24,
    "num_codevectors_per_group": 5,
    "num_negatives": 7,
    "classifier_proj_size": 12,
    "num_labels": 4,
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.4,
    "mask_time_length": 4,
}


def sizes(norm: str = "group", **overrides: Any) -> dict[str, Any]:
    """Keyword arguments of a tiny configuration, ours or transformers'."""
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    return SIZES | (large if norm == "layer" else {}) | overrides


def config(norm: str = "group", **overrides: Any) -> UniSpeechConfig:
    return UniSpeechConfig(**sizes(norm, **overrides))


def build(model_class: Any, norm: str = "group", *, seed: int = 0, **overrides: Any) -> Any:
    """A model in evaluation mode whose biases and norm weights are away from 0 and 1, so that they matter."""
    torch.manual_seed(seed)
    model = model_class(config(norm, **overrides)).eval()
    shake(model)
    return model


@torch.no_grad()
def shake(model: torch.nn.Module) -> None:
    """Add noise to every parameter of one axis."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and not name.endswith(("masked_spec_embed", "layer_weights")):
            parameter.add_(0.1 * torch.randn_like(parameter))


def waveforms(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of the given lengths, padded on the right with noise that must not matter, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return x, mask
