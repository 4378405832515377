"""Stock: in norm-first models the last of the hidden states lacks the final norm, without a word.

The convention of transformers 5.23 is kept, since weighted layer sums are trained on it; here it is said in
the documentation and held: the final norm leads from the one to the other.
"""

import torch

import tiny
from unispeech import UniSpeechModel


def test_the_final_norm_lies_between_them_in_large_models():
    model = tiny.build(UniSpeechModel, "layer")
    output = model(tiny.waveforms(6000)[0], output_hidden_states=True)
    assert torch.equal(model.encoder.layer_norm(output.hidden_states[-1]), output.last_hidden_state)


def test_they_are_equal_in_base_models():
    model = tiny.build(UniSpeechModel, "group")
    output = model(tiny.waveforms(6000)[0], output_hidden_states=True)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
