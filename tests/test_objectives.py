"""The losses: CTC by brute force over all paths, the contrastive task written out, gradients in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.masking import NO_NEGATIVE, sample_negatives
from unispeech.objectives import (
    IGNORED_LABEL,
    contrastive_loss,
    ctc_loss,
    ctc_targets,
    diversity_loss,
    min_ctc_frames,
    perplexity,
)


def collapse(path, blank):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


def brute_force_ctc(log_probs, target, blank):
    """The negative log of the summed probability of all paths that collapse to the target."""
    T, N = log_probs.shape
    total = [
        sum(log_probs[t, symbol].item() for t, symbol in enumerate(path))
        for path in itertools.product(range(N), repeat=T)
        if collapse(path, blank) == target
    ]
    return -torch.logsumexp(torch.tensor(total, dtype=torch.float64), 0).item() if total else math.inf


def padded(targets):
    width = max(max(map(len, targets)), 1)
    return torch.tensor([[*target, *[IGNORED_LABEL] * (width - len(target))] for target in targets])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0, 1, 3]), max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.integers(0, 1000),
)
def test_ctc_against_all_paths(targets, frames, seed):
    blank, N = 2, 4
    frames = frames[: len(targets)]
    logits = torch.randn(len(targets), 5, N, generator=torch.Generator().manual_seed(seed)).double()
    loss = ctc_loss(logits, torch.tensor(frames), padded(targets), blank=blank)
    assert loss.per_utterance.dtype == torch.float64
    for row, (target, T) in enumerate(zip(targets, frames, strict=True)):
        expected = brute_force_ctc(logits[row, :T].log_softmax(-1), target, blank) if target else 0.0
        assert bool(loss.is_feasible[row]) == math.isfinite(expected)
        wanted = expected if math.isfinite(expected) else 0.0
        assert loss.per_utterance[row].item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert loss.sum == loss.per_utterance.sum()
    assert loss.count == sum(map(bool, targets))
    assert loss.target_lengths.tolist() == [len(target) for target in targets]


def check_gradient(function, x, relative=1e-6):
    """The gradient of a scalar function by central differences in float64."""
    x = x.double().requires_grad_()
    function(x).backward()
    step, numeric = 1e-5, torch.zeros_like(x)
    with torch.no_grad():
        for i in range(x.numel()):
            moved = x.detach().clone().flatten()
            moved[i] += step
            up = function(moved.view_as(x))
            moved[i] -= 2 * step
            numeric.view(-1)[i] = (up - function(moved.view_as(x))) / (2 * step)
    scale = numeric.abs().max().clamp(min=1)
    assert ((x.grad - numeric).abs().max() / scale).item() < relative
    assert numeric.abs().max() > 0


def test_ctc_gradient():
    labels = padded([[1, 1, 3], [3], [], [1, 1, 1, 1]])
    check_gradient(
        lambda x: ctc_loss(x, torch.tensor([6, 4, 5, 6]), labels, blank=0).sum,
        torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)),
    )


def test_an_infeasible_row_sends_no_gradient():
    logits = torch.randn(3, 4, 5, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([4, 4, 0]), padded([[1, 2], [3, 3, 3], [1]]), blank=0)
    assert loss.is_feasible.tolist() == [True, False, False]
    loss.sum.backward()
    assert logits.grad[0].abs().max() > 0
    assert logits.grad[1:].abs().max() == 0 and logits.grad.isfinite().all()


@pytest.mark.parametrize(("frames", "symbols"), [(0, 2), (4, 0), (0, 0)])
def test_ctc_without_frames_or_labels(frames, symbols):
    logits = torch.zeros(2, frames, 5, requires_grad=True)
    labels = torch.ones(2, symbols, dtype=torch.long)
    loss = ctc_loss(logits, torch.full((2,), frames), labels, blank=0)
    loss.sum.backward()
    assert loss.sum == 0 and loss.count == (2 if symbols else 0)


def test_ctc_of_half_precision_is_computed_in_float32():
    logits = torch.randn(1, 50, 9).half()
    labels = torch.tensor([[1, 2, 3]])
    half = ctc_loss(logits, torch.tensor([50]), labels, blank=0).sum
    assert half.dtype == torch.float32
    assert half == ctc_loss(logits.float(), torch.tensor([50]), labels, blank=0).sum


@given(st.lists(st.integers(1, 3), max_size=6))
def test_least_frames(target):
    blanks = sum(a == b for a, b in itertools.pairwise(target))
    assert min_ctc_frames(padded([target])).item() == len(target) + blanks


def test_targets_are_moved_to_the_left():
    labels = torch.tensor([[-100, 3, 0, 3, -100], [0, 0, -100, 0, 1]])
    expected = [[3, 3, -100, -100, -100], [1, -100, -100, -100, -100]]
    assert ctc_targets(labels, num_utterances=len(labels), num_classes=4, blank=0).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "blank", "message"),
    [
        (torch.tensor([1, 2]), 0, r"`labels` must be integers of shape \(B, L\), but have shape \(2,\)"),
        (torch.tensor([[1.0]]), 0, "`labels` must be integers.*type torch.float32"),
        (
            torch.tensor([[1]]),
            None,
            r"`pad_token_id` must be the index of the CTC blank in \[0, 3\], but is None",
        ),
        (torch.tensor([[1]]), 4, r"`pad_token_id` must be .* but is 4"),
        (torch.tensor([[1], [4]]), 0, r"`labels` must lie in \[0, 3\] or be -100, but utterance 1 has 4"),
        (torch.tensor([[-1]]), 0, "utterance 0 has -1"),
    ],
)
def test_labels_that_are_none(labels, blank, message):
    with pytest.raises(ValueError, match=message):
        ctc_targets(labels, num_utterances=len(labels), num_classes=4, blank=blank)


def contrastive_case(rows=3, frames=8, width=6, seed=0, double=False):
    B, T, H, K, G = rows, frames, width, 5, 2
    generator = torch.Generator().manual_seed(seed)
    is_target = torch.rand(B, T, generator=generator) < 0.5
    is_target[0, 0] = True
    every = torch.ones(B, T, dtype=torch.bool)
    M = int(is_target.sum())
    tensors = [torch.randn(size, H, generator=generator) for size in (B * T, M, B * T)]
    context, positives, candidates = (x.double() if double else x for x in tensors)
    return {
        "context": context.view(B, T, H),
        "positives": positives,
        "candidates": candidates.view(B, T, H),
        "is_target": is_target,
        "negative_indices": sample_negatives(is_target, every, K, generator=generator),
        "temperature": 0.2,
        "codes": torch.randint(0, 2, (M, G), generator=generator),
        "candidate_codes": torch.randint(0, 2, (B, T, G), generator=generator),
    }


def naive_contrastive(case, exclude_equal):
    """Every cosine by itself, from (M, K, H) arrays."""
    is_target, indices = case["is_target"], case["negative_indices"]
    losses, correct, equal = [], 0, 0
    for m, (b, t) in enumerate(is_target.nonzero().tolist()):
        context, cosines = case["context"][b, t], []
        cosines.append(F.cosine_similarity(context, case["positives"][m], dim=0))
        for index in indices[b, t].tolist():
            if index == NO_NEGATIVE:
                continue
            is_equal = bool((case["candidate_codes"].flatten(0, 1)[index] == case["codes"][m]).all())
            equal += is_equal
            if not (is_equal and exclude_equal):
                cosines.append(F.cosine_similarity(context, case["candidates"].flatten(0, 1)[index], dim=0))
        logits = torch.stack(cosines) / case["temperature"]
        losses.append(-logits.log_softmax(0)[0])
        correct += bool((logits[0] > logits[1:]).all())
    return torch.stack(losses), correct, equal


@pytest.mark.parametrize("exclude_equal", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_contrastive_against_the_definition(exclude_equal, seed):
    case = contrastive_case(seed=seed)
    case["negative_indices"][0, 0, 3:] = NO_NEGATIVE
    losses, correct, equal = naive_contrastive(case, exclude_equal)
    weights = torch.tensor([1.0, 0.5, 0.25])
    result = contrastive_loss(**case, exclude_equal=exclude_equal, weights=weights)
    torch.testing.assert_close(result.per_target, losses)
    torch.testing.assert_close(result.sum, (losses * weights[case["is_target"].nonzero()[:, 0]]).sum())
    assert (result.count, result.num_correct, result.num_equal) == (len(losses), correct, equal)
    assert result.num_negatives == 5 * len(losses) - 2


def test_contrastive_gradients():
    case = contrastive_case(rows=2, frames=4, width=3, double=True)
    for name in ("context", "positives", "candidates"):
        check_gradient(lambda x, n=name: contrastive_loss(**(case | {n: x})).sum, case[name])


def test_no_target_is_no_loss():
    case = contrastive_case()
    case |= {
        "is_target": torch.zeros(3, 8, dtype=torch.bool),
        "positives": torch.zeros(0, 6),
        "codes": torch.zeros(0, 2),
    }
    context = case["context"].requires_grad_()
    result = contrastive_loss(**case)
    assert result.sum == 0 and result.count == 0 and result.num_negatives == 0
    result.sum.backward()
    assert context.grad.abs().max() == 0


def test_all_negatives_equal_is_no_loss():
    case = contrastive_case()
    case["codes"][:] = 0
    case["candidate_codes"][:] = 0
    assert contrastive_loss(**case, exclude_equal=True).sum == 0


def test_negatives_of_another_utterance_are_refused():
    case = contrastive_case()
    case["negative_indices"][0, 0, 0] = 9
    with pytest.raises(ValueError, match="`sampled_negative_indices` must stay within the utterance"):
        contrastive_loss(**case)


def test_perplexity_by_hand():
    assert perplexity(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0]])).item() == pytest.approx(5, rel=1e-5)
    assert perplexity(torch.full((2, 320), 1 / 320)).item() == pytest.approx(640, rel=1e-3)
    assert diversity_loss(torch.tensor(5.0), 8).item() == pytest.approx(3 / 8)


def test_diversity_gradient():
    def function(x):
        return diversity_loss(perplexity(x.softmax(-1).mean(0)), 8)

    check_gradient(function, 2 * torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0)))
