"""Stock: the widths of the projected states contradict their description, and no loss shows their use.

Here both have the encoder's width, say so, and are the two sides of the contrastive cosine.
"""

import torch
import torch.nn.functional as F

import tiny
from unispeech import UniSpeechForPreTraining, UniSpeechForPreTrainingOutput


def test_their_cosine_is_the_contrastive_logit():
    model = tiny.build(UniSpeechForPreTraining, "layer", negatives_from="all")
    x, _ = tiny.waveforms(12000, 12000)
    is_masked = torch.zeros(2, 37, dtype=torch.bool)
    is_masked[:, 5:15] = True
    negatives = torch.randint(0, 37, (2, 37, 7)) + torch.tensor([0, 37])[:, None, None]
    output = model(x, mask_time_indices=is_masked, sampled_negative_indices=negatives)
    assert output.projected_states.shape == output.projected_quantized_states.shape == (2, 37, 32)

    context, quantized = output.projected_states, output.projected_quantized_states
    candidates = torch.cat(
        [quantized[:, :, None], quantized.flatten(0, 1)[negatives]], dim=2
    )  # (B, T, 1 + K, H)
    logits = F.cosine_similarity(context[:, :, None], candidates, dim=-1) / 0.1
    expected = -F.log_softmax(logits, dim=-1)[..., 0][is_masked].sum()
    torch.testing.assert_close(output.contrastive_loss, expected)


def test_their_description_names_the_width():
    assert UniSpeechForPreTrainingOutput.__dataclass_fields__.keys() >= {"projected_states"}
