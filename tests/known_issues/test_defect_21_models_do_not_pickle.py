"""Stock: `pickle` and `torch.save(model)` fail; misspelt keyword arguments are accepted by every model."""

import copy
import io
import pickle

import pytest
import torch

import tiny
import unispeech

NAMES = ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"]


def through_torch(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch])
def test_a_copy_computes_the_same(name, norm, copied):
    model = tiny.build(getattr(unispeech, f"UniSpeech{name}"), norm)
    x, mask = tiny.waveforms(4000, 3000)
    again = copied(model)
    for a, b in zip(model(x, mask).to_tuple(), again(x, mask).to_tuple(), strict=True):
        assert torch.equal(a, b)
    parameters = dict(model.named_parameters())
    assert all(p is not parameters[n] for n, p in again.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_argument_is_refused_by_name(name):
    model = tiny.build(getattr(unispeech, f"UniSpeech{name}"))
    with pytest.raises(TypeError, match="output_hiden_states"):
        model(tiny.waveforms(4000)[0], output_hiden_states=True)


def test_a_misspelt_field_is_warned_of_by_name():
    with pytest.warns(
        UserWarning, match="`hiden_size` is not a field of UniSpeechConfig; did you mean `hidden_size`"
    ):
        unispeech.UniSpeechConfig(hiden_size=3)
