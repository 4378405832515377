import numpy as np
import pytest
from ctc_cases import log_softmax, small_cases, spoken_like, transcript_log_probs
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding.alignment import align
from unispeech.decoding.alternatives import alternatives
from unispeech.decoding.beam import BeamSettings, beam_search
from unispeech.decoding.greedy import TokenSpan, greedy

EXACT = BeamSettings(beam=400, nbest=400, min_prob=0.0)


@settings(max_examples=25, deadline=None)
@given(small_cases(max_frames=4), st.data())
def test_every_transcript_has_the_probability_of_all_its_paths(log_probs, data):
    blank = data.draw(st.integers(0, log_probs.shape[1] - 1))
    expected = transcript_log_probs(log_probs, blank)
    [found] = beam_search([log_probs], blank, settings=EXACT)
    assert len({hypothesis.tokens for hypothesis in found}) == len(found) == len(expected)
    for hypothesis in found:
        assert hypothesis.log_prob == pytest.approx(expected[hypothesis.tokens], abs=1e-9)
        assert hypothesis.score == hypothesis.log_prob
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)


@settings(max_examples=15, deadline=None)
@given(st.lists(small_cases(max_symbols=3).filter(lambda rows: rows.shape[1] == 3), min_size=2, max_size=4))
def test_a_batch_gives_what_singles_give(rows):
    # Which of two equals is kept may differ, so there are none.
    rng = np.random.default_rng(0)
    rows = [log_softmax(row + rng.normal(size=row.shape) * 1e-3) for row in rows]
    narrow = BeamSettings(beam=4, nbest=3, min_prob=1e-3)
    together = beam_search(rows, 0, settings=narrow)
    alone = [beam_search([one], 0, settings=narrow)[0] for one in rows]
    for ours, theirs in zip(together, alone, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert np.allclose([h.score for h in ours], [h.score for h in theirs], atol=1e-9)


def test_a_transcript_wins_by_the_sum_of_its_paths():
    # The best path is blank, blank; but "1" has three paths that add up to more.
    rows = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    [[best]] = beam_search([rows], 0)
    assert best.tokens == (1,)
    assert np.exp(best.log_prob) == pytest.approx(0.4 * 0.6 * 2 + 0.4 * 0.4)
    assert greedy(rows, 0) == []


def test_a_symbol_that_drops_out_and_comes_back_is_the_same_transcript():
    # With a beam of 3, short hypotheses leave the beam and are made again beside their own continuations.
    rng = np.random.default_rng(3)
    for _ in range(30):
        rows = log_softmax(rng.normal(size=(12, 3)) * 2)
        [found] = beam_search([rows], 0, settings=BeamSettings(beam=3, nbest=3))
        assert len({h.tokens for h in found}) == len(found)


def test_frames_of_blanks_are_taken_together_without_a_difference():
    rows = spoken_like(200, 12)
    [[quick]] = beam_search([rows], 0, settings=BeamSettings(min_prob=1e-4))
    [[plain]] = beam_search([rows], 0, settings=BeamSettings(min_prob=0.0))
    assert quick.tokens == plain.tokens
    assert quick.log_prob == pytest.approx(plain.log_prob, abs=0.1)
    assert quick.log_prob <= plain.log_prob + 1e-9


def test_no_frames_give_the_empty_transcript():
    [[best]] = beam_search([np.zeros((0, 4), np.float32)], 0)
    assert (best.tokens, best.log_prob) == ((), 0.0)
    assert beam_search([], 0) == []


def test_only_blanks_give_the_empty_transcript():
    rows = np.log(np.array([[1.0 - 2e-6, 1e-6, 1e-6]] * 7))
    [[best]] = beam_search([rows], 0)
    assert best.tokens == ()
    assert best.log_prob == pytest.approx(7 * np.log(1 - 2e-6))


def test_a_vocabulary_so_large_that_all_symbols_are_improbable_is_still_read():
    logits = np.zeros((4, 5000), np.float32)
    logits[[1, 2], [7, 9]] = 1.0
    [[best]] = beam_search([log_softmax(logits)], 0, settings=BeamSettings(min_prob=0.01))
    assert {7, 9} <= set(best.tokens)


def test_it_agrees_with_the_greedy_search_where_frames_are_sure():
    rows = spoken_like(300, 20, sharpness=14.0)
    spans = greedy(rows, 0)
    [[best]] = beam_search([rows], 0)
    assert list(best.tokens) == [span.token for span in spans]
    placed = align(rows, best.tokens, 0)
    assert [(s.start_frame, s.end_frame) for s in placed] == [(s.start_frame, s.end_frame) for s in spans]


def test_alternatives_are_the_mean_probabilities_of_the_span():
    rows = np.log(np.array([[0.1, 0.6, 0.3, 1e-9], [0.1, 0.8, 0.1, 1e-9]]))
    [found] = alternatives(rows, [TokenSpan(1, 0, 2, 0.7)], 0)
    assert [(a.token, pytest.approx(a.prob)) for a in found] == [(1, 0.7), (2, 0.2)]
    [short] = alternatives(rows, [TokenSpan(1, 0, 2, 0.7)], 0, top=1)
    assert len(short) == 1
    [own] = alternatives(rows, [TokenSpan(3, 0, 2, 0.0)], 0, top=2)
    assert [a.token for a in own] == [1, 3]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(beam=0), "`beam` must be at least 1, but is 0"),
        (dict(nbest=0), "`nbest` must be at least 1"),
        (dict(max_tokens=0), "`max_tokens` must be at least 1"),
        (dict(beam=5, nbest=6), r"`nbest` must be at most `beam` \(5\), but is 6"),
        (dict(min_prob=1.0), r"`min_prob` must lie in \[0, 1\), but is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        BeamSettings(**setting)


def test_wrong_arrays_are_refused():
    rows = np.log(np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"`log_probs` must have shape \(T, N\), but has \(1, 2, 3\)"):
        beam_search([rows[None]], 0)
    with pytest.raises(ValueError, match=r"`blank` must lie in \[0, 3\), but is 3"):
        beam_search([rows], 3)
    for value in (np.nan, 1.0):
        rows[1, 1] = value
        with pytest.raises(ValueError, match=r"`log_probs` must be at most 0 and not NaN.*apply log_softmax"):
            beam_search([rows], 0)
