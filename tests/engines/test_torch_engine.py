import numpy as np
import pytest
import torch

from tiny_recognisers import babble, save_recogniser, tiny_recogniser
from unispeech.engines.choice import open_engine
from unispeech.engines.torch_engine import TorchEngine, find_device
from unispeech.models.encoder import UniSpeechEncoderLayer


def test_each_row_of_a_batch_is_what_it_is_alone():
    engine = TorchEngine(tiny_recogniser())
    waveforms = [babble(0.7), babble(0.3, 1)]
    logits = engine.logits(waveforms)
    assert logits.shape == (2, 34, 7)
    assert logits.dtype == torch.float32
    alone = engine.logits(waveforms[1:])[0]
    torch.testing.assert_close(logits[1, : len(alone)], alone, atol=1e-4, rtol=1e-5)


def test_bf16_comes_near_float32():
    exact = TorchEngine(tiny_recogniser(), precision="float32")
    rough = TorchEngine(tiny_recogniser(), precision="bf16")
    one, other = exact.logits([babble(1.0)]), rough.logits([babble(1.0)])
    assert other.dtype == torch.float32
    assert not torch.equal(one, other)
    assert (one - other).abs().mean() < 0.05 * one.abs().mean()


def test_auto_is_float32_on_a_cpu():
    assert TorchEngine(tiny_recogniser().cpu()).precision == "float32"


def test_weights_in_half_precision_get_waveforms_in_half_precision():
    engine = TorchEngine(tiny_recogniser().to(torch.bfloat16))
    assert np.isfinite(engine.logits([babble(0.2)]).numpy()).all()


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="`precision` must be one of auto, float32, bf16, but is 'int3'"):
        TorchEngine(tiny_recogniser(), precision="int3")


@pytest.mark.parametrize("name", ["abacus", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"`device` must be one that torch finds .* but is '{name}'"):
        TorchEngine(tiny_recogniser(), device=name)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")


def test_a_graph_is_not_compiled(tmp_path):
    with pytest.raises(ValueError, match="`engine` must be auto or torch along with `compile`, but is open"):
        open_engine(tmp_path, tmp_path, engine="openvino", compile=True)


def test_compiled_layers_are_asked_for_layer_by_layer(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(UniSpeechEncoderLayer, "compile", lambda self, **settings: compiled.append(settings))
    engine = open_engine(save_recogniser(tmp_path / "model"), tmp_path / "model", compile=True)
    assert (engine.name, compiled) == ("torch", [{"dynamic": True}] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("norm_first", [False, True])
def test_compiled_layers_give_the_same(norm_first):
    model = tiny_recogniser(do_stable_layer_norm=norm_first)
    waveforms = [babble(0.7), babble(0.3, 1)]
    expected = TorchEngine(model).log_probs(waveforms)
    compiled = TorchEngine(model, compile=True)
    for one, other in zip(expected, compiled.log_probs(waveforms), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
    [alone] = compiled.log_probs([babble(1.3)])
    assert len(alone) == 64
