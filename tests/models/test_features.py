"""The feature encoder: group norm from the waveform, padding, gradients that are scaled or stopped."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from unispeech.frames import num_frames
from unispeech.models import products
from unispeech.models.features import (
    FeatureConvLayer,
    FeatureEncoder,
    FeatureProjection,
    WaveformGroupNorm,
)
from unispeech.models.products import StridedProducts

KERNELS, STRIDES = (10, 3, 2), (5, 2, 2)


def encoder(norm, **settings):
    torch.manual_seed(0)
    made = FeatureEncoder((8, 8, 6), KERNELS, STRIDES, norm=norm, bias=True, activation="gelu", **settings)
    tiny.shake(made)
    return made


def first_layer(norm="group", bias=True):
    torch.manual_seed(0)
    layer = FeatureConvLayer(1, 8, 10, 5, norm=norm, bias=bias, activation="gelu")
    tiny.shake(layer)
    return layer


@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_group_norm_is_torch_s(offset, scale):
    layer = first_layer()
    x = ((torch.randn(3, 1, 500) + offset) * scale).double()
    expected = F.gelu(
        F.group_norm(
            layer.conv.double()(x), 8, layer.layer_norm.weight.double(), layer.layer_norm.bias.double(), 1e-5
        )
    )
    found = first_layer()(x.float())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if offset == 0 else 1e-4)


@pytest.mark.parametrize("num_valid", [None, 61])
def test_one_utterance_without_gradient_takes_the_short_way_to_the_same_numbers(num_valid):
    layer, x = first_layer(), torch.randn(1, 1, 500) * 3 + 0.5
    lengths = None if num_valid is None else torch.tensor([num_valid])
    plain = layer(x, lengths)
    with torch.no_grad():
        short = layer(x, lengths)
    assert plain.requires_grad and not short.requires_grad
    torch.testing.assert_close(short, plain.detach(), rtol=0, atol=1e-5)


def test_group_norm_gradients_are_torch_s():
    layer, plain = first_layer(), first_layer()
    x = torch.randn(2, 1, 300)
    a = layer(x)
    b = F.gelu(F.group_norm(plain.conv(x), 8, plain.layer_norm.weight, plain.layer_norm.bias, 1e-5))
    weights = torch.randn_like(a)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    for name in ("conv.weight", "layer_norm.weight", "layer_norm.bias"):
        torch.testing.assert_close(
            layer.get_parameter(name).grad, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("span", [2, 2048])
@pytest.mark.parametrize("has_gelu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "width"),
    [(3, 2, 31), (3, 2, 32), (2, 2, 31), (10, 5, 163), (5, 2, 40), (2, 3, 40), (3, 1, 20), (3, 2, 3)],
)
def test_strided_products_are_torch_s_convolution(
    kernel, stride, width, has_bias, has_gelu, span, monkeypatch
):
    monkeypatch.setattr(products, "SPAN", span)
    torch.manual_seed(0)
    x = torch.randn(3, width, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True) if has_bias else None
    found = StridedProducts.apply(x, weight, bias, stride, has_gelu)
    activated = F.gelu(x) if has_gelu else x
    expected = F.conv1d(activated.transpose(1, 2), weight, bias, stride=stride).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    inputs = [x, weight] + ([bias] if has_bias else [])
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_training_gives_what_evaluation_gives(norm):
    x, _ = tiny.waveforms(300, 250)
    found = []
    for is_training in (False, True):
        model = encoder(norm).train(is_training)
        latents = model(x, torch.tensor([300, 250]))
        latents.square().sum().backward()
        found.append([latents, *(p.grad for p in model.parameters())])
    for evaluated, trained in zip(*found, strict=True):
        torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_products_agree_with_the_convolutions_of_graphs(norm):
    model = encoder(norm).eval()
    x, _ = tiny.waveforms(300, 250)
    lengths = torch.tensor([300, 250])
    traced = torch.jit.trace(model, (x, lengths))
    torch.testing.assert_close(traced(x, lengths), model(x, lengths), rtol=0, atol=1e-5)


def test_silence_gives_the_shift():
    layer = first_layer()
    found = layer(torch.zeros(1, 1, 200))
    torch.testing.assert_close(found, F.gelu(layer.layer_norm.bias)[None, :, None].expand_as(found))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(35, 300), min_size=1, max_size=4), st.sampled_from(["group", "layer"]))
def test_a_batch_gives_what_singles_give(lengths, norm):
    model = encoder(norm)
    x, mask = tiny.waveforms(*lengths)
    together = model(x * mask, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length])
        assert alone.shape[-1] == num_frames(length, KERNELS, STRIDES)
        torch.testing.assert_close(together[row, :, : alone.shape[-1]], alone[0], rtol=0, atol=1e-5)


def test_a_row_without_frames_stays_finite():
    model = encoder("group")
    x, _ = tiny.waveforms(200, 200)
    result = model(x, torch.tensor([200, 0]))
    assert result.isfinite().all()
    result[0].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_gradient_multiplier(norm):
    x, _ = tiny.waveforms(300)
    gradients = {}
    for factor in (1.0, 0.1):
        model = encoder(norm, grad_mult=factor)
        model(x).square().sum().backward()
        gradients[factor] = model.conv_layers[1].conv.weight.grad
    torch.testing.assert_close(gradients[0.1], 0.1 * gradients[1.0])
    assert encoder(norm, grad_mult=0.0)(x).grad_fn is None


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_checkpointing_changes_no_gradient(norm):
    x, _ = tiny.waveforms(300, 250)
    gradients = []
    for checkpointing in (False, True):
        model = encoder(norm).train()
        model.gradient_checkpointing = checkpointing
        model(x, torch.tensor([300, 250])).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 5
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_freezing():
    model = encoder("layer")
    model._freeze_parameters()
    assert model(torch.randn(1, 300)).grad_fn is None


def test_norms_by_position():
    layers = encoder("group").conv_layers
    assert isinstance(layers[0].layer_norm, WaveformGroupNorm)
    assert all(layer.layer_norm is None for layer in list(layers)[1:])
    assert all(isinstance(layer.layer_norm, nn.LayerNorm) for layer in encoder("layer").conv_layers)


def test_projection():
    projection = FeatureProjection(6, 10, eps=1e-5, dropout=0.0)
    latents = torch.randn(2, 5, 6)
    hidden, normalised = projection(latents)
    torch.testing.assert_close(normalised, F.layer_norm(latents, (6,)))
    torch.testing.assert_close(hidden, projection.projection(normalised))
