"""Stock: a target longer than its frames gives an infinite loss, and every gradient turns to NaN."""

import warnings

import pytest
import torch

import tiny
from unispeech import UniSpeechForCTC, UniSpeechForPreTraining

LABELS = torch.tensor([[3, 4] + [-100] * 8, [5] * 10])  # ten equal symbols need 19 frames; there are 18


@pytest.mark.parametrize("model_class", [UniSpeechForCTC, UniSpeechForPreTraining])
def test_it_is_named_and_counts_as_nothing(model_class):
    model = tiny.build(model_class, "layer")
    x, _ = tiny.waveforms(6000, 6000)
    with pytest.warns(
        UserWarning, match=r"`labels` must fit into the frames.*utterance 1 \(10 in 18 frames\)"
    ):
        output = model(x, labels=LABELS)
    loss = output.loss if model_class is UniSpeechForCTC else output.ctc_loss
    alone = model(x[:1], labels=LABELS[:1])
    expected = alone.loss / 2 if model_class is UniSpeechForCTC else alone.ctc_loss
    torch.testing.assert_close(loss, expected)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_no_warning_where_the_configuration_says_so():
    model = tiny.build(UniSpeechForCTC, ctc_zero_infinity=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model(tiny.waveforms(6000, 6000)[0], labels=LABELS).loss.isfinite()
