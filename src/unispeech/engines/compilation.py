"""Layers of the encoder as compiled code, under the names that they have anyway."""

from torch import nn

from unispeech.models.encoder import UniSpeechEncoderLayer


def compile_layers(model: nn.Module) -> None:
    """Have torch compile each layer when it first runs.

    The layers are alike, so that one compilation serves all of them, and the rest of the model, whose Python
    decides by lengths and draws, stays as it is. Lengths are symbols in the code: other ones need no new.
    Parameters, state dict and hooks are not touched.

    Args:
        model: Holds the layers.
    """
    for part in model.modules():
        if isinstance(part, UniSpeechEncoderLayer):
            part.compile(dynamic=True)
