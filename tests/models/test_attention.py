"""Which way attention goes, and that the fast ways give what the plain one gives."""

import pytest
import torch

from unispeech import UniSpeechConfig
from unispeech.models import attention
from unispeech.models.attention import SelfAttention

FRAMES = 12


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr(attention, "MOST_FRAMES", FRAMES)
    torch.manual_seed(0)
    config = UniSpeechConfig()
    config._attn_implementation = "sdpa"
    return SelfAttention(config, hidden_size=16, num_heads=2, dropout=0.0)


@pytest.fixture
def widened(monkeypatch):
    """What went through float32: the number of frames of each call."""
    calls, plain = [], attention.float32_attention

    def counted(module, query, *args, **kwargs):
        calls.append(query.shape[2])
        return plain(module, query, *args, **kwargs)

    monkeypatch.setattr(attention, "float32_attention", counted)
    return calls


def learn(layer, x, is_seen, *, in_bf16):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        mixed, _ = layer(x, is_seen)
    mixed.float().square().sum().backward()
    return [mixed.detach().float(), x.grad, layer.q_proj.weight.grad, layer.v_proj.weight.grad]


@pytest.mark.parametrize("is_padded", [False, True])
def test_short_utterances_in_bf16_are_learned_as_in_float32(layer, widened, is_padded):
    x = torch.randn(3, FRAMES, 16)
    is_seen = None
    if is_padded:
        is_seen = (torch.arange(FRAMES) < torch.tensor([FRAMES, 5, 1])[:, None])[:, None, None]
    rough = learn(layer, x, is_seen, in_bf16=True)
    assert widened == [FRAMES]
    for found, exact in zip(rough, learn(layer, x, is_seen, in_bf16=False), strict=True):
        assert (found - exact).norm() < 0.02 * exact.norm()
    assert widened == [FRAMES]


def test_only_short_utterances_that_are_learned_in_bf16_go_through_float32(layer, widened):
    learn(layer, torch.randn(1, FRAMES + 1, 16), None, in_bf16=True)
    learn(layer.eval(), torch.randn(1, FRAMES, 16), None, in_bf16=True)
    layer.train().dropout = 0.1
    learn(layer, torch.randn(1, FRAMES, 16), None, in_bf16=True)
    assert widened == []
