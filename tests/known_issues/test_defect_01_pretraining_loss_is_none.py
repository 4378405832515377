"""Stock: the pre-training loss is always None and nothing reads the objective's settings."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForPreTraining

LABELS = torch.tensor([[3, 4, 4, 5], [6, 7, -100, -100]])


def loss_of(**overrides):
    model = tiny.build(UniSpeechForPreTraining, "layer", **overrides).train()
    x, mask = tiny.waveforms(12000, 9000)
    return model, model(x, mask, LABELS, generator=torch.Generator().manual_seed(5)).loss


def test_loss_is_there_and_reaches_every_parameter():
    model, loss = loss_of()
    assert loss.isfinite()
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert model.ctc_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "setting",
    [
        {"contrastive_logits_temperature": 0.5},
        {"num_negatives": 3},
        {"diversity_loss_weight": 5.0},
        {"replace_prob": 0.0},
        {"ctc_weight": 0.9},
    ],
)
def test_every_setting_of_the_objective_changes_it(setting):
    assert abs(loss_of(**setting)[1] - loss_of()[1]) > 1e-3
