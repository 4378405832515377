"""Stock: the codevector perplexity changes when the same audio is padded."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForPreTraining


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_padding_does_not_change_the_perplexity(norm):
    model = tiny.build(UniSpeechForPreTraining, norm)
    x, _ = tiny.waveforms(8000)
    padded = torch.nn.functional.pad(x, (0, 16000))
    mask = torch.nn.functional.pad(torch.ones_like(x), (0, 16000))
    alone, together = model(x), model(padded, mask)
    torch.testing.assert_close(together.codevector_perplexity, alone.codevector_perplexity)
