"""Stock: a layer that LayerDrop leaves out is missing from the hidden states, and the weighted sum fails."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForSequenceClassification, UniSpeechModel


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("layerdrop", [0.5, 1.0])
def test_training_with_layerdrop(norm, layerdrop):
    model = tiny.build(
        UniSpeechForSequenceClassification, norm, layerdrop=layerdrop, use_weighted_layer_sum=True
    ).train()
    x, mask = tiny.waveforms(6000, 4000)
    for _ in range(8):
        output = model(x, mask, torch.tensor([1, 2]), output_hidden_states=True)
        assert len(output.hidden_states) == 4
        output.loss.backward()
    missing = {n for n, p in model.named_parameters() if p.grad is None}
    # The states of norm-first models are taken before the final norm, so the sum does not pass through it.
    unused = {"unispeech.encoder.layer_norm.weight", "unispeech.encoder.layer_norm.bias"}
    assert missing == (unused if norm == "layer" else set())


def test_a_layer_left_out_hands_its_input_on():
    model = tiny.build(UniSpeechModel, "layer").train()
    x, _ = tiny.waveforms(6000)
    output = model(
        x, kept_layers=torch.tensor([True, False, True]), output_hidden_states=True, output_attentions=True
    )
    states, maps = output.hidden_states, output.attentions
    assert len(states) == 4 and len(maps) == 3
    assert torch.equal(states[2], states[1]) and not torch.equal(states[3], states[2])
    assert maps[1].abs().max() == 0
