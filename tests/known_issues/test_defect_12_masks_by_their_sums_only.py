"""Stock: left padding and holes give wrong outputs, empty rows see padding, other shapes pass silently."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForCTC, UniSpeechModel

LABELS = torch.tensor([[3, 4, 5], [6, 2, -100], [1, -100, -100]])


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_padding_on_the_left_is_padding(norm):
    model = tiny.build(UniSpeechForCTC, norm)
    x, mask = tiny.waveforms(8000, 5000, 6000)
    left, left_mask = x.clone(), mask.clone()
    for row, length in enumerate((8000, 5000, 6000)):
        left[row], left_mask[row] = left[row].roll(-length), left_mask[row].roll(-length)
    a, b = model(x, mask, LABELS), model(left, left_mask, LABELS)
    assert torch.equal(a.logits[1, :15], b.logits[1, :15])
    torch.testing.assert_close(a.loss, b.loss)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_a_mask_with_a_hole_leaves_the_samples_out(norm):
    model = tiny.build(UniSpeechModel, norm)
    x, mask = tiny.waveforms(8000)
    mask[:, 3000:4000] = 0
    alone = model(torch.cat([x[:, :3000], x[:, 4000:]], dim=1)).last_hidden_state
    torch.testing.assert_close(
        model(x, mask).last_hidden_state[:, : alone.shape[1]], alone, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("length", [0, 1, 399])
def test_a_row_too_short_for_a_frame_counts_as_nothing(norm, length):
    model = tiny.build(UniSpeechForCTC, norm)
    x, mask = tiny.waveforms(8000, length)
    with pytest.warns(UserWarning, match=r"utterance 1 \(2 in 0 frames\)"):
        loss = model(x, mask, LABELS[:2]).loss
    alone = model(x[:1], labels=LABELS[:1]).loss
    torch.testing.assert_close(loss, alone / 2)


@pytest.mark.parametrize("width", [7999, 8001])
def test_a_mask_of_another_shape_is_refused(width):
    model = tiny.build(UniSpeechModel)
    with pytest.raises(
        ValueError, match=r"`attention_mask` must have the shape of `input_values`, \(1, 8000\)"
    ):
        model(tiny.waveforms(8000)[0], torch.ones(1, width))
