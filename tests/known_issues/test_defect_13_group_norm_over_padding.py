"""Stock: base models normalise over padding: a batch does not give what singles give (fairseq 3227)."""

import torch
from transformers import UniSpeechModel as StockModel

import tiny
from unispeech import UniSpeechConfig, UniSpeechModel


def pair(**overrides):
    ours = tiny.build(UniSpeechModel, "group", **overrides)
    stock = StockModel._from_config(ours.config)
    stock.load_state_dict(ours.state_dict())
    return ours, stock.eval()


def test_padding_changes_nothing():
    ours, stock = pair()
    x, mask = tiny.waveforms(16000, 5000)
    alone = ours(x[1:, :5000]).last_hidden_state[0]
    torch.testing.assert_close(ours(x, mask).last_hidden_state[1, :15], alone, rtol=0, atol=1e-5)
    assert (stock(x, mask).last_hidden_state[1, :15] - alone).abs().max() > 1e-3  # the defect is real


def test_the_old_numbers_on_request():
    ours, stock = pair(group_norm_over_padding=True)
    x, mask = tiny.waveforms(16000, 5000)
    torch.testing.assert_close(
        ours(x, mask).last_hidden_state, stock(x, mask).last_hidden_state, rtol=0, atol=1e-5
    )
    assert UniSpeechConfig().group_norm_over_padding is False
