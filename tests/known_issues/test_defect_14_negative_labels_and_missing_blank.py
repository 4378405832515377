"""Stock: a label of -1 gives a finite, wrong loss; a configuration without a blank fails inside torch."""

import pytest
import torch

import tiny
from unispeech import UniSpeechForCTC, UniSpeechForPreTraining


@pytest.mark.parametrize("model_class", [UniSpeechForCTC, UniSpeechForPreTraining])
@pytest.mark.parametrize("wrong", [-1, -99, 11])
def test_a_label_outside_the_vocabulary_is_named(model_class, wrong):
    model = tiny.build(model_class)
    with pytest.raises(
        ValueError, match=rf"`labels` must lie in \[0, 10\] or be -100, but utterance 1 has {wrong}"
    ):
        model(tiny.waveforms(6000, 6000)[0], labels=torch.tensor([[1, 2], [3, wrong]]))


@pytest.mark.parametrize("blank", [None, 11, -1])
def test_a_blank_outside_the_vocabulary_is_named(blank):
    model = tiny.build(UniSpeechForCTC, pad_token_id=blank)
    model(tiny.waveforms(6000)[0])  # without labels no blank is needed
    with pytest.raises(
        ValueError, match=rf"`pad_token_id` must be the index of the CTC blank in \[0, 10\], but is {blank}"
    ):
        model(tiny.waveforms(6000)[0], labels=torch.tensor([[1, 2]]))


def test_ignored_labels_and_blanks_are_dropped_wherever_they_stand():
    model = tiny.build(UniSpeechForCTC)
    x, _ = tiny.waveforms(6000)
    plain = model(x, labels=torch.tensor([[3, 4, 5]])).loss
    mixed = model(x, labels=torch.tensor([[-100, 3, 0, 4, -100, 5, 0]])).loss
    torch.testing.assert_close(mixed, plain)


@pytest.mark.parametrize("model_class", [UniSpeechForCTC, UniSpeechForPreTraining])
def test_transcripts_of_another_batch_are_refused(model_class):
    model = tiny.build(model_class)
    with pytest.raises(ValueError, match="`labels` must have a row for each of the 2 utterances, but have 1"):
        model(tiny.waveforms(6000, 6000)[0], labels=torch.tensor([[1, 2]]))
