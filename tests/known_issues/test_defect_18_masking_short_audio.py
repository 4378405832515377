"""Stock: training on audio of fewer frames than one time mask raises ValueError."""

import pytest
import torch

import tiny
import unispeech


@pytest.mark.parametrize("name", ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"])
@pytest.mark.parametrize("length", [0, 1, 399, 400, 719, 720, 1500, 3400, 3600])
def test_training_at_every_length(name, length):
    model = tiny.build(
        getattr(unispeech, f"UniSpeech{name}"), mask_time_length=10, mask_feature_prob=0.2, mask_time_prob=0.9
    ).train()
    output = model(torch.randn(2, length))
    assert all(value.isfinite().all() for value in output.to_tuple() if value is not None)
    if output.get("loss") is not None:
        output.loss.backward()
