"""Products by oneDNN, held to torch's own on any processor: what chooses between them is turned by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from unispeech import UniSpeechModel
from unispeech.models import matrices, processor
from unispeech.models.dropout import GeluDropoutLinear, draw_kept
from unispeech.models.matrices import FrameProducts, Linear, add_summed
from unispeech.models.processor import is_mkl_slow
from unispeech.models.products import StridedProducts


@pytest.fixture
def by_onednn(monkeypatch):
    monkeypatch.setattr(matrices, "is_mkl_slow", lambda: True)
    monkeypatch.setattr(matrices, "MIN_FRAMES", 1)
    monkeypatch.setattr(matrices, "SPAN", 16)


def gradients(run, *inputs):
    found = run(*inputs)
    torch.manual_seed(1)
    wanted = [value for value in inputs if value is not None]
    return [found, *torch.autograd.grad(found, wanted, torch.randn(found.shape))]


def leaves(*shapes):
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def assert_same(found, expected, atol=1e-4):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("most", [2**20, 0])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("frames", [1, 16, 37])
def test_a_linear_layer_is_torch_s(frames, has_bias, most, by_onednn, monkeypatch):
    monkeypatch.setattr(matrices, "MAX_SUMS", most)
    x, weight, bias = leaves((frames, 6), (4, 6), (4,))
    inputs = x, weight, bias if has_bias else None
    assert_same(gradients(FrameProducts.apply, *inputs), gradients(F.linear, *inputs))


def test_a_linear_layer_takes_frames_of_any_shape(by_onednn):
    layer = Linear(6, 4)
    plain = nn.Linear(6, 4)
    plain.load_state_dict(layer.state_dict())
    [x] = leaves((2, 3, 9, 6))
    for frames in (x, x.transpose(1, 2), x[:, 0]):
        assert_same([layer(frames)], [plain(frames)])


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_gradients_that_are_wanted_are_computed(needs, by_onednn):
    inputs = [
        value.detach().requires_grad_(need)
        for value, need in zip(leaves((20, 6), (4, 6), (4,)), needs, strict=True)
    ]
    FrameProducts.apply(*inputs).sum().backward()
    assert [value.grad is not None for value in inputs] == list(needs)


@pytest.mark.parametrize("has_gelu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "width"), [(3, 2, 31), (2, 2, 31), (10, 5, 163), (3, 2, 3)])
def test_strided_products_are_torch_s_convolution(kernel, stride, width, has_bias, has_gelu, by_onednn):
    x, weight, bias = leaves((3, width, 4), (6, 4, kernel), (6,))

    def run(x, weight, bias):
        return StridedProducts.apply(x, weight, bias, stride, has_gelu)

    def convolve(x, weight, bias):
        activated = F.gelu(x) if has_gelu else x
        return F.conv1d(activated.transpose(1, 2), weight, bias, stride=stride).transpose(1, 2)

    inputs = x, weight, bias if has_bias else None
    assert_same(gradients(run, *inputs), gradients(convolve, *inputs))


@pytest.mark.parametrize("is_dropped", [False, True])
def test_gelu_dropout_linear_is_its_parts(is_dropped, by_onednn):
    inputs = leaves((1030, 6), (4, 6), (4,))  # frames of three spans
    kept, factor = (draw_kept((1030, 6), 0.3), 1.4) if is_dropped else (None, 1.0)

    def parts(x, weight, bias):
        return F.linear(F.gelu(x) * (1 if kept is None else kept * factor), weight, bias)

    found = gradients(lambda x, *layer: GeluDropoutLinear.apply(x, kept, factor, *layer), *inputs)
    assert_same(found, gradients(parts, *inputs), atol=1e-3)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("norm", tiny.NORMS)
def test_a_model_is_what_it_is_elsewhere(norm, is_training, monkeypatch):
    x, mask = tiny.waveforms(8000, 5000)
    monkeypatch.setattr(matrices, "MIN_FRAMES", 1)
    results = []
    for is_slow in (False, True):
        monkeypatch.setattr(matrices, "is_mkl_slow", lambda is_slow=is_slow: is_slow)
        model = tiny.build(UniSpeechModel, norm, mask_time_prob=0.0).train(is_training)
        torch.manual_seed(0)
        context = model(x, mask).last_hidden_state
        context[0].square().mean().backward()
        results.append([context[0].detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert_same(*results)
    assert any(not torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_sums_of_16_bits_are_kept_in_32():
    total = torch.zeros(3, 2)
    one, other = torch.ones(300, 3).bfloat16(), torch.ones(300, 2).bfloat16()
    add_summed(total, one, other)
    add_summed(total, one[:3], other[:3])
    assert torch.equal(total, torch.full((3, 2), 303.0))  # no number of bfloat16


def none(*args):
    raise AssertionError("by oneDNN")


@pytest.mark.parametrize("why", ["few", "intel", "double", "autocast", "off"])
def test_everything_else_is_torch_s_own(why, monkeypatch):
    monkeypatch.setattr(matrices, "is_mkl_slow", lambda: why != "intel")
    monkeypatch.setattr(FrameProducts, "apply", none)
    layer, frames = Linear(6, 4), torch.randn(127 if why == "few" else 128, 6)
    if why == "double":
        layer, frames = layer.double(), frames.double()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"),
        torch.backends.mkldnn.flags(enabled=why != "off"),
    ):
        assert layer(frames).shape == (len(frames), 4)
        assert torch.export.export(layer, (torch.randn(128, 6, dtype=frames.dtype),))
    if why == "few":
        with pytest.raises(AssertionError, match="by oneDNN"):
            layer(torch.randn(128, 6))


@pytest.mark.parametrize(
    ("name", "has_mkl", "is_slow"),
    [
        ("AMD EPYC", True, True),
        ("AMD EPYC", False, False),
        ("Hygon C86 7185", True, True),
        ("Intel Xeon Platinum 8481C", True, False),
        (None, True, False),
    ],
)
def test_mkl_is_slow_where_others_made_the_processor(name, has_mkl, is_slow, monkeypatch):
    monkeypatch.setattr(processor, "capabilities", lambda: {"cpu_name": name} if name else {})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    is_mkl_slow.cache_clear()
    try:
        assert is_mkl_slow() == is_slow
    finally:
        is_mkl_slow.cache_clear()


def test_a_torch_that_does_not_tell_is_not_slow(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert processor.capabilities() == {}
