"""Stock: `freeze_base_model` in training still builds the graph of the base model."""

import pytest
import torch

import tiny
import unispeech
from unispeech import (
    UniSpeechForCTC,
    UniSpeechForPreTraining,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
)


def saved_bytes(model):
    """Bytes that a training pass keeps for the way back, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, mask = tiny.waveforms(16000, 12000)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(x, mask)
    return sum(kept.values()), output


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("model_class", [UniSpeechForCTC, UniSpeechForSequenceClassification])
def test_a_frozen_base_keeps_no_activations(model_class, norm):
    model = tiny.build(model_class, norm).train()
    whole, _ = saved_bytes(model)
    model.freeze_base_model()
    frozen, output = saved_bytes(model)
    assert frozen < whole / 50
    output.logits.sum().backward()
    assert all(p.grad is None for p in model.unispeech.parameters())
    heads = [n for n, p in model.named_parameters() if p.requires_grad]
    assert heads and all(model.get_parameter(n).grad is not None for n in heads)


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("name", ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"])
def test_frozen_convolutions_keep_no_activations(name, norm):
    model = tiny.build(getattr(unispeech, f"UniSpeech{name}"), norm).train()
    base = model if name == "Model" else model.unispeech
    seen = []
    base.feature_extractor.register_forward_hook(lambda module, args, result: seen.append(result))
    whole, _ = saved_bytes(model)
    model.freeze_feature_encoder()
    frozen, _ = saved_bytes(model)
    assert seen[0].grad_fn is not None and seen[1].grad_fn is None
    assert frozen < 0.7 * whole
    assert all(p.requires_grad for p in base.encoder.parameters())


def test_the_pretraining_model_freezes_its_base_too():
    model = tiny.build(UniSpeechForPreTraining).train()
    model.freeze_base_model()
    model(tiny.waveforms(6000)[0]).loss.backward()
    assert all(p.grad is None for p in model.unispeech.parameters())
    assert model.quantizer.codevectors.grad is not None


def test_the_bare_model_has_no_base_to_freeze():
    assert not hasattr(UniSpeechModel, "freeze_base_model")
