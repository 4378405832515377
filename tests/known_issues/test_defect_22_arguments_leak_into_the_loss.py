"""Stock: `ignore_index=` reaches the loss function and `reduction=` collides with one of its arguments."""

import pytest
import torch

import tiny
import unispeech


@pytest.mark.parametrize("name", ["ForCTC", "ForSequenceClassification", "ForPreTraining"])
@pytest.mark.parametrize("argument", [{"ignore_index": 1}, {"reduction": "sum"}, {"num_items_in_batch": 4}])
def test_arguments_of_loss_functions_are_refused_by_name(name, argument):
    model = tiny.build(getattr(unispeech, f"UniSpeech{name}"))
    labels = torch.tensor([1]) if name == "ForSequenceClassification" else torch.tensor([[1]])
    with pytest.raises(TypeError, match=next(iter(argument))):
        model(tiny.waveforms(4000)[0], labels=labels, **argument)
