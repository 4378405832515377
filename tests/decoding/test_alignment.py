import time
from itertools import groupby, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding import alignment_band
from unispeech.decoding.alignment import WILDCARD, align, build_graph, num_frames_needed
from unispeech.decoding.alignment_band import anchored_bands, find_anchors, longest_ascent
from unispeech.decoding.alignment_trellis import Band, best_path, whole
from unispeech.decoding.greedy import greedy
from unispeech.errors import AlignmentError


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def spoken(tokens, num_symbols, *, seed=0, noise=0.0, mean_gap=4, dtype=np.float32):
    """Spiky log-probabilities of tokens with random gaps, some symbols replaced, and the true frames."""
    rng = np.random.default_rng(seed)
    places = np.cumsum(rng.integers(2, 2 * mean_gap - 1, size=len(tokens)))
    heard = np.where(rng.random(len(tokens)) < noise, rng.integers(1, num_symbols, len(tokens)), tokens)
    logits = rng.normal(size=(places[-1] + mean_gap, num_symbols)).astype(dtype)
    logits[:, 0] += 6.0
    logits[places, 0] -= 6.0
    logits[places, heard] += 6.0
    return log_softmax(logits), places


def score_of(spans, rows, blank):
    """The log-probability of the path that the spans describe."""
    labels = np.full(len(rows), blank)
    for span in spans:
        labels[span.start_frame : span.end_frame] = span.token
    return rows[np.arange(len(rows)), labels].sum()


def brute_force(rows, tokens, blank, *, fillers=()):
    """The best log-probability over all paths that collapse to the tokens."""
    gaps = {blank, *fillers}
    best = -np.inf
    for path in product(range(rows.shape[1]), repeat=len(rows)):
        said = [label for label, _ in groupby(blank if label in gaps else label for label in path)]
        if [label for label in said if label != blank] == list(tokens):
            best = max(best, rows[np.arange(len(rows)), path].sum())
    return best


# -- right ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_is_the_best_of_all_paths(data):
    num_symbols = data.draw(st.integers(2, 3))
    num_frames = data.draw(st.integers(1, 7 if num_symbols == 3 else 9))
    blank = data.draw(st.integers(0, num_symbols - 1))
    others = [symbol for symbol in range(num_symbols) if symbol != blank]
    tokens = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=num_frames))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rows = log_softmax(np.random.default_rng(seed).normal(size=(num_frames, num_symbols)) * 3)
    best = brute_force(rows, tokens, blank)
    if num_frames < num_frames_needed(tokens):
        assert best == -np.inf
        with pytest.raises(AlignmentError, match="must have at least"):
            align(rows, tokens, blank)
        return
    spans = align(rows, tokens, blank)
    assert [span.token for span in spans] == tokens
    assert score_of(spans, rows, blank) == pytest.approx(best, abs=1e-9)
    for left, right in pairwise(spans):
        assert left.end_frame <= right.start_frame - (left.token == right.token)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([1, 2]), min_size=1, max_size=3))
def test_fillers_stand_between_tokens(seed, tokens):
    rows = log_softmax(np.random.default_rng(seed).normal(size=(6, 4)) * 3)
    merged = rows.copy()
    merged[:, 0] = rows[:, [0, 3]].max(axis=1)
    spans = align(rows, tokens, 0, fillers=[3])
    assert score_of(spans, merged, 0) == pytest.approx(brute_force(rows, tokens, 0, fillers=[3]), abs=1e-9)


def test_greedy_text_aligns_to_greedy_spans():
    rows, _ = spoken([1, 2, 2, 3, 1, 1, 4], 5)
    expected = greedy(rows, 0)
    found = align(rows, [span.token for span in expected], 0)
    assert found == expected


def test_no_tokens_have_no_spans():
    assert align(np.zeros((0, 3), np.float32), [], 0) == []
    assert align(np.log(np.full((4, 3), 1 / 3)), [], 0) == []


def test_every_frame_can_be_taken():
    rows = log_softmax(np.random.default_rng(0).normal(size=(5, 4)))
    spans = align(rows, [1, 2, 1, 3, 2], 0)
    assert [(span.start_frame, span.end_frame) for span in spans] == [(i, i + 1) for i in range(5)]
    assert [span.score for span in spans] == pytest.approx(
        np.exp(rows[np.arange(5), [1, 2, 1, 3, 2]]).tolist()
    )


def test_what_has_no_probability_is_no_path():
    rows = np.log(np.array([[0.5, 0.5, 1e-30], [0.5, 0.5, 1e-30]]))
    rows[:, 2] = -np.inf
    assert [s.token for s in align(rows, [1], 0)] == [1]
    with pytest.raises(AlignmentError, match="every way of saying all 1 in 2 frames has probability 0"):
        align(rows, [2], 0)


# -- wildcards -----------------------------------------------------------------------------------------------


def test_a_wildcard_covers_what_cannot_be_spelled():
    said = [1, 2, 3, 4, 5, 4, 3, 2, 1]
    rows, places = spoken(said, 6, seed=1)
    spans = align(rows, [1, 2, WILDCARD, 2, 1], 0)
    assert [span.start_frame for span in spans] == [places[i] for i in (0, 1, 2, 7, 8)]
    assert (spans[2].token, spans[2].end_frame) == (WILDCARD, places[6] + 1)
    assert 0 < spans[2].score <= 1
    # Beside the truth a wildcard keeps to one symbol.
    spans = align(rows, [1, 2, 3, WILDCARD, 5, 4, 3, 2, 1], 0)
    assert [span.start_frame for span in spans] == places.tolist()


def test_wildcards_at_the_ends():
    rows, places = spoken([1, 2, 3, 4, 5, 1, 2, 3], 6, seed=2)
    spans = align(rows, [WILDCARD, 4, 5, WILDCARD], 0)
    assert (spans[0].start_frame, spans[0].end_frame) == (places[0], places[2] + 1)
    assert (spans[3].start_frame, spans[3].end_frame) == (places[5], places[7] + 1)


# -- long ----------------------------------------------------------------------------------------------------


def test_the_longest_ascent():
    assert longest_ascent(np.array([5, 1, 4, 2, 3, 0, 9])).tolist() == [1, 3, 4, 6]
    assert longest_ascent(np.array([], np.int64)).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_a_band_that_holds_the_path_gives_the_path(seed, width):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 4, size=12)
    rows, _ = spoken(tokens, 4, seed=seed, noise=0.3)
    graph = build_graph(rows, tokens, 0)
    full = best_path(graph, whole(len(rows), 12))
    said = np.maximum.accumulate(full.tokens)
    band = Band(low=np.maximum(said - width, 0), high=np.minimum(said + 2 + width, 13))
    inside = best_path(graph, band)
    assert inside.log_prob == pytest.approx(full.log_prob)
    assert inside.nearest_edge >= min(width, 0)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
def test_anchors_are_true(noise):
    tokens = np.random.default_rng(3).integers(1, 40, size=3000)
    rows, places = spoken(tokens, 40, seed=4, noise=noise)
    frames, columns = find_anchors(build_graph(rows, tokens, 0))
    assert len(frames) > {0.0: 2900, 0.2: 700, 0.5: 50}[noise]
    assert (np.abs(places[columns] - frames) <= 20).all()


@pytest.mark.parametrize("noise", [0.2, 0.6])
def test_the_band_finds_what_everything_finds(monkeypatch, noise):
    tokens = np.random.default_rng(5).integers(1, 30, size=600)
    rows, _ = spoken(tokens, 30, seed=6, noise=noise)
    full = align(rows, tokens, 0)
    monkeypatch.setattr(alignment_band, "MAX_EXACT_CELLS", 0)
    graph = build_graph(rows, tokens, 0)
    band, _ = next(anchored_bands(graph))
    assert band.num_cells < 0.6 * len(rows) * 601
    assert align(rows, tokens, 0) == full


def test_the_band_is_widened_where_anchors_mislead(monkeypatch):
    monkeypatch.setattr(alignment_band, "MAX_EXACT_CELLS", 0)
    monkeypatch.setattr(alignment_band, "MARGINS", (2, 8))
    # The first 300 tokens are said in the first tenth of the time, and no run of five was heard rightly.
    tokens = np.random.default_rng(7).integers(1, 30, size=400)
    rows, places = spoken(tokens, 30, seed=8, mean_gap=2)
    rows = np.concatenate([rows, np.repeat(rows[-1:], 4000, axis=0)])
    monkeypatch.setattr(alignment_band, "find_anchors", lambda graph: (np.zeros(0, int), np.zeros(0, int)))
    monkeypatch.setattr(alignment_band, "MAX_BETWEEN", 10)
    assert [span.start_frame for span in align(rows, tokens, 0)] == places.tolist()


def test_audio_and_text_may_lack_parts(monkeypatch):
    monkeypatch.setattr(alignment_band, "MAX_EXACT_CELLS", 0)
    tokens = np.random.default_rng(9).integers(1, 40, size=1500)
    rows, places = spoken(tokens, 40, seed=10)
    # Half a minute of it is not in the text.
    spans = align(rows, [*tokens[:600], *tokens[1000:]], 0)
    assert [span.start_frame for span in spans[:560]] == places[:560].tolist()
    assert [span.start_frame for span in spans[-460:]] == places[-460:].tolist()


def test_five_minutes_take_under_a_second():
    tokens = np.random.default_rng(11).integers(1, 50, size=3000)
    rows, places = spoken(tokens, 50, seed=12, noise=0.2, mean_gap=5)
    assert len(rows) > 14_000
    started = time.process_time()
    spans = align(rows, tokens, 0)
    assert time.process_time() - started < 1.0
    assert np.median(np.abs(np.array([span.start_frame for span in spans]) - places)) == 0


# -- what cannot be ------------------------------------------------------------------------------------------


def test_too_few_frames_are_counted():
    rows = np.log(np.full((5, 3), 1 / 3))
    with pytest.raises(
        AlignmentError,
        match=r"^`log_probs` must have at least 6 frames for 4 tokens with 2 repeats, but has 5\.$",
    ):
        align(rows, [1, 1, 2, 2], 0)
    with pytest.raises(AlignmentError, match=r"at least 6 frames for 6 tokens, but has 5\."):
        align(rows, [1, 2] * 3, 0)
    with pytest.raises(AlignmentError, match=r"at least 1 frames for 1 tokens, but has 0\."):
        align(np.zeros((0, 3)), [1], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), [1], 0), r"`log_probs` must have shape \(T, N\), but has \(3,\)"),
        ((np.zeros((3, 2)), [1], 2), r"`blank` must lie in \[0, 2\), but is 2"),
        ((np.zeros((3, 2)), [0], 0), r"`tokens` must lie in \[0, 2\) without the blank \(0\).* hold 0"),
        ((np.zeros((3, 2)), [2], 0), "`tokens` must lie in .* but hold 2"),
        ((np.zeros((3, 2)), [-2], 0), "`tokens` must lie in .* but hold -2"),
        ((np.ones((3, 2)), [1], 0), "`log_probs` must be at most 0 and not NaN, but has 1; apply"),
        ((np.full((3, 2), np.nan), [1], 0), "`log_probs` must be at most 0 and not NaN, but has nan"),
    ],
)
def test_arguments_out_of_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        align(*arguments)


@pytest.mark.parametrize("filler", [1, 3])
def test_fillers_out_of_their_range_are_refused(filler):
    with pytest.raises(ValueError, match=rf"`fillers` must lie in \[0, 3\) and not .* but hold {filler}"):
        align(np.log(np.full((3, 3), 1 / 3)), [1], 0, fillers=[filler])
