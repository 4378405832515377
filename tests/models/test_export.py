"""The models in other hands: torch.compile, torch.export, ONNX."""

import pytest
import torch

import tiny
import unispeech
from unispeech import UniSpeechForCTC, UniSpeechForSequenceClassification

NAMES = ("Model", "ForCTC", "ForSequenceClassification", "ForPreTraining")
HEADS = (UniSpeechForCTC, UniSpeechForSequenceClassification)
slow = pytest.mark.slow
# One case of each kind is quick enough for every run.
CASES = [
    pytest.param("group", True),
    pytest.param("layer", False, marks=slow),
    pytest.param("layer", True, marks=slow),
    pytest.param("group", False, marks=slow),
]


def build(model_class, norm, **overrides):
    return tiny.build(model_class, norm, num_hidden_layers=1, **overrides)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("norm", "masked"), CASES)
def test_one_whole_graph(name, norm, masked):
    model = build(getattr(unispeech, f"UniSpeech{name}"), norm)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x, mask = tiny.waveforms(8000, 5000)
    with torch.no_grad():
        a, b = compiled(x, mask if masked else None), model(x, mask if masked else None)
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-5)


@slow
@pytest.mark.parametrize("model_class", HEADS)
def test_one_graph_for_many_lengths(model_class):
    model = build(model_class, "group")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for lengths in ((8000, 5000), (6000, 4000), (7001, 900), (12345, 5000)):
        x, mask = tiny.waveforms(*lengths)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, mask)[0], model(x, mask)[0], rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_one_whole_graph_with_weighted_layers_and_hidden_states(norm):
    model = build(UniSpeechForSequenceClassification, norm, use_weighted_layer_sum=True)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x, mask = tiny.waveforms(8000, 5000)
    with torch.no_grad():
        a, b = (m(x, mask, output_hidden_states=True) for m in (compiled, model))
    torch.testing.assert_close(a.logits, b.logits, rtol=0, atol=1e-5)
    assert len(a.hidden_states) == 2


@pytest.mark.slow
@pytest.mark.parametrize("model_class", HEADS)
def test_compiled_kernels(model_class):
    model = build(model_class, "group")
    compiled = torch.compile(model, fullgraph=True)
    x, mask = tiny.waveforms(8000, 5000)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, mask).logits, model(x, mask).logits, rtol=0, atol=1e-5)


class Logits(torch.nn.Module):
    """A model that gives its logits only."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_values, attention_mask=None):
        return self.model(input_values, attention_mask).logits


def dynamic(masked):
    axes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("time", min=800, max=480000)}
    return {"input_values": axes, "attention_mask": axes if masked else None}


@pytest.mark.parametrize("model_class", HEADS)
@pytest.mark.parametrize(("norm", "masked"), CASES)
def test_export_with_any_batch_and_time(model_class, norm, masked):
    model = Logits(build(model_class, norm))
    x, mask = tiny.waveforms(8000, 5000)
    program = torch.export.export(model, (x, mask if masked else None), dynamic_shapes=dynamic(masked))
    for lengths in ((8000, 5000), (16123, 900, 4000), (3001,)):
        x, mask = tiny.waveforms(*lengths)
        given = (x, mask if masked else None)
        torch.testing.assert_close(program.module()(*given), model(*given), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", HEADS)
@pytest.mark.parametrize(("norm", "masked"), CASES)
def test_onnx_with_any_batch_and_time(model_class, norm, masked, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = Logits(build(model_class, norm))
    x, mask = tiny.waveforms(8000, 5000)
    path = tmp_path / "model.onnx"
    given = (x, mask) if masked else (x,)
    shapes = dynamic(masked) if masked else {"input_values": dynamic(False)["input_values"]}
    torch.onnx.export(model, given, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [entry.name for entry in session.get_inputs()]
    for lengths in ((8000, 5000), (16123, 900, 4000), (3001,)):
        x, mask = tiny.waveforms(*lengths)
        given = (x, mask) if masked else (x,)
        found = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})[0]
        torch.testing.assert_close(torch.from_numpy(found), model(*given), rtol=0, atol=1e-4)
