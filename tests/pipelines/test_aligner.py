from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from tiny_recognisers import (
    LETTERS,
    PHONES,
    WORD_PHONES,
    babble,
    save_recogniser,
    tiny_recogniser,
    write_babble,
)
from unispeech import Aligner, Transcriber
from unispeech.data.g2p import LexiconPhonemizer
from unispeech.decoding.alignment import WILDCARD, align
from unispeech.errors import AlignmentError
from unispeech.pipelines.spelling import SpelledWord, Speller
from unispeech.text import Vocabulary

RATE = 16_000


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber(tiny_recogniser(), vocabulary=PHONES, window_seconds=4, overlap_seconds=0.5)


@pytest.fixture(scope="module")
def letters():
    return Transcriber(tiny_recogniser(LETTERS), vocabulary=LETTERS)


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "words.dict"
    path.write_text("rang ɹ a ŋ\ncheese t͡ʃ iː\nzoo z u\nthe ð ə\n", encoding="utf-8")
    return LexiconPhonemizer(path)


# -- times ---------------------------------------------------------------------------------------------------


def test_phones_of_a_file_get_times_within_it(tmp_path, transcriber):
    path = write_babble(tmp_path / "a.wav", 2.0)
    result = Aligner(transcriber).align(path, "a t͡ʃ ɹ ŋ iː a", is_phones=True)
    assert (result.audio, result.duration) == (str(path), 2.0)
    assert result.text == "a t͡ʃ ɹ ŋ iː a"
    assert [phone.phone for phone in result.phones] == result.text.split()
    assert result.words is None
    assert result.phones[0].start >= 0
    assert result.phones[-1].end <= 2.0
    assert all(phone.start < phone.end and 0 <= phone.score <= 1 for phone in result.phones)
    assert all(left.end <= right.start for left, right in pairwise(result.phones))


def test_words_span_their_phones(transcriber):
    result = Aligner(transcriber).align(babble(1.0), "a t͡ʃ | ɹ a ŋ |", is_phones=True, sample_rate=RATE)
    assert [word.word for word in result.words] == ["at͡ʃ", "ɹaŋ"]
    first, second = result.words
    assert (first.start, first.end) == (result.phones[0].start, result.phones[1].end)
    assert (second.start, second.end) == (result.phones[2].start, result.phones[4].end)
    assert second.score == pytest.approx(np.mean([phone.score for phone in result.phones[2:]]))
    assert result.audio == ""


def test_what_the_transcriber_heard_is_aligned_where_it_heard_it(transcriber):
    waveform = babble(3.0, seed=1)
    heard = transcriber.transcribe(waveform, RATE)
    aligned = Aligner(transcriber).align(waveform, heard.text, is_phones=True, sample_rate=RATE)
    middles = [(phone.start + phone.end) / 2 for phone in heard.phones]
    assert len(aligned.phones) == len(heard.phones) > 10
    inside = [p.start - 0.021 <= m <= p.end + 0.021 for p, m in zip(aligned.phones, middles, strict=True)]
    assert np.mean(inside) > 0.9


def test_a_recording_of_many_windows_is_one_to_the_aligner(transcriber):
    waveform = babble(9.0, seed=2)
    text = " ".join(np.random.default_rng(0).choice(["a", "t͡ʃ", "ɹ", "ŋ"], size=60))
    result = Aligner(transcriber).align(waveform, text, is_phones=True, sample_rate=RATE)
    assert result.text == text
    rows = np.concatenate(list(transcriber.log_probs(waveform, RATE)))
    spans = align(rows, transcriber.vocabulary.encode(text), 0)
    assert [p.score for p in result.phones] == pytest.approx([span.score for span in spans])


def test_a_model_directory_and_letters(tmp_path):
    folder = save_recogniser(tmp_path / "letters", LETTERS)
    result = Aligner(folder).align(babble(2.0), "No one -- None, one!", sample_rate=RATE)
    assert [word.word for word in result.words] == ["No", "one", "None", "one"]
    assert result.text == "No one None one"
    assert "".join(phone.phone for phone in result.phones) == "noonenoneone"


def test_text_goes_through_a_lexicon(transcriber, lexicon):
    result = Aligner(transcriber, phonemizer=lexicon).align(babble(1.0), "Rang: cheese?", sample_rate=RATE)
    assert [word.word for word in result.words] == ["Rang", "cheese"]
    assert result.text == "ɹ a ŋ t͡ʃ iː"


def test_boundaries_of_the_vocabulary_need_not_be_written():
    transcriber = Transcriber(tiny_recogniser(WORD_PHONES), vocabulary=WORD_PHONES)
    result = Aligner(transcriber).align(babble(1.0), "a t | s a", is_phones=True, sample_rate=RATE)
    assert result.text == "a t s a"
    assert [word.word for word in result.words] == ["at", "sa"]


def test_wildcards(transcriber, lexicon):
    aligner = Aligner(transcriber, phonemizer=lexicon, wildcard=True)
    result = aligner.align(babble(2.0), "cheese * zoo 2024 rang", sample_rate=RATE)
    assert [word.word for word in result.words] == ["cheese", "*", "zoo", "2024", "rang"]
    assert result.text == "t͡ʃ iː * * * ɹ a ŋ"
    phones = Aligner(transcriber).align(babble(1.0), "a * ŋ", is_phones=True, sample_rate=RATE)
    assert [phone.phone for phone in phones.phones] == ["a", "*", "ŋ"]


# -- spelling ------------------------------------------------------------------------------------------------


def test_letters_take_the_case_of_the_vocabulary():
    upper = Vocabulary(symbols=("<pad>", "|", "A", "B", "'"), blank=0, word_boundary=1, kind="characters")
    assert Speller(upper).spell_text("a'b\n(Ba-b) * AB") == [
        SpelledWord(word="a'b", tokens=[2, 4, 3]),
        SpelledWord(word="Ba-b", tokens=[3, 2, 3]),
        SpelledWord(word="*", tokens=[WILDCARD]),
        SpelledWord(word="AB", tokens=[2, 3]),
    ]


def test_arpabet_becomes_the_ipa_of_the_vocabulary(tmp_path):
    path = tmp_path / "cmu.dict"
    path.write_text("CHEAP CH IY1 P\n")
    vocabulary = Vocabulary(symbols=("<pad>", "t͡ʃ", "i", "p"), blank=0, kind="phones")
    words = Speller(vocabulary, phonemizer=LexiconPhonemizer(path)).spell_text("cheap")
    assert words == [SpelledWord(word="cheap", tokens=[1, 2, 3])]


class Mumbler:
    """Runs words together, as espeak-ng does."""

    def phones(self, text):
        words = text.split()
        return (
            [["a", "ŋ"]] if words == ["an", "a"] else [["a"] if word == "a" else ["a", "ŋ"] for word in words]
        )


def test_words_that_run_together_are_said_alone():
    words = Speller(PHONES, phonemizer=Mumbler()).spell_text("an a\na")
    assert [(word.word, word.tokens) for word in words] == [("an", [2, 5]), ("a", [2]), ("a", [2])]


# -- what cannot be ------------------------------------------------------------------------------------------


def test_words_that_cannot_be_spelled_are_named(transcriber, letters, lexicon):
    waveform = babble(1.0)
    with pytest.raises(AlignmentError, match=r"^`text` must be .* but '2024', 'Привет' cannot be; write it"):
        Aligner(transcriber, phonemizer=lexicon).align(waveform, "rang 2024 Привет", sample_rate=RATE)
    with pytest.raises(AlignmentError, match=r"'the' cannot be \(not among its symbols: ð ə\); write"):
        Aligner(transcriber, phonemizer=lexicon).align(waveform, "rang the", sample_rate=RATE)
    with pytest.raises(AlignmentError, match=r"'10', 'мир' cannot be \(not among its symbols: 0 1 и м р\)"):
        Aligner(letters).align(waveform, "one 10 мир", sample_rate=RATE)
    with pytest.raises(
        AlignmentError, match=r"`phones` must be .* 'aq' cannot be \(not among its symbols: q\)"
    ):
        Aligner(transcriber).align(waveform, "a q", is_phones=True, sample_rate=RATE)
    many = " ".join(map(str, range(12)))
    with pytest.raises(AlignmentError, match="'9' and 2 more cannot be"):
        Aligner(letters).align(waveform, many, sample_rate=RATE)


def test_a_text_that_does_not_fit_is_told_in_frames_and_seconds(tmp_path, transcriber):
    path = write_babble(tmp_path / "short.wav", 0.5)
    text = " ".join(["a", "a", "ŋ"] * 10)
    with pytest.raises(
        AlignmentError,
        match=r"short\.wav: the recording must have at least 40 frames \(0\.80 s\) for 30 symbols with 10 "
        r"repeats, but has 24 \(0\.50 s\); check",
    ):
        Aligner(transcriber).align(path, text, is_phones=True)
    with pytest.raises(AlignmentError, match=r"`audio`: the recording must have at least 1 frames"):
        Aligner(transcriber).align(babble(0.02), "a", is_phones=True, sample_rate=RATE)


def test_silence_and_no_text_are_refused(tmp_path, transcriber):
    soundfile.write(tmp_path / "still.wav", np.zeros(RATE), RATE)
    with pytest.raises(AlignmentError, match=r"still\.wav: must hold sound, but is silent"):
        Aligner(transcriber).align(tmp_path / "still.wav", "a", is_phones=True)
    with pytest.raises(AlignmentError, match="`text` must hold at least one word or phone, but holds none"):
        Aligner(transcriber).align(babble(1.0), " | ", is_phones=True, sample_rate=RATE)


def test_a_model_of_phones_needs_a_way_to_them(transcriber, letters):
    with pytest.raises(ValueError, match="`phonemizer` must say how text is spoken"):
        Aligner(transcriber).align(babble(1.0), "rang", sample_rate=RATE)
    with pytest.raises(ValueError, match="`phones` must be given to a model that writes phones"):
        Aligner(letters).align(babble(1.0), "n o", is_phones=True, sample_rate=RATE)


def test_samples_need_a_rate_and_files_none(tmp_path, transcriber):
    with pytest.raises(ValueError, match="`sample_rate` must be the rate of the samples in Hz, but is None"):
        Aligner(transcriber).align(babble(1.0), "a", is_phones=True)
    with pytest.raises(ValueError, match=r"`sample_rate` must be None for a file.* but is 16000"):
        Aligner(transcriber).align(tmp_path / "a.wav", "a", is_phones=True, sample_rate=RATE)


def test_the_model_is_left_alone(transcriber):
    before = [parameter.clone() for parameter in transcriber.engine.model.parameters()]
    Aligner(transcriber).align(babble(1.0), "a ŋ", is_phones=True, sample_rate=RATE)
    assert all(map(torch.equal, before, transcriber.engine.model.parameters()))
