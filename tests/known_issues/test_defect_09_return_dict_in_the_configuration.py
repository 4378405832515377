"""Stock: with `config.return_dict=False` every head raises AttributeError."""

import pytest
import torch

import tiny
import unispeech


@pytest.mark.parametrize("name", ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"])
def test_tuples_by_configuration_and_by_argument(name):
    model_class = getattr(unispeech, f"UniSpeech{name}")
    x, mask = tiny.waveforms(6000, 4000)
    by_dict = tiny.build(model_class)(x, mask)
    by_config = tiny.build(model_class, return_dict=False)(x, mask)
    by_argument = tiny.build(model_class)(x, mask, return_dict=False)
    assert isinstance(by_config, tuple) and isinstance(by_argument, tuple)
    for a, b, c in zip(by_dict.to_tuple(), by_config, by_argument, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_a_tuple_starts_with_the_loss():
    model = tiny.build(unispeech.UniSpeechForCTC, return_dict=False)
    loss, logits = model(tiny.waveforms(6000)[0], labels=torch.tensor([[1, 2]]))
    assert loss.ndim == 0 and logits.shape == (1, 18, 11)
