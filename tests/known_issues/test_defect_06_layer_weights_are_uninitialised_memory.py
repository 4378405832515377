"""Stock: after loading a base checkpoint the layer weights are whatever the memory held."""

import torch

import tiny
from unispeech import UniSpeechForSequenceClassification, UniSpeechModel


def test_layer_weights_start_equal_after_loading(tmp_path):
    tiny.build(UniSpeechModel).save_pretrained(tmp_path)
    model = UniSpeechForSequenceClassification.from_pretrained(tmp_path, use_weighted_layer_sum=True)
    torch.testing.assert_close(model.layer_weights.data, torch.full((4,), 0.25))


def test_and_are_kept_when_the_checkpoint_has_them(tmp_path):
    model = tiny.build(UniSpeechForSequenceClassification, use_weighted_layer_sum=True)
    model.layer_weights.data.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    model.save_pretrained(tmp_path)
    again = UniSpeechForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again.layer_weights, model.layer_weights)
