"""Stock: the replacement is drawn in evaluation as well and moves the global generator."""

import pytest
import torch

import tiny
import unispeech


@pytest.mark.parametrize("name", ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"])
@pytest.mark.parametrize("norm", tiny.NORMS)
def test_evaluation_draws_nothing_and_repeats(name, norm):
    model = tiny.build(
        getattr(unispeech, f"UniSpeech{name}"), norm, layerdrop=0.5, use_weighted_layer_sum=True
    )
    x, mask = tiny.waveforms(6000, 4000)
    before = torch.get_rng_state()
    first, second = model(x, mask), model(x, mask)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.to_tuple(), second.to_tuple(), strict=True):
        assert torch.equal(a, b)


def test_nor_does_the_evaluation_of_the_loss():
    model = tiny.build(unispeech.UniSpeechForPreTraining, "layer")
    x, mask = tiny.waveforms(6000, 4000)
    labels = torch.tensor([[3, 4], [5, -100]])
    before = torch.get_rng_state()
    first, second = model(x, mask, labels).loss, model(x, mask, labels).loss
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
