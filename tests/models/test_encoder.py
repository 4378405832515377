"""The Transformer: attention engines, padding, position, layers left out, checkpointing."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import tiny
from unispeech import UniSpeechForCTC, UniSpeechModel
from unispeech.models.attention import eager_attention
from unispeech.models.encoder import FeedForward
from unispeech.models.position import WeightNormConv

LABELS = torch.tensor([[3, 4, 5], [6, 2, -100]])


def run_engine(engine, norm, is_padded):
    # Flex attention wants heads of at least 16.
    model = tiny.build(UniSpeechModel, norm, attn_implementation=engine, num_attention_heads=2)
    assert model.config._attn_implementation == engine
    x, mask = tiny.waveforms(8000, 5000)
    with torch.no_grad():
        context = model(x, mask if is_padded else None).last_hidden_state
    return torch.cat([context[0], context[1, :15]])  # the valid frames


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("is_padded", [False, True])
def test_engines_agree(norm, is_padded):
    a, b = (run_engine(engine, norm, is_padded) for engine in ("eager", "sdpa"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.slow  # the first use compiles its kernel for two minutes
@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("is_padded", [False, True])
def test_flex_attention_agrees(norm, is_padded):
    a, b = (run_engine(engine, norm, is_padded) for engine in ("eager", "flex_attention"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_engine_can_be_changed_later():
    model = tiny.build(UniSpeechForCTC)
    x, mask = tiny.waveforms(8000, 5000)
    before = model(x, mask).logits
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    torch.testing.assert_close(model(x, mask).logits, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["eager", "sdpa"])
def test_a_row_that_is_all_padding_stays_finite(engine):
    model = tiny.build(UniSpeechForCTC, "layer", attn_implementation=engine)
    x, mask = tiny.waveforms(8000, 0)
    output = model(x, mask, LABELS.where(torch.tensor([[True], [False]]), -100))
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_stands_in_the_padding_does_not_matter():
    model = tiny.build(UniSpeechModel)
    x, mask = tiny.waveforms(8000, 5000)
    other = x.where(mask != 0, torch.full_like(x, 1e4))
    a, b = model(x, mask).last_hidden_state, model(other, mask).last_hidden_state
    assert torch.equal(a[0], b[0]) and torch.equal(a[1, :15], b[1, :15])


def test_eager_attention_by_hand():
    query, key, value = torch.randn(3, 1, 2, 4, 5)
    bias = torch.zeros(1, 1, 1, 4)
    bias[..., -1] = -1e9
    mixed, probs = eager_attention(nn.Module().eval(), query, key, value, bias, scaling=0.5)
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * 0.5
    expected = scores[..., :3].softmax(-1)
    torch.testing.assert_close(probs[..., :3], expected)
    assert probs[..., 3].max() == 0
    torch.testing.assert_close(mixed, torch.einsum("bhqk,bhkd->bqhd", expected, value[:, :, :3]))


@pytest.mark.parametrize("prob", [0.0, 0.3])
def test_feed_forward_in_training_is_its_parts_one_after_the_other(prob):
    torch.manual_seed(0)
    layer = FeedForward(8, 32, "gelu", activation_dropout=prob, hidden_dropout=0.0).train()
    x = torch.randn(2, 9, 8)
    results = []
    for is_fused in (True, False):
        layer.has_gelu = is_fused
        layer.zero_grad()
        torch.manual_seed(1)
        found = layer(x)
        found.square().sum().backward()
        results.append([found, *(p.grad.clone() for p in layer.parameters())])
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def test_what_stands_in_for_the_second_layer_is_used():
    layer = FeedForward(8, 32, "gelu", activation_dropout=0.0, hidden_dropout=0.0).train()
    layer.output_dense = nn.Sequential(nn.Linear(32, 2), nn.Linear(2, 8))
    assert layer(torch.randn(2, 9, 8)).shape == (2, 9, 8)


@pytest.mark.parametrize("kernel_size", [16, 7])
def test_weight_norm_is_torch_s(kernel_size):
    torch.manual_seed(0)
    ours = WeightNormConv(8, kernel_size, 2)
    ours.parametrizations["weight"].original0.data.uniform_(0.5, 2)
    ours.parametrizations["weight"].original1.data.normal_()
    theirs = weight_norm(nn.Conv1d(8, 8, kernel_size, padding=kernel_size // 2, groups=2), dim=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 30)
    a, b = ours(x), theirs(x)
    torch.testing.assert_close(a, b)
    a.square().sum().backward(), b.square().sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(norm, reentrant):
    x, mask = tiny.waveforms(8000, 5000)
    found = []
    for checkpointing in (False, True):
        model = tiny.build(UniSpeechForCTC, norm, hidden_dropout=0.1, attention_dropout=0.1).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert model.is_gradient_checkpointing
        torch.manual_seed(3)
        loss = model(x, mask, LABELS, generator=torch.Generator().manual_seed(1)).loss
        loss.backward()
        found.append((loss, {n: p.grad for n, p in model.named_parameters()}))
    (loss, plain), (same_loss, again) = found
    torch.testing.assert_close(loss, same_loss)
    for name, gradient in plain.items():
        torch.testing.assert_close(
            again[name], gradient, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n} {m}"
        )


def test_gradient_checkpointing_keeps_less():
    kept = []
    for checkpointing in (False, True):
        model = tiny.build(UniSpeechForCTC, "layer").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(tiny.waveforms(16000)[0])
        kept.append(total)
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_no_layers_at_all(norm):
    model = tiny.build(UniSpeechModel, norm, num_hidden_layers=0)
    output = model(tiny.waveforms(4000)[0], output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 1 and output.attentions == ()


def test_bfloat16():
    model = tiny.build(UniSpeechForCTC).to(torch.bfloat16)
    x, mask = tiny.waveforms(8000, 5000)
    output = model(x.bfloat16(), mask, LABELS)
    assert output.logits.dtype == torch.bfloat16 and output.loss.dtype == torch.float32
    exact = tiny.build(UniSpeechForCTC)(x, mask, LABELS)
    torch.testing.assert_close(output.loss, exact.loss, rtol=0.05, atol=0)


def test_autocast():
    model = tiny.build(UniSpeechForCTC)
    x, mask = tiny.waveforms(8000, 5000)
    exact = model(x, mask, LABELS).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x, mask, LABELS).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
