"""A recogniser as a model of CTranslate2, whose one graph of this kind is that of the large size.

CTranslate2 fixes in its own code what a network is that hears waveforms: layer norm behind each convolution,
their strides, the kernel of the positions, norms before attention and feed-forward, GELU. Only sizes and
weights are free.

Shapes in this file: B batch, S samples, T frames, H hidden, N vocabulary.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ctranslate2
import numpy as np
from ctranslate2.specs.common_spec import Conv1DSpec, LayerNormSpec, LinearSpec
from ctranslate2.specs.model_spec import LayerSpec
from ctranslate2.specs.transformer_spec import TransformerEncoderLayerSpec
from ctranslate2.specs.wav2vec2_spec import Wav2Vec2Spec

from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.engines.narrowing import Array
from unispeech.engines.network import Recogniser
from unispeech.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIXED = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "adapter_attn_dim": None,
}
"""Field of a configuration -> the value that CTranslate2 has in its code."""

FIRST_STRIDE, STRIDE = 5, 2
"""Strides of the first convolution and of the others in CTranslate2."""


def check_fields(model: "PreTrainedModel", source: Path) -> None:
    """Refuse a network that CTranslate2 does not have.

    Args:
        model: A CTC model.
        source: Where it was read.

    Raises:
        CheckpointError: If a field of its configuration is not the one that CTranslate2 has.
    """
    config = model.config
    strides = [FIRST_STRIDE, *[STRIDE] * (len(config.conv_stride) - 1)]
    for field, wanted in {**FIXED, "conv_stride": strides}.items():
        found = getattr(config, field)
        if (list(found) if isinstance(found, tuple) else found) != wanted:
            raise CheckpointError(
                f"{source}: `{field}` must be {wanted} for CTranslate2, but is {found}; "
                "export --to onnx or openvino."
            )


def write_ct2(recogniser: Recogniser, tokens: Sequence[str], folder: Path) -> None:
    """Write model.bin, config.json and vocabulary.json.

    Args:
        recogniser: A network that `check_fields` lets pass.
        tokens: Names of the N symbols.
        folder: Where; it is there.
    """
    spec = Wav2Vec2Spec(
        len(recogniser.kernels),
        recogniser.num_layers,
        recogniser.num_heads,
        recogniser.num_symbols,
        return_hidden=False,
    )
    fill = _Filling(recogniser)
    encoder = spec.encoder
    for number, layer in enumerate([encoder.feat_layer0, *encoder.feat_layer]):
        name = f"feature_extractor.conv_layers.{number}"
        fill.linear(layer.conv, f"{name}.conv")
        fill.norm(layer.layer_norm, f"{name}.layer_norm")
    fill.norm(encoder.fp_layer_norm, "feature_projection.layer_norm")
    fill.linear(encoder.fp_projection, "feature_projection.projection")
    fill.position(encoder.pos_conv_embed.conv, "encoder.pos_conv_embed.conv")
    for number, layer in enumerate(encoder.layer):
        fill.layer(layer, f"encoder.layers.{number}")
    fill.norm(encoder.layer_norm, "encoder.layer_norm")
    fill.linear(encoder.lm_head, "lm_head")
    spec.register_vocabulary(tokens)
    spec.validate()
    spec.optimize()
    spec.save(str(folder))


def open_ct2(folder: Path) -> Callable[[Waveform], LogProbs]:
    """Open what `write_ct2` wrote.

    Args:
        folder: Where it is.

    Returns:
        (S,) samples of an utterance, scaled as the model wants them -> (T, N) log-probabilities.
    """
    model = ctranslate2.models.Wav2Vec2(str(folder), device="cpu", compute_type="float32")

    def recognise(waveform: Waveform) -> LogProbs:
        inputs = np.ascontiguousarray(waveform[None, None], np.float32)  # (B, 1, S)
        logits = np.array(model.encode(ctranslate2.StorageView.from_array(inputs)))[0]
        logits -= logits.max(axis=-1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))

    return recognise


class _Filling:
    """Takes the weights of a recogniser to their places in CTranslate2's description."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._weights = recogniser.weights

    def weight(self, name: str) -> Array:
        return self._weights[name if name.startswith("lm_head") else f"unispeech.{name}"]

    def linear(self, place: LinearSpec | Conv1DSpec, name: str) -> None:
        place.weight = self.weight(f"{name}.weight")
        if f"unispeech.{name}.bias" in self._weights or f"{name}.bias" in self._weights:
            place.bias = self.weight(f"{name}.bias")

    def norm(self, place: LayerNormSpec, name: str) -> None:
        place.gamma, place.beta = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")

    def position(self, place: Conv1DSpec, name: str) -> None:
        magnitude, direction = (
            self.weight(f"{name}.parametrizations.weight.original{number}") for number in (0, 1)
        )
        place.weight = magnitude * direction / np.sqrt((direction**2).sum(axis=(0, 1), keepdims=True))
        place.bias = self.weight(f"{name}.bias")

    def layer(self, place: TransformerEncoderLayerSpec, name: str) -> None:
        attention: LayerSpec = place.self_attention
        parts = [f"{name}.attention.{part}_proj" for part in "qkv"]
        attention.linear[0].weight = np.concatenate([self.weight(f"{part}.weight") for part in parts])
        attention.linear[0].bias = np.concatenate([self.weight(f"{part}.bias") for part in parts])
        self.linear(attention.linear[1], f"{name}.attention.out_proj")
        self.norm(attention.layer_norm, f"{name}.layer_norm")
        self.linear(place.ffn.linear_0, f"{name}.feed_forward.intermediate_dense")
        self.linear(place.ffn.linear_1, f"{name}.feed_forward.output_dense")
        self.norm(place.ffn.layer_norm, f"{name}.final_layer_norm")
