"""Stock: the Gumbel temperature is a plain attribute that is 2 again after reloading."""

import torch

import tiny
from unispeech import UniSpeechForPreTraining


def test_it_survives_saving(tmp_path):
    model = tiny.build(UniSpeechForPreTraining)
    assert model.quantizer.temperature == 2.0
    model.set_gumbel_temperature(0.7)
    model.save_pretrained(tmp_path)
    again = UniSpeechForPreTraining.from_pretrained(tmp_path)
    assert again.quantizer.temperature == again.config.gumbel_temperature == 0.7


def test_it_changes_the_gradient():
    x, _ = tiny.waveforms(6000)
    gradients = []
    for temperature in (2.0, 0.5):
        model = tiny.build(UniSpeechForPreTraining).train()
        model.set_gumbel_temperature(temperature)
        model(x, generator=torch.Generator().manual_seed(1)).loss.backward()
        gradients.append(model.quantizer.weight_proj.weight.grad)
    assert not torch.allclose(*gradients)
