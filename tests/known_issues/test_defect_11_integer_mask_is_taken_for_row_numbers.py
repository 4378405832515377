"""Stock: a time mask of 0 and 1 in integers masks the rows 0 and 1 whole; without an embedding it crashes."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForCTC, UniSpeechModel


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.uint8, torch.float32])
def test_numbers_mean_what_booleans_mean(dtype):
    model = tiny.build(UniSpeechModel)
    x, _ = tiny.waveforms(6000, 6000)
    is_masked = torch.rand(2, 18) < 0.4
    expected = model(x, mask_time_indices=is_masked).last_hidden_state
    assert torch.equal(model(x, mask_time_indices=is_masked.to(dtype)).last_hidden_state, expected)
    assert not torch.equal(model(x).last_hidden_state, expected)


def test_a_model_without_mask_embedding_says_so():
    model = tiny.build(UniSpeechForCTC, mask_time_prob=0.0)
    assert not hasattr(model.unispeech, "masked_spec_embed")
    with pytest.raises(
        ValueError, match="`mask_time_indices` must be None for a model without a mask embedding"
    ):
        model(tiny.waveforms(6000)[0], mask_time_indices=torch.ones(1, 18))


def test_a_mask_of_another_shape_is_refused():
    model = tiny.build(UniSpeechModel)
    with pytest.raises(
        ValueError, match=r"`mask_time_indices` must have shape \(B, T\) = \(1, 18\), but has \(1, 17\)"
    ):
        model(tiny.waveforms(6000)[0], mask_time_indices=torch.ones(1, 17))
