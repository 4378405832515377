"""The quantizer against its definition: the sampled code, its soft gradient, perplexities."""

import pytest
import torch
import torch.nn.functional as F

from unispeech.models.quantizer import GumbelVectorQuantizer, gumbel_like

C, D, G, V = 6, 8, 2, 5


def build(temperature=0.7, seed=0):
    torch.manual_seed(seed)
    quantizer = GumbelVectorQuantizer(C, D, G, V, temperature=temperature)
    torch.nn.init.uniform_(quantizer.codevectors)
    torch.nn.init.normal_(quantizer.weight_proj.weight)
    return quantizer


def reference(quantizer, latents, noise):
    """The (T, G V, D / G) array, built and summed."""
    T = len(latents)
    logits = quantizer.weight_proj(latents).view(T * G, V)
    if noise is None:
        choice = F.one_hot(logits.argmax(-1), V).float()
    else:
        soft = ((logits + noise.view(T * G, V)) / quantizer.temperature).softmax(-1)
        choice = F.one_hot(soft.argmax(-1), V) - soft.detach() + soft
    weighted = choice.view(T, G * V, 1) * quantizer.codevectors
    return weighted.view(T, G, V, D // G).sum(2).view(T, D)


def test_evaluation_takes_the_best_entry():
    quantizer, latents = build().eval(), torch.randn(9, C)
    result = quantizer(latents)
    assert torch.equal(result.codevectors, reference(quantizer, latents, None))
    assert torch.equal(result.codes, result.logits.argmax(-1))


def test_training_takes_a_sample_with_the_soft_gradient():
    quantizer, plain, latents = build().train(), build().train(), torch.randn(9, C)
    noise = gumbel_like(torch.empty(9, G, V), torch.Generator().manual_seed(1))
    a, b = quantizer(latents, gumbel_noise=noise), reference(plain, latents, noise)
    torch.testing.assert_close(a.codevectors, b)
    weights = torch.randn_like(b)
    (a.codevectors * weights).sum().backward(), (b * weights).sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(quantizer.get_parameter(name).grad, parameter.grad)
    book = quantizer.codevectors.view(G, V, -1)
    chosen = torch.cat([book[g][a.codes[:, g]] for g in range(G)], dim=-1)
    torch.testing.assert_close(a.codevectors, chosen)


def test_any_number_of_leading_axes():
    quantizer, latents = build().eval(), torch.randn(2, 3, C)
    result = quantizer(latents)
    assert result.codevectors.shape == (2, 3, D)
    assert result.codes.shape == (2, 3, G) and result.logits.shape == (2, 3, G, V)
    assert torch.equal(result.codevectors.flatten(0, 1), quantizer(latents.flatten(0, 1)).codevectors)
    assert quantizer(torch.zeros(0, C)).codevectors.shape == (0, D)


def test_the_noise_is_gumbel():
    noise = gumbel_like(torch.empty(200_000), torch.Generator().manual_seed(0))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.std().item() == pytest.approx(1.2825, abs=0.01)


def test_samples_follow_the_softmax():
    quantizer = build().train()
    latents = torch.randn(1, C).expand(20000, C)
    result = quantizer(latents, generator=torch.Generator().manual_seed(0))
    found = F.one_hot(result.codes, V).float().mean(0)
    torch.testing.assert_close(found, result.logits[0].softmax(-1), rtol=0, atol=0.015)


def test_a_generator_makes_it_repeatable():
    quantizer, latents = build().train(), torch.randn(50, C)
    before = torch.get_rng_state()
    draws = [quantizer(latents, generator=torch.Generator().manual_seed(2)).codes for _ in range(2)]
    assert torch.equal(*draws) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(quantizer(latents).codes, draws[0])


def test_perplexities_by_hand():
    quantizer = build()
    codes = torch.tensor([[0, 1], [1, 1], [2, 1], [3, 1]])
    assert quantizer.code_perplexity(codes).item() == pytest.approx(4 + 1, rel=1e-4)
    assert quantizer.prob_perplexity(torch.zeros(3, G, V)).item() == pytest.approx(G * V, rel=1e-4)
    sharp = torch.zeros(3, G, V)
    sharp[..., 0] = 100
    assert quantizer.prob_perplexity(sharp).item() == pytest.approx(G, rel=1e-4)
    for empty in (quantizer.code_perplexity(codes[:0]), quantizer.prob_perplexity(torch.zeros(0, G, V))):
        assert empty.isfinite()
