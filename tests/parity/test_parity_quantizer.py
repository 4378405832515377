"""The quantizer is transformers' to the bit, at a fraction of its work."""

import pytest
import torch
import transformers
from transformers.models.unispeech import modeling_unispeech as stock

from unispeech import UniSpeechConfig, UniSpeechForPreTraining

SETTINGS = dict(codevector_dim=48, num_codevector_groups=2, num_codevectors_per_group=20)


@pytest.mark.parametrize("is_training", [True, False])
def test_code_vectors_and_gradients_are_equal_to_the_bit(is_training):
    torch.manual_seed(0)
    theirs = stock.UniSpeechGumbelVectorQuantizer(transformers.UniSpeechConfig(**SETTINGS))
    torch.nn.init.uniform_(theirs.codevectors)
    ours = UniSpeechForPreTraining(UniSpeechConfig(**SETTINGS, num_hidden_layers=0)).quantizer
    ours.load_state_dict(theirs.state_dict())
    latents = torch.randn(2, 30, 512)
    made = []
    for quantizer in (theirs, ours):
        quantizer.train(is_training)
        torch.manual_seed(1)
        output = quantizer(latents)
        codevectors = output[0] if isinstance(output, tuple) else output.codevectors
        codevectors.square().sum().backward()
        made.append((codevectors.detach(), quantizer.codevectors.grad))
    assert torch.equal(made[0][0], made[1][0])
    torch.testing.assert_close(made[0][1], made[1][1], rtol=1e-6, atol=1e-6)
    assert made[1][1].abs().max() > 0
