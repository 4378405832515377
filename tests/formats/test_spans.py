import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odd_transcripts import transcripts
from unispeech.formats.spans import Span, clean, coarsest, lay_out, tiers
from unispeech.results import Phone, Transcript, Word


def spans(*times):
    return [Span("a", start, end, 1.0) for start, end in times]


@pytest.mark.parametrize(
    ("times", "ticks"),
    [
        ([], []),
        ([(0.1, 0.2), (0.3, 0.4)], [(100, 200), (300, 400)]),
        ([(0.1, 0.1)], [(100, 101)]),  # empty
        ([(0.1, 0.1), (0.1, 0.1), (0.1, 0.2)], [(100, 101), (101, 102), (102, 200)]),
        ([(0.1, 0.2), (0.15, 0.3)], [(100, 200), (200, 300)]),  # overlapping
        ([(0.9996, 1.0), (1.0, 1.0)], [(998, 999), (999, 1000)]),  # at the end of the recording
        ([(1.0, 1.2)], [(999, 1000)]),
    ],
)
def test_spans_get_ticks_of_their_own(times, ticks):
    assert lay_out(spans(*times), ticks_per_second=1000, duration=1.0) == ticks


def test_more_spans_than_ticks_run_over_the_end():
    assert lay_out(spans((0, 0), (0, 0), (0, 0)), ticks_per_second=1000, duration=0.001) == [
        (0, 1),
        (1, 2),
        (2, 3),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)).map(lambda t: (t[0] / 1e4, sum(t) / 1e4))),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_laid_out_spans_are_disjoint_and_never_empty(times, duration):
    ticks = lay_out(spans(*sorted(times)), ticks_per_second=1000, duration=duration)
    assert len(ticks) == len(times)
    assert all(0 <= start < end for start, end in ticks)
    assert all(end <= start for (_, end), (start, _) in pairwise(ticks))
    if ticks:
        assert ticks[-1][1] <= max(duration * 1000, len(ticks))


@given(transcripts())
def test_times_of_spans_that_have_room_are_only_rounded(transcript):
    phones = transcript.phones
    if all(p.end - p.start >= 0.002 for p in phones):
        ticks = lay_out(coarsest(transcript), ticks_per_second=1000, duration=transcript.duration)
        for (start, end), span in zip(ticks, coarsest(transcript), strict=True):
            assert abs(start - span.start * 1000) <= 0.51
            assert abs(end - span.end * 1000) <= 0.51


def test_words_come_before_phones_where_there_are_any():
    phones = [Phone(phone="a", start=-0.01, end=-0.02, score=0.5)]
    words = [Word(word="a", start=0.0, end=1.0, score=0.5)]
    alone = Transcript(audio="a", duration=1.0, text="a", phones=phones)
    assert tiers(alone) == {"phones": [("a", 0.0, 0.0, 0.5)]}
    assert coarsest(alone) == [("a", 0.0, 0.0, 0.5)]
    both = Transcript(audio="a", duration=1.0, text="a", phones=phones, words=words)
    assert list(tiers(both)) == ["words", "phones"]
    assert coarsest(both) == [("a", 0.0, 1.0, 0.5)]
    assert coarsest(Transcript(audio="a", duration=1.0, text="", words=[])) == []


@pytest.mark.parametrize(("start", "score"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan)])
def test_times_and_scores_that_are_no_numbers_are_refused(start, score):
    phones = [Phone(phone="a", start=start, end=1.0, score=score)]
    with pytest.raises(ValueError, match="`transcript` must have finite times and scores, but 'a' has"):
        tiers(Transcript(audio="a", duration=1.0, text="a", phones=phones))


def test_what_a_line_cannot_hold_is_replaced():
    assert clean('t͡ʃ "<&> \u00a0') == 't͡ʃ "<&> \u00a0'
    assert clean("a\nb\u2028\x00\ud800\uffff\U0001fffe") == "a\ufffdb\ufffd\ufffd\ufffd\ufffd\ufffd"
