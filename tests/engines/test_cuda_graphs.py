"""CUDA graphs without a GPU: all but the recording itself, which the last test does where there is one."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_recognisers import PHONES, babble, save_recogniser, tiny_recogniser
from unispeech.engines import torch_engine
from unispeech.engines.choice import open_engine
from unispeech.engines.cuda_graphs import LONGEST, CudaGraphs, record_graph
from unispeech.engines.engine import measure_moments
from unispeech.engines.torch_engine import TorchEngine

NORMS = [
    {"feat_extract_norm": "group"},
    {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
]


class Recorder:
    """Runs the pass again where a GPU would replay it, on the same inputs and into the same result."""

    def __init__(self):
        self.widths = []
        self.num_replays = 0

    def __call__(self, run, waveform, attention_mask):
        self.widths.append(waveform.shape[1])
        with torch.inference_mode():
            logits = run(waveform, attention_mask).clone()

        def replay():
            self.num_replays += 1
            with torch.inference_mode():
                return logits.copy_(run(waveform, attention_mask))

        return replay


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(torch_engine, "CudaGraphs", partial(CudaGraphs, record=made))
    return made


@pytest.mark.parametrize("norm", NORMS, ids=["group", "layer"])
def test_a_replay_gives_what_the_pass_gives(norm):
    model = tiny_recogniser(**norm)
    plain = TorchEngine(model)
    graphs = CudaGraphs(model, plain._recorded, record=Recorder())

    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 3 * 16_000))
    def check(length):
        waveform = np.random.default_rng(length).normal(size=length).astype(np.float32)
        [expected] = plain.log_probs([waveform])
        found = graphs.logits(torch.from_numpy(waveform)).log_softmax(dim=-1)[0, : len(expected)].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)

    check()


def test_a_pass_is_recorded_once_for_every_half_second(recorder):
    engine = TorchEngine(tiny_recogniser(), cuda_graphs=True)
    for seconds in (0.3, 0.5, 0.51, 0.4, 1.0):
        engine.log_probs([babble(seconds)])
    assert recorder.widths == [8_000, 16_000]
    assert recorder.num_replays == 5


def test_an_answer_outlives_the_next_replay(recorder):
    engine = TorchEngine(tiny_recogniser(), cuda_graphs=True)
    first = engine.logits([babble(0.4)])
    kept = first.clone()
    engine.logits([babble(0.4, 1)])
    assert torch.equal(first, kept)


def test_batches_windows_and_long_utterances_are_not_replayed(recorder):
    model = tiny_recogniser()
    engine, plain = TorchEngine(model, cuda_graphs=True), TorchEngine(model)
    moments = measure_moments(babble(0.6), engine.kernels[0], engine.strides[0])
    for waveforms, given_ in (
        ([babble(0.3), babble(0.4)], None),
        ([babble(0.6)], moments),
        ([np.zeros(LONGEST + 1, dtype=np.float32)], None),
    ):
        found = engine.logits(waveforms, moments=given_)
        assert torch.equal(found, plain.logits(waveforms, moments=given_))
    assert recorder.widths == []
    engine.logits([np.zeros(LONGEST, dtype=np.float32)])
    assert recorder.widths == [LONGEST]


def test_weights_may_change_in_place_and_are_recorded_anew_where_they_move(recorder):
    model = tiny_recogniser()
    engine = TorchEngine(model, cuda_graphs=True)
    engine.logits([babble(0.4)])
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    torch.testing.assert_close(engine.logits([babble(0.4)])[:, :19], TorchEngine(model).logits([babble(0.4)]))
    assert recorder.widths == [8_000]
    model.lm_head.weight.data = model.lm_head.weight.data * 2
    torch.testing.assert_close(engine.logits([babble(0.4)])[:, :19], TorchEngine(model).logits([babble(0.4)]))
    assert recorder.widths == [8_000, 8_000]


def test_a_model_that_was_training_goes_on_training(recorder):
    model = tiny_recogniser(hidden_dropout=0.5).train()
    engine = TorchEngine(model, cuda_graphs=True)
    assert torch.equal(engine.logits([babble(0.4)]), engine.logits([babble(0.4)]))
    assert all(part.training for part in model.modules())


def test_there_are_no_graphs_without_a_gpu():
    with pytest.raises(
        ValueError, match="`device` must be a CUDA GPU along with `cuda_graphs`, but is cpu; l"
    ):
        TorchEngine(tiny_recogniser(), cuda_graphs=True)


@pytest.mark.parametrize("config", [{"group_norm_over_padding": True}, {"frame_count_rule": "original"}])
def test_there_are_no_graphs_of_a_model_that_hears_padding(config, recorder):
    with pytest.raises(ValueError, match="`cuda_graphs` must be False for a model whose scores change with"):
        TorchEngine(tiny_recogniser(**config), cuda_graphs=True)


def test_only_torch_has_cuda_graphs(tmp_path):
    with pytest.raises(ValueError, match="`engine` must be auto or torch along with `cuda_graphs`, but is o"):
        open_engine(tmp_path, tmp_path, engine="openvino", cuda_graphs=True)


def test_auto_takes_torch_along_with_cuda_graphs(tmp_path, recorder):
    folder = save_recogniser(tmp_path / "model")
    engine = open_engine(folder, folder, device="cpu", cuda_graphs=True)
    engine.log_probs([babble(0.4)])
    assert (engine.name, recorder.widths) == ("torch", [8_000])


@pytest.mark.parametrize("norm", NORMS, ids=["group", "layer"])
def test_a_pass_reads_nothing_from_the_device(norm, monkeypatch):
    """A recording fails at the first such read, and on a tensor of another device; so does a meta tensor."""
    # transformers asks whether it may look into the mask, autocast what the device can.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: nullcontext())
    model = tiny_recogniser(**norm).to("meta")
    waveform = torch.zeros(1, 8_000, device="meta")
    attention_mask = torch.ones(1, 8_000, device="meta", dtype=torch.long)
    logits = TorchEngine(model)._recorded(waveform, attention_mask)
    assert (logits.device.type, logits.shape) == ("meta", (1, 24, len(PHONES)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("norm", NORMS, ids=["group", "layer"])
def test_a_gpu_replays_what_it_computes(norm, precision):
    model = tiny_recogniser(**norm).to("cuda")
    plain = TorchEngine(model, precision=precision)
    graphs = CudaGraphs(model, plain._recorded, record=record_graph)
    for seed, seconds in enumerate((0.01, 0.3, 0.3, 0.9, 0.3, 2.2)):
        waveform = babble(seconds, seed)
        [expected] = plain.log_probs([waveform])
        found = graphs.logits(torch.from_numpy(waveform)).log_softmax(dim=-1)[0, : len(expected)].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-3 if precision == "float32" else 0.5)
