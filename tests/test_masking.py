"""Time and channel masks, negatives: right at every length, from an explicit generator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.masking import NO_NEGATIVE, sample_negatives, sample_spans

lengths = st.lists(st.integers(0, 60), min_size=1, max_size=4)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def runs(row):
    """Lengths of the stretches of True."""
    found, current = [], 0
    for value in [*row.tolist(), False]:
        if value:
            current += 1
        elif current:
            found.append(current)
            current = 0
    return found


@settings(max_examples=150, deadline=None)
@given(
    lengths, st.floats(0, 1), st.integers(1, 12), st.integers(0, 3), st.integers(0, 1000), st.integers(0, 5)
)
def test_spans_at_every_length(lengths, prob, span_length, min_spans, seed, extra):
    width = max(lengths) + extra
    mask = sample_spans(
        torch.tensor(lengths),
        width,
        prob=prob,
        span_length=span_length,
        min_spans=min_spans,
        generator=seeded(seed),
    )
    assert mask.shape == (len(lengths), width) and mask.dtype == torch.bool
    for row, length in zip(mask, lengths, strict=True):
        assert not row[length:].any()
        assert all(run >= span_length for run in runs(row))
        if length < span_length:
            assert not row.any()
        masked = int(row.sum())
        most = max(int(prob * length / span_length) + 1, min_spans)
        assert masked <= min(most, max(length // span_length, 1)) * span_length
        if min_spans and length >= span_length:
            assert masked >= span_length


def test_spans_cover_the_share_that_is_asked_for():
    mask = sample_spans(torch.full((400,), 500), 500, prob=0.5, span_length=10, generator=seeded(0))
    # 25 spans of 10 among 491 starts: each frame stays clear with chance (1 - 10 / 491) ** 25.
    assert mask.float().mean().item() == pytest.approx(1 - (1 - 10 / 491) ** 25, abs=0.01)
    everywhere = mask.float().mean(dim=0)
    assert everywhere[20:480].min() > 0.25 and everywhere[0] > 0 and everywhere[-1] > 0


def test_rounding_is_drawn_for_each_row():
    mask = sample_spans(torch.full((2000,), 25), 25, prob=0.1, span_length=5, generator=seeded(1))
    # 0.5 spans on average: half of the rows have one.
    assert mask.any(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (1.0, 20)])
def test_none_and_all(prob, expected):
    mask = sample_spans(torch.tensor([20]), 20, prob=prob, span_length=1, generator=seeded(0))
    assert int(mask.sum()) == expected


def test_the_same_generator_gives_the_same_mask():
    draws = [
        sample_spans(torch.tensor([50, 40]), 50, prob=0.4, span_length=5, generator=seeded(7))
        for _ in range(2)
    ]
    assert torch.equal(*draws)
    before = torch.get_rng_state()
    sample_spans(torch.tensor([50]), 50, prob=0.4, span_length=5, generator=seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    first = sample_spans(torch.tensor([50]), 50, prob=0.4, span_length=5)
    torch.manual_seed(3)
    assert torch.equal(sample_spans(torch.tensor([50]), 50, prob=0.4, span_length=5), first)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 20),
    st.integers(1, 9),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_negatives_are_other_candidates_of_the_same_row(
    rows, width, num_negatives, seed, share, candidate_share
):
    B, T, K = rows, width, num_negatives
    generator = seeded(seed)
    is_target = torch.rand(B, T, generator=generator) < share
    is_candidate = torch.rand(B, T, generator=generator) < candidate_share
    table = sample_negatives(is_target, is_candidate, K, generator=generator)
    assert table.shape == (B, T, K) and table.dtype == torch.int64
    for b in range(B):
        for t in range(T):
            others = [b * T + u for u in range(T) if is_candidate[b, u] and u != t]
            if is_target[b, t] and others:
                assert set(table[b, t].tolist()) <= set(others)
            else:
                assert (table[b, t] == NO_NEGATIVE).all()


def test_negatives_are_uniform():
    is_candidate = torch.tensor([[True, False, True, True, True, False, True]])
    is_target = torch.tensor([[False, True, False, True, False, False, False]])
    table = sample_negatives(is_target, is_candidate, 40000, generator=seeded(0))
    for target, others in ((1, [0, 2, 3, 4, 6]), (3, [0, 2, 4, 6])):
        counts = torch.bincount(table[0, target], minlength=7)[others] / 40000
        torch.testing.assert_close(counts, torch.full((len(others),), 1 / len(others)), rtol=0, atol=0.01)


def test_negatives_from_a_generator_repeat():
    every = torch.ones(2, 9, dtype=torch.bool)
    draws = [sample_negatives(every, every, 5, generator=seeded(4)) for _ in range(2)]
    assert torch.equal(*draws)
