from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unispeech.decoding.greedy import TokenSpan, greedy


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def path_log_probs(path: list[int], num_tokens: int, prob: float = 0.9) -> np.ndarray:
    rows = np.full((len(path), num_tokens), (1 - prob) / (num_tokens - 1))
    rows[np.arange(len(path)), path] = prob
    return np.log(rows)


logits = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 30), st.integers(2, 6)),
    elements=st.floats(-20, 20, allow_nan=False),
)


def test_repeats_are_joined_and_blanks_dropped():
    spans = greedy(path_log_probs([0, 1, 1, 0, 1, 2, 2, 2, 0], 3), blank=0)
    assert [(s.token, s.start_frame, s.end_frame) for s in spans] == [(1, 1, 3), (1, 4, 5), (2, 5, 8)]
    assert all(s.score == pytest.approx(0.9) for s in spans)


def test_score_is_the_mean_probability_of_the_run():
    rows = np.log(np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]]))
    assert greedy(rows, blank=0) == [TokenSpan(1, 0, 2, pytest.approx(0.7))]


def test_the_blank_may_be_any_token():
    spans = greedy(path_log_probs([2, 0, 2, 0, 1], 3), blank=2)
    assert [s.token for s in spans] == [0, 0, 1]


def test_no_frames_give_no_spans():
    assert greedy(np.zeros((0, 5), dtype=np.float32), blank=0) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_is_taken_as_it_is(dtype):
    rows = torch.tensor(path_log_probs([0, 1, 1, 2], 3), dtype=dtype, requires_grad=True)
    assert [s.token for s in greedy(rows, blank=0)] == [1, 2]


@pytest.mark.parametrize(("num_frames", "num_tokens"), [(1, 2), (3, 3), (5, 3), (4, 4), (7, 2)])
@pytest.mark.parametrize("blank", [0, 1])
def test_it_is_the_collapse_of_the_best_of_all_paths(num_frames, num_tokens, blank):
    rng = np.random.default_rng(num_frames * 10 + num_tokens)
    for _ in range(5):
        rows = log_softmax(rng.normal(size=(num_frames, num_tokens)))
        paths = product(range(num_tokens), repeat=num_frames)
        best = max(paths, key=lambda path: sum(rows[t, token] for t, token in enumerate(path)))
        collapsed = [token for token, _ in groupby(best) if token != blank]
        assert [s.token for s in greedy(rows, blank)] == collapsed


@given(logits, st.data())
def test_spans_are_ordered_apart_and_within_the_frames(x, data):
    blank = data.draw(st.integers(0, x.shape[1] - 1))
    rows = log_softmax(x) if len(x) else x
    spans = greedy(rows, blank)
    edges = [edge for s in spans for edge in (s.start_frame, s.end_frame)]
    assert edges == sorted(edges)
    assert all(0 <= s.start_frame < s.end_frame <= len(x) for s in spans)
    assert all(s.token != blank and 0 <= s.token < x.shape[1] for s in spans)
    assert all(0 <= s.score <= 1 for s in spans)
    # Every frame outside the spans is blank, every frame inside is the span's token.
    path = np.full(len(x), blank)
    for s in spans:
        path[s.start_frame : s.end_frame] = s.token
    assert np.array_equal(path, rows.argmax(axis=1))
    # Two neighbouring spans that touch hold different tokens.
    for left, right in pairwise(spans):
        assert left.end_frame < right.start_frame or left.token != right.token


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`log_probs` must have shape \(T, N\), but has \(1, 4, 3\)"):
        greedy(np.zeros((1, 4, 3)), blank=0)


@pytest.mark.parametrize("blank", [-1, 3])
def test_a_blank_outside_the_vocabulary_is_refused(blank):
    with pytest.raises(ValueError, match=rf"`blank` must lie in \[0, 3\), but is {blank}"):
        greedy(path_log_probs([0, 1], 3), blank=blank)


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_logits_and_nan_are_refused(value):
    rows = path_log_probs([0, 1], 3)
    rows[1, 2] = value
    with pytest.raises(ValueError, match=r"`log_probs` must be at most 0 and not NaN.*apply log_softmax"):
        greedy(rows, blank=0)
