"""The original's CTC fine-tuning, replayed: logits, losses and gradients with both masks."""

import numpy as np
import pytest
import torch
from test_golden_pretraining import ARCHITECTURE, HERE, inputs, tensor

from unispeech import UniSpeechConfig, UniSpeechForCTC


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(HERE / "pretraining.npz")) | dict(np.load(HERE / "finetuning.npz"))


def build(golden):
    config = UniSpeechConfig(
        **ARCHITECTURE, vocab_size=11, ctc_loss_reduction="sum", ctc_zero_infinity=True, feature_grad_mult=0.0
    )
    model = UniSpeechForCTC(config).eval()
    weights = {k.removeprefix("weight/"): tensor(v) for k, v in golden.items() if k.startswith("weight/")}
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


def train(golden, model, update):
    """One training pass with the recorded masks; the channel mask comes by a hook, after the time mask."""
    model.train()
    channels = tensor(golden["train/channel_mask"])[:, None]
    model.unispeech.encoder.register_forward_pre_hook(
        lambda module, args: (args[0].masked_fill(channels, 0.0), *args[1:])
    )
    output = model(*inputs(golden), mask_time_indices=tensor(golden["train/time_mask"]))
    logits = tensor(golden[f"{update}/logits_TBV"]).transpose(0, 1)
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-5)
    assert output.loss.item() == pytest.approx(float(golden[f"{update}/ctc_loss_sum"]), rel=1e-6)
    output.loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_gradients(golden, update, gradients):
    names = [name for name in golden if name.startswith(f"{update}/grad/")]
    for name in names:
        expected = tensor(golden[name])
        bound = 1e-4 * max(expected.abs().max().item(), 1e-3)
        torch.testing.assert_close(
            gradients[name.removeprefix(f"{update}/grad/")], expected, rtol=0, atol=bound
        )
    return len(names)


def test_evaluation(golden):
    output = build(golden)(*inputs(golden))
    logits = tensor(golden["eval/logits_TBV"]).transpose(0, 1)
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-5)
    assert output.loss.item() == pytest.approx(float(golden["eval/ctc_loss_sum"]), rel=1e-6)


def test_first_updates_teach_the_head_only(golden):
    model = build(golden)
    model.freeze_base_model()
    gradients = train(golden, model, "train_u1")
    assert set(gradients) == {"lm_head.weight", "lm_head.bias"}
    assert check_gradients(golden, "train_u1", gradients) == 2


def test_later_updates_teach_all_but_the_convolutions(golden):
    model = build(golden)
    gradients = train(golden, model, "train_u2")
    assert check_gradients(golden, "train_u2", gradients) > 15
    still = {name for name, _ in model.named_parameters()} - set(gradients)
    assert still == {n for n, _ in model.named_parameters() if n.startswith("unispeech.feature_extractor.")}
