"""Stock: the initialisation of the positional convolution is written to a computed tensor and lost."""

import math

import pytest

import tiny
from unispeech import UniSpeechForCTC, UniSpeechModel


@pytest.mark.parametrize("model_class", [UniSpeechModel, UniSpeechForCTC])
def test_the_weight_has_the_spread_of_the_paper(model_class):
    model = model_class(tiny.config(hidden_size=128, num_conv_pos_embeddings=32))
    conv = model.get_submodule(
        "encoder" if model_class is UniSpeechModel else "unispeech.encoder"
    ).pos_conv_embed.conv
    expected = math.sqrt(4 / (32 * 128))
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert conv.weight.mean().abs() < expected / 20
    assert conv.bias.abs().max() == 0


def test_a_loaded_weight_is_left_alone(tmp_path):
    model = tiny.build(UniSpeechModel)
    model.save_pretrained(tmp_path)
    again = UniSpeechForCTC.from_pretrained(tmp_path)
    assert (
        again.unispeech.encoder.pos_conv_embed.conv.weight == model.encoder.pos_conv_embed.conv.weight
    ).all()


def test_the_projection_has_its_initial_values():
    model = UniSpeechForCTC(tiny.config(conv_dim=(64,) * 7, hidden_size=128))
    projection = model.unispeech.feature_projection.projection
    assert projection.weight.std().item() == pytest.approx(64**-0.5 / math.sqrt(3), rel=0.05)
    assert 0.5 * 64**-0.5 < projection.bias.abs().max() <= 64**-0.5
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.15)
