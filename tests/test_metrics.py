"""Error rates and accuracy, on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.metrics import Confusion, accuracy, confusions, error_rate

units = st.lists(st.sampled_from(["a", "b", "tʃ", "|"]), max_size=6)
pairs = st.lists(st.tuples(units, units), min_size=1, max_size=6)


def plain_distance(reference, hypothesis):
    """Levenshtein's recursion, row by row."""
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, heard in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (said != heard)))
    return row[-1]


def test_parts_by_hand():
    # a b c d -> a x c: b became x, d is gone.  k -> k k: one k too many.
    result = error_rate([list("abcd"), ["k"]], [list("axc"), ["k", "k"]])
    assert (result.substitutions, result.deletions, result.insertions) == (1, 1, 1)
    assert result.num_reference == 5
    assert result.rate == pytest.approx(3 / 5)


def test_per_wer_and_cer_are_the_same_function_on_different_units():
    said, heard = "guten tag", "guten tach"
    assert error_rate([said.split()], [heard.split()]).rate == pytest.approx(1 / 2)
    assert error_rate([list(said)], [list(heard)]).rate == pytest.approx(2 / 9)
    assert error_rate([["t", "aː", "k"]], [["t", "a", "x"]]).rate == pytest.approx(2 / 3)


def test_utterances_are_weighed_by_their_length():
    result = error_rate([["a"], list("bcdefghij")], [["x"], list("bcdefghij")])
    assert result.rate == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"),
    [([], [], 0.0), (["a", "b"], [], 1.0), ([], ["a", "b"], 2.0), (["a"], ["b", "c", "d"], 3.0)],
)
def test_empty_sides_divide_by_nothing(reference, hypothesis, rate):
    result = error_rate([reference], [hypothesis])
    assert (result.rate, result.low, result.high) == (rate, rate, rate)


@given(pairs)
def test_errors_are_levenshtein_distances(utterances):
    references, hypotheses = zip(*utterances, strict=True)
    result = error_rate(references, hypotheses)
    errors = result.substitutions + result.insertions + result.deletions
    assert errors == sum(map(plain_distance, references, hypotheses))
    assert result.rate == errors / max(1, result.num_reference)
    assert sum(kind.count for kind in confusions(references, hypotheses, top=1000)) == errors


def test_interval_of_coin_like_utterances_is_that_of_the_binomial():
    # 1600 one-unit utterances, half of them wrong: standard deviation sqrt(.25 / 1600) = .0125.
    result = error_rate([["a"]] * 1600, [["a"], ["b"]] * 800)
    assert result.low == pytest.approx(0.5 - 1.96 * 0.0125, abs=0.003)
    assert result.high == pytest.approx(0.5 + 1.96 * 0.0125, abs=0.003)


def test_interval_narrows_with_less_confidence_and_repeats_with_the_seed():
    references, hypotheses = [["a", "b"]] * 30, [["a", "b"], ["a"], ["c", "b"]] * 10
    wide, again = (error_rate(references, hypotheses) for _ in range(2))
    narrow = error_rate(references, hypotheses, confidence=0.5)
    assert wide == again
    assert wide.low < narrow.low <= wide.rate <= narrow.high < wide.high


def test_another_seed_draws_other_utterances():
    references = [["a"] * length for length in range(1, 40)]
    hypotheses = [["a"] * (length % 7) for length in range(1, 40)]
    assert error_rate(references, hypotheses).low != error_rate(references, hypotheses, seed=1).low


def test_confusions_are_ranked_and_name_both_sides():
    references = [["a", "b"], ["a", "b"], ["a"], ["d"]]
    hypotheses = [["e", "b"], ["e", "b"], ["a", "c"], []]
    assert confusions(references, hypotheses) == [
        Confusion(reference="a", hypothesis="e", count=2),
        Confusion(reference=None, hypothesis="c", count=1),
        Confusion(reference="d", hypothesis=None, count=1),
    ]
    assert len(confusions(references, hypotheses, top=1)) == 1


def test_accuracy_by_hand():
    result = accuracy(["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"])
    assert (result.num_correct, result.num_total, result.rate) == (3, 4, 0.75)
    # Wilson's 95 % interval for 3 of 4, from the closed formula with z = 1.959964.
    assert (result.low, result.high) == (pytest.approx(0.300642, abs=1e-5), pytest.approx(0.954413, abs=1e-5))


def test_accuracy_of_all_right_answers_still_has_an_interval():
    result = accuracy(["a"] * 10, ["a"] * 10)
    assert result.high == 1.0
    assert result.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)


@pytest.mark.parametrize("score", [error_rate, confusions, accuracy])
def test_unequal_numbers_are_refused(score):
    with pytest.raises(
        ValueError, match=r"`hypotheses` must be as many as the references \(2\), but are 1\."
    ):
        score(["a", "b"], ["a"])


@pytest.mark.parametrize("score", [error_rate, confusions, accuracy])
def test_nothing_to_score_is_refused(score):
    with pytest.raises(ValueError, match="`references` must hold at least one utterance, but are empty"):
        score([], [])


@pytest.mark.parametrize("score", [error_rate, accuracy])
@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_impossible_confidence_is_refused(score, confidence):
    with pytest.raises(ValueError, match=rf"`confidence` must lie in \(0, 1\), but is {confidence}\."):
        score(["a"], ["a"], confidence=confidence)
