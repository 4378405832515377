import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding.beam import beam_search
from unispeech.decoding.hotwords import DEFAULT_WEIGHT, Hotword, Hotwords, read_hotword
from unispeech.text import Vocabulary

PHONES = Vocabulary(symbols=("<pad>", "a", "b", "t͡ʃ"), blank=0, kind="phones")
LETTERS = Vocabulary(symbols=("<pad>", "|", "a", "b", "c"), blank=0, word_boundary=1, kind="characters")
symbols = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Hotword,
            st.lists(symbols, min_size=1, max_size=4).map(tuple),
            st.sampled_from([-1.0, 0.5, 1.0, 2.0]),
        ),
        max_size=4,
    ),
    st.lists(symbols, max_size=12),
)
def test_every_whole_hotword_is_paid_and_nothing_else(hotwords, tokens):
    expected = sum(
        hotword.weight * len(hotword.tokens)
        for hotword in hotwords
        for start in range(len(tokens))
        if tuple(tokens[start : start + len(hotword.tokens)]) == hotword.tokens
    )
    assert Hotwords(hotwords, 4).score(tokens) == pytest.approx(expected)


def test_a_part_is_paid_in_advance_and_released_where_it_breaks_off():
    scorer = Hotwords([Hotword((1, 2, 3), 2.0)], 4)
    earned, state = [], np.array([[scorer.start]])
    for token in (1, 2, 1, 2, 3):
        scores, targets = scorer.expand(state, np.array([[token]]))
        earned.append(scores[0, 0, 0])
        state = targets[0]
    assert earned == [2.0, 2.0, -2.0, 2.0, 2.0]
    assert scorer.finish(state)[0, 0] == 0.0


@pytest.mark.parametrize(
    ("text", "times"),
    [("ab", 1), ("c ab", 1), ("ab ab", 2), ("cab", 0), ("abc", 0), ("a b", 0), ("c ab c", 1), ("c ab|", 1)],
)
def test_where_words_have_boundaries_hotwords_are_whole_words(text, times):
    scorer = Hotwords([Hotword((2, 3), 1.5)], 5, word_boundary=1)
    tokens = [LETTERS.symbols.index("|" if letter == " " else letter) for letter in text]
    assert scorer.score(tokens) == pytest.approx(times * 3.0)


def test_a_hotword_wins_over_what_sounds_a_little_better():
    rows = np.log(np.array([[0.04, 0.5, 0.44, 0.02], [0.9, 0.04, 0.03, 0.03], [0.04, 0.02, 0.45, 0.49]]))
    assert beam_search([rows], 0)[0][0].tokens == (1, 3)
    scorer = Hotwords([Hotword((2, 2), 0.5)], 4)
    assert beam_search([rows], 0, scorers=[scorer])[0][0].tokens == (2, 2)
    # One symbol of two is not enough: the advance is taken back at the end.
    scorer = Hotwords([Hotword((2, 2, 2), 0.5)], 4)
    assert beam_search([rows], 0, scorers=[scorer])[0][0].tokens == (1, 3)


def test_hotwords_are_read_from_the_command_line():
    assert read_hotword("at͡ʃ", PHONES) == [Hotword((1, 3), DEFAULT_WEIGHT)]
    assert read_hotword("a t͡ʃ b=-2", PHONES) == [Hotword((1, 3, 2), -2.0)]
    lexicon = {"tea": ["t͡ʃ a", "b"], "time": ["a"]}
    assert read_hotword("tea time=3", PHONES, lexicon=lexicon) == [
        Hotword((3, 1, 1), 3.0),
        Hotword((2, 1), 3.0),
    ]
    assert read_hotword("ab c", LETTERS) == [Hotword((2, 3, 1, 4), DEFAULT_WEIGHT)]


@pytest.mark.parametrize("text", ["=2", "a=x", "a=nan", ""])
def test_a_hotword_without_text_or_weight_is_refused(text):
    with pytest.raises(ValueError, match="`hotword` must be TEXT or TEXT=WEIGHT, but is"):
        read_hotword(text, PHONES)


def test_a_hotword_that_cannot_be_written_is_refused():
    with pytest.raises(
        ValueError, match=r"`hotword` 'qa' must be in the lexicon or in the model's symbols.*'q'"
    ):
        read_hotword("qa=1", PHONES)
    with pytest.raises(ValueError, match="`hotwords` must have symbols, but one has none"):
        Hotwords([Hotword(())], 4)
