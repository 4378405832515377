"""Dropout on the CPU: how much is dropped, and attention held to the same thing written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from unispeech import UniSpeechModel
from unispeech.models import dropout as dropout_module
from unispeech.models.dropout import Dropout, DroppedAttention, GeluDropoutLinear, draw_kept, rounded


@pytest.mark.parametrize("prob", [0.05, 0.1, 0.5, 0.9])
def test_drops_as_often_as_asked(prob):
    torch.manual_seed(0)
    kept = draw_kept((7, 101, 1001), prob)
    assert kept.dtype == torch.bool and kept.shape == (7, 101, 1001)
    assert abs((~kept).float().mean().item() - prob) < 0.003
    # The four draws of one number do not hang together.
    table = kept.flatten()[: kept.numel() // 4 * 4].view(-1, 4).float()
    assert torch.corrcoef(table.T).fill_diagonal_(0).abs().max() < 0.02


def test_values_are_zero_or_scaled_up_and_gradients_likewise():
    x = torch.ones(300, 70, requires_grad=True)
    dropout = Dropout(0.3).train()
    y = dropout(x)
    y.sum().backward()
    expected = 1 / (1 - rounded(0.3))
    assert torch.equal(y == 0, x.grad == 0)
    torch.testing.assert_close(y.detach()[y != 0], torch.full_like(y[y != 0], expected))
    torch.testing.assert_close(x.grad, y.detach())
    assert abs(y.mean().item() - 1) < 0.03


def test_draws_of_several_pieces_do_not_repeat(monkeypatch):
    monkeypatch.setattr(dropout_module, "DRAWS", 1000)
    torch.manual_seed(0)
    kept = draw_kept((2003,), 0.5)
    assert 0.45 < kept.float().mean() < 0.55
    assert 0.4 < (kept[:1000] == kept[1000:2000]).float().mean() < 0.6


def test_draws_follow_the_seed():
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_all_or_nothing_is_torch_s(prob):
    x = torch.randn(20)
    assert torch.equal(Dropout(prob)(x), nn.Dropout(prob)(x))
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("num_heads", [1, 2, 3])
@pytest.mark.parametrize("is_padded", [False, True])
def test_dropped_attention_is_attention_written_out(is_padded, num_heads, monkeypatch):
    monkeypatch.setattr(dropout_module, "TABLE", num_heads * 9**2)  # so many of the three heads at a time
    torch.manual_seed(0)
    inputs = [torch.randn(3, 3, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    query, key, value = inputs
    is_seen = None
    if is_padded:
        is_seen = (torch.arange(9) < torch.tensor([9, 5, 1])[:, None])[:, None, None]
    kept = draw_kept((3, 3, 9, 9), 0.3)
    found = DroppedAttention.apply(query, key, value, is_seen, kept, 0.5, 1.4)
    scores = query @ key.transpose(-1, -2) * 0.5
    if is_seen is not None:
        scores = scores.masked_fill(~is_seen, float("-inf"))
    expected = ((scores.softmax(-1) * kept * 1.4) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_dropped_attention_in_bf16_is_near_that_in_float32():
    torch.manual_seed(0)
    kept = draw_kept((2, 3, 40, 40), 0.3)
    values = torch.randn(3, 2, 3, 40, 8).bfloat16()
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [value.to(dtype).requires_grad_() for value in values]
        mixed = DroppedAttention.apply(*inputs, None, kept, 0.35, 1.4)
        assert mixed.dtype == dtype
        results.append([mixed, *torch.autograd.grad(mixed.float().square().sum(), inputs)])
    for rough, fine in zip(*results, strict=True):
        assert (rough.float() - fine).norm() < 0.02 * fine.norm()


@pytest.mark.parametrize("is_dropped", [False, True])
def test_gelu_dropout_linear_is_its_parts_one_after_the_other(is_dropped):
    torch.manual_seed(0)
    shapes = [(1030, 6), (4, 6), (4,)]  # frames of three spans
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, weight, bias = inputs
    kept, factor = (draw_kept((1030, 6), 0.3), 1.4) if is_dropped else (None, 1.0)
    found = GeluDropoutLinear.apply(x, kept, factor, weight, bias)
    expected = F.linear(F.gelu(x) * (1 if kept is None else kept.double() * factor), weight, bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_a_model_that_drops_almost_nothing_gives_what_one_without_dropout_gives(norm):
    x, mask = tiny.waveforms(8000, 5000)
    results = []
    for prob in (0.0, 1e-5):  # rounded to 1 / 65536: some three of 200,000 values
        model = tiny.build(UniSpeechModel, norm, attention_dropout=prob, mask_time_prob=0.0).train()
        context = model(x, mask).last_hidden_state
        context[0].square().mean().backward()
        results.append((context[0].detach(), model.encoder.layers[0].attention.k_proj.weight.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
