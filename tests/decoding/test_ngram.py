import gzip
import math

import numpy as np
import pytest
from ctc_cases import small_cases, transcript_log_probs
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding.beam import BeamSettings, beam_search
from unispeech.decoding.ngram import SENTENCE_END, SENTENCE_START, UNKNOWN, NgramModel
from unispeech.decoding.ngram_fusion import SymbolModel, WordModel, fuse
from unispeech.decoding.ngram_training import train_ngram
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary

ARPA = """\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-1.0\t</s>
-0.7\ta\t-0.3
-0.8\tb\t-0.2
-2.0\t<unk>

\\2-grams:
-0.2\t<s> a\t-0.1
-0.4\ta b\t-0.6
-0.3\tb </s>

\\3-grams:
-0.1\t<s> a b

\\end\\
"""
PHONES = Vocabulary(symbols=("<pad>", "a", "b", "c"), blank=0, kind="phones")
WORDS = Vocabulary(symbols=("<pad>", "|", "a", "b"), blank=0, word_boundary=1, kind="phones")
sentences = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return NgramModel.load(path)


def decimal(model, context, word):
    return pytest.approx(model.log_prob(context, word) / math.log(10))


def test_listed_and_backed_off_probabilities(model):
    assert decimal(model, ("<s>", "a"), "b") == -0.1
    assert decimal(model, ("<s>",), "a") == -0.2
    assert decimal(model, ("<s>",), "b") == -0.5 - 0.8
    assert decimal(model, ("<s>", "a"), "a") == -0.1 - 0.3 - 0.7
    assert decimal(model, ("a", "b"), "</s>") == -0.6 - 0.3
    assert decimal(model, ("b", "b"), "a") == -0.2 - 0.7
    assert decimal(model, ("b",), "tea") == -0.2 - 2.0
    assert model.words == {"a", "b"}
    assert model.order == 3


def test_contexts_are_cut_to_what_the_model_heeds(model):
    assert model.start == ("<s>",)
    assert model.context(("a", "b")) == ("a", "b")
    assert model.context(("b", "a", "a")) == ("a",)
    assert model.context(("a", "tea")) == ()


def test_a_model_without_unk_takes_a_tenth_of_its_rarest_word():
    model = NgramModel({("a",): math.log(0.5), ("b",): math.log(0.1)}, {})
    assert math.exp(model.log_prob((), "tea")) == pytest.approx(0.01)


def test_perplexity_counts_ends_and_leaves_unknown_words_out(model):
    found = model.perplexity([["a", "b"], ["tea"]])
    total = -0.2 - 0.1 + (-0.6 - 0.3) + -1.0
    assert found.perplexity == pytest.approx(10 ** (-total / 4))
    assert (found.num_tokens, found.num_unknown) == (4, 1)


def test_writing_and_reading_gives_the_same_model(model, tmp_path):
    path = tmp_path / "again.arpa.gz"
    path.write_bytes(gzip.compress(model.to_arpa().encode()))
    again = NgramModel.load(path)
    assert again.log_probs == pytest.approx(model.log_probs)
    assert again.backoffs == pytest.approx(model.backoffs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "lm.arpa:21: file must have a line .data., but has none; is it an ARPA file"),
        ("ngram 2=3", "ngram 3=3", "lm.arpa:3: line must be `ngram 2=COUNT`, but is 'ngram 3=3'"),
        ("ngram 1=5\nngram 2=3\nngram 3=1", "", "must be followed by `ngram 1=COUNT`"),
        ("ngram 1=5", "ngram 1=6", r"lm.arpa:13: 1-grams must be 6, as .data. says, but are 5"),
        ("\\2-grams:", "\\4-grams:", "lm.arpa:13: line must be .2-grams:, but is"),
        ("-0.8\tb\t-0.2", "x\tb\t-0.2", "lm.arpa:10: log-probability must be a number, but is 'x'"),
        ("-0.8\tb\t-0.2", "-0.8\tb\tnan", "lm.arpa:10: back-off weight must be a number, but is 'nan'"),
        ("-0.8\tb\t-0.2", "0.8\tb\t-0.2", "lm.arpa:10: log-probability must be at most 0, but is 0.8"),
        ("-0.8\tb\t-0.2", "-0.8\ta\t-0.2", "lm.arpa:10: n-gram must be listed once, but 'a' is listed again"),
        ("-0.4\ta b", "-0.4\ta t", "lm.arpa:15: word must be among the 1-grams, but 't' is not"),
        ("-0.4\ta b\t-0.6", "-0.4\ta", "lm.arpa:15: line must be a log-probability, 2 words and at most"),
        ("-0.1\t<s> a b", "-0.1\t<s> a b\t0.1", "lm.arpa:19: line must be a log-probability, 3 words, but"),
        ("\\end\\", "", "lm.arpa:21: line must be .end., but is 'the end of the file'"),
    ],
)
def test_a_wrong_arpa_file_is_refused_by_its_line(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    assert old in ARPA
    path.write_text(ARPA.replace(old, new))
    with pytest.raises(ManifestError, match=message):
        NgramModel.load(path)


@pytest.mark.parametrize("name", ["lm.bin", "lm.arpa.gz"])
def test_a_binary_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"mmap lm \xff\xfe\x00")
    with pytest.raises(ManifestError, match="must be an ARPA file in UTF-8, but is not; KenLM's binary"):
        NgramModel.load(path)


def test_a_model_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`log_probs` must hold at least one n-gram"):
        NgramModel({}, {})


def test_witten_bell_by_hand():
    model = train_ngram([["a", "b"], ["a"]], order=2)
    # a 2, b 1, </s> 2: 5 tokens of 3 kinds; 4 words with <unk>, 3 / 8 for them all alike.
    probs = {"a": 2 / 8 + 3 / 32, "b": 1 / 8 + 3 / 32, SENTENCE_END: 2 / 8 + 3 / 32, UNKNOWN: 3 / 32}
    for word, prob in probs.items():
        assert math.exp(model.log_prob((), word)) == pytest.approx(prob)
    assert math.exp(model.log_prob(("a",), "b")) == pytest.approx(1 / 4 + 1 / 2 * probs["b"])
    assert math.exp(model.log_prob(("<s>",), "a")) == pytest.approx(2 / 3 + 1 / 3 * probs["a"])
    assert math.exp(model.log_prob(("<s>",), "b")) == pytest.approx(1 / 3 * probs["b"])


def test_kneser_ney_by_hand():
    model = train_ngram([["a", "b"], ["a", "b"], ["a", "c"]], order=2, smoothing="kneser-ney")
    # Words before: a 1, b 1, c 1, </s> 2; D = 3 / (3 + 2). Bigrams that come once 2, twice 2: D = 1 / 3.
    unigram = (1 - 3 / 5) / 5 + (3 / 5 * 4 / 5) / 5
    assert math.exp(model.log_prob((), "b")) == pytest.approx(unigram)
    assert math.exp(model.log_prob(("a",), "b")) == pytest.approx((2 - 1 / 3) / 3 + 2 / 9 * unigram)


@settings(max_examples=30, deadline=None)
@given(sentences, st.integers(1, 4), st.sampled_from(["witten-bell", "kneser-ney"]))
def test_probabilities_behind_every_context_add_up_to_one(texts, order, smoothing):
    try:
        model = train_ngram(texts, order=order, smoothing=smoothing)
    except ValueError:
        assert smoothing == "kneser-ney"
        return
    for context in {ngram[:-1] for ngram in model.log_probs}:
        words = [*model.words, SENTENCE_END, UNKNOWN]
        assert sum(math.exp(model.log_prob(context, word)) for word in words) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([["a"]], dict(order=0), "`order` must be at least 1, but is 0"),
        ([[]], {}, "`sentences` must hold at least one word, but hold none"),
        ([["a", "<s>"]], {}, "`sentences` must hold words of the text, but hold <s>"),
        ([["a"]], dict(smoothing="kneser-ney"), "`smoothing` must be witten-bell for this text.*order 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        train_ngram(texts, **options)


@settings(max_examples=30, deadline=None)
@given(sentences, st.integers(1, 4), st.lists(st.integers(1, 3), max_size=6))
def test_symbols_are_scored_as_the_model_scores_them(texts, order, tokens):
    model = train_ngram(texts, order=order)
    scorer = SymbolModel(model, PHONES, weight=0.7, bonus=0.2)
    context, expected = (SENTENCE_START,), 0.0
    for token in tokens:
        word = PHONES.symbols[token]
        expected += 0.7 * model.log_prob(context, word) + 0.2
        context = (*context, word)
    expected += 0.7 * model.log_prob(context, SENTENCE_END)
    assert scorer.score(tokens) == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(small_cases(max_frames=4).filter(lambda rows: rows.shape[1] == 4))
def test_the_best_transcript_is_that_of_sound_and_model_together(log_probs):
    model = train_ngram([list("abc"), list("ab"), list("b")], order=3)
    scorer = fuse(model, PHONES, weight=0.8, bonus=0.5)
    wide = BeamSettings(beam=400, nbest=400, min_prob=0.0)
    [found] = beam_search([log_probs], 0, settings=wide, scorers=[scorer])
    expected = {
        tokens: log_prob + scorer.score(list(tokens))
        for tokens, log_prob in transcript_log_probs(log_probs, 0).items()
    }
    assert {h.tokens: pytest.approx(h.score) for h in found} == expected
    assert found[0].score == pytest.approx(max(expected.values()))


def test_a_model_decides_between_symbols_that_sound_alike():
    rows = np.log(np.array([[0.05, 0.9, 0.03, 0.02], [0.9, 0.04, 0.03, 0.03], [0.04, 0.02, 0.45, 0.49]]))
    scorer = fuse(train_ngram([list("ab")] * 5, order=2), PHONES, weight=0.5)
    assert beam_search([rows], 0)[0][0].tokens == (1, 3)
    assert beam_search([rows], 0, scorers=[scorer])[0][0].tokens == (1, 2)


def test_tagged_and_unknown_symbols_and_boundaries():
    tagged = Vocabulary(
        symbols=("<pad>", "|", "(en)a", "(de)a", "(de)x"), blank=0, word_boundary=1, kind="phones"
    )
    model = train_ngram([["a", "a"], ["a"]], order=2)
    scorer = SymbolModel(model, tagged, weight=1.0)
    plain = model.log_prob(("<s>",), "a") + model.log_prob(("a",), SENTENCE_END)
    assert scorer.score([2]) == pytest.approx(plain)
    assert scorer.score([3]) == pytest.approx(plain)
    assert scorer.score([1, 3, 1]) == pytest.approx(plain)
    unknown = model.log_prob(("<s>",), "x") + model.log_prob((), SENTENCE_END)
    assert scorer.score([4]) == pytest.approx(unknown)


def words_model(**options):
    model = train_ngram([["ab", "ba"], ["ab", "ab"], ["bab"]], order=2)
    return model, WordModel(model, WORDS, weight=0.5, bonus=0.25, **options)


def test_words_are_scored_at_their_boundaries():
    model, scorer = words_model()
    assert isinstance(fuse(model, WORDS), WordModel)
    total = sum(
        model.log_prob(context, word)
        for context, word in [(("<s>",), "ab"), (("ab",), "ba"), (("ba",), SENTENCE_END)]
    )
    for tokens in ([2, 3, 1, 3, 2], [1, 2, 3, 1, 1, 3, 2, 1]):
        assert scorer.score(tokens) == pytest.approx(0.5 * total + 2 * 0.25)


def test_a_word_that_the_model_lacks_is_unknown():
    model, scorer = words_model()
    total = model.log_prob(("<s>",), "ab") + model.log_prob(("ab",), "?") + model.log_prob((), SENTENCE_END)
    for tokens in ([2, 3, 1, 2, 2, 2], [2, 3, 1, 2]):  # spelled by nothing; a beginning only
        assert scorer.score(tokens) == pytest.approx(0.5 * total + 2 * 0.25)


def test_on_the_way_a_word_is_scored_by_the_best_that_it_can_become():
    model, scorer = words_model()
    first, _ = scorer.expand(np.array([[scorer.start]]), np.array([[2, 3]]))
    assert first[0, 0, 0] == pytest.approx(0.5 * model.log_prob((), "ab"))
    assert first[0, 0, 1] == pytest.approx(0.5 * model.log_prob((), "ba"))


def test_words_are_spelled_by_a_lexicon():
    model = train_ngram([["tea", "time"]], order=2)
    scorer = fuse(model, WORDS, weight=1.0, lexicon={"tea": ["a b", "b"], "time": ["b"]})
    expected = model.log_prob(("<s>",), "tea") + model.log_prob(("tea",), "time")
    expected += model.log_prob(("time",), SENTENCE_END)
    assert scorer.score([2, 3, 1, 3]) == pytest.approx(expected)
    assert scorer.score([3, 1, 3]) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"`lm` must have words .* can spell.*give a lexicon"):
        fuse(model, WORDS)


def test_a_model_of_words_needs_word_boundaries():
    with pytest.raises(
        ValueError, match=r"`lm` must be of the model's symbols.*but has 'tea', 'time'; train"
    ):
        fuse(train_ngram([["tea", "time"]]), PHONES)
