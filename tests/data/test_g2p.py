"""Phones from text: lexicon, epitran, espeak-ng; what cannot be said is named."""

import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.data.g2p import (
    EpitranPhonemizer,
    LexiconPhonemizer,
    UnknownWordError,
    join_words,
    open_phonemizer,
    phones_from_text,
    split_words,
)
from unispeech.errors import ManifestError

CMUDICT = """\
;;; a comment
HELLO  HH AH0 L OW1
HELLO(1)  HH EH0 L OW1
READ  R EH1 D
READ  R IY1 D
DON'T  D OW1 N T
WELL  W EH1 L # a comment

KNOWN  N OW1 N
"""


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(CMUDICT, encoding="utf-8")
    return path


def test_words_are_looked_up(lexicon):
    said = LexiconPhonemizer(lexicon).phones("Hello -- don\u2019t read!")
    assert said == [["HH", "AH0", "L", "OW1"], ["D", "OW1", "N", "T"], ["R", "EH1", "D"]]


def test_hyphenated_words_are_said_by_their_parts(lexicon):
    assert LexiconPhonemizer(lexicon).phones("well-known") == [["W", "EH1", "L", "N", "OW1", "N"]]
    lexicon.write_text(CMUDICT + "well-known W\n", encoding="utf-8")
    assert LexiconPhonemizer(lexicon).phones("Well-Known") == [["W"]]


def test_tabs_and_both_unicode_forms(tmp_path):
    (tmp_path / "de.tsv").write_text("stra\u00dfe\tʃ t ʁ aː s ə\nu\u0308bel\tyː b ə l\n", encoding="utf-8")
    said = LexiconPhonemizer(tmp_path / "de.tsv").phones("Straße \u00dcbel")
    assert said == [["ʃ", "t", "ʁ", "aː", "s", "ə"], ["yː", "b", "ə", "l"]]


def test_a_dictionary_of_mfa_has_probabilities(tmp_path):
    """Its numbers are no phones, and a byte order mark is no letter."""
    path = tmp_path / "mfa.dict"
    path.write_text("\ufeffhello\t0.99\t0.2\t1.0\t1.5e-05\th ə l oʊ\nworld\tw 1 l d\n", encoding="utf-8")
    assert LexiconPhonemizer(path).phones("hello world") == [["h", "ə", "l", "oʊ"], ["w", "1", "l", "d"]]
    path.write_text("hello\t0.99\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"mfa\.dict:1: `hello` must be followed by its phones"):
        LexiconPhonemizer(path)


def test_unknown_words_are_named(lexicon):
    with pytest.raises(
        UnknownWordError, match=r"lexicon\.txt can say, but holds 'zorb', '12'; add them to"
    ) as e:
        LexiconPhonemizer(lexicon).phones("zorb hello 12, zorb")
    assert e.value.words == ("zorb", "12")


def test_at_most_ten_unknown_words_of_all_texts_are_named(lexicon):
    texts = [f"hello a{i} b{i}" for i in range(6)]
    with pytest.raises(UnknownWordError, match=r"'a0', 'b0', .*'a4', 'b4' and 2 more; add them") as caught:
        phones_from_text(texts, method="lexicon", lexicon=lexicon)
    assert len(caught.value.words) == 12


def test_a_word_without_phones(tmp_path):
    (tmp_path / "bad.txt").write_text("a ɑ\n\nbanana\n", encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"bad\.txt:3: `banana` must be followed by its phones, but stands"
    ):
        LexiconPhonemizer(tmp_path / "bad.txt")


def test_an_empty_lexicon(tmp_path):
    (tmp_path / "bad.txt").write_text(";;; nothing\n", encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"bad\.txt: must hold a word and its phones per line, but holds no"
    ):
        LexiconPhonemizer(tmp_path / "bad.txt")


def test_a_lexicon_in_another_encoding(tmp_path):
    (tmp_path / "bad.txt").write_bytes("über y\n".encode("latin-1"))
    with pytest.raises(
        ManifestError, match=r"bad\.txt: must be UTF-8 text, but is not \(invalid start byte\)"
    ):
        LexiconPhonemizer(tmp_path / "bad.txt")


def test_no_lexicon(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.txt: there is no such lexicon; check the path"):
        LexiconPhonemizer(tmp_path / "gone.txt")


def test_texts_become_rows_of_phones(lexicon):
    texts = ["Hello.", "", "well, read"]
    rows = phones_from_text(texts, method="lexicon", lexicon=lexicon)
    assert rows == [["HH", "AH0", "L", "OW1"], [], ["W", "EH1", "L", "R", "EH1", "D"]]
    rows = phones_from_text(texts, method="lexicon", lexicon=lexicon, word_boundary=True)
    assert rows[2] == ["W", "EH1", "L", "|", "R", "EH1", "D"]


def test_boundaries_stand_between_words_only():
    assert join_words([[], ["a"], [], ["b", "c"], []], word_boundary=True) == ["a", "|", "b", "c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Guten Tag, Welt!", ["Guten", "Tag", "Welt"]),
        ("l\u2019homme \u2018ici\u2019", ["l'homme", "ici"]),
        ("Weißenburg-Gunzenhausen - - 3,5 %", ["Weißenburg-Gunzenhausen", "3", "5"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("a\u2014b…c/d", ["a", "b", "c", "d"]),
        ("u\u0308ber", ["\u00fcber"]),
        (" ... ", []),
    ],
)
def test_words_of_a_text(text, words):
    assert split_words(text) == words


@given(st.text(max_size=40))
def test_words_hold_no_space_and_no_punctuation_at_their_ends(text):
    for word in split_words(text):
        assert word == word.strip(" '-")
        assert split_words(word) == [word]


@pytest.fixture(scope="module")
def german():
    pytest.importorskip("epitran", reason="epitran (extra g2p) is not installed")
    return EpitranPhonemizer("de")  # takes seconds to read its tables


class TestEpitran:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("epitran", reason="epitran (extra g2p) is not installed")

    def test_german_is_spelt_out(self, german):
        assert german.phones("Tag, ja: Schön!") == [["t", "aː", "k"], ["j", "aː"], ["ʃ", "øː", "n"]]

    def test_codes_of_epitran_are_taken(self, monkeypatch):
        class Rules:
            def __init__(self, code):
                self.code = code

            def transliterate(self, word):
                return f"{word}{self.code[0]}"

            strict_trans = transliterate

        monkeypatch.setattr("epitran.Epitran", Rules)
        assert phones_from_text(["ab ab"], method="epitran", language="yor-Latn") == [["a", "b", "y"] * 2]

    def test_what_rules_cannot_say_is_named(self, german):
        with pytest.raises(
            UnknownWordError, match="that epitran in deu-Latn can say, but holds '12'; add them"
        ):
            german.phones("am 12 Mai")

    def test_an_unknown_language(self):
        with pytest.raises(
            ValueError, match=r"`language` must be one of ar, de, .* but is 'deu-Lat'; did you mea"
        ):
            EpitranPhonemizer("deu-Lat")

    def test_english_needs_flite(self, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda _: None)
        with pytest.raises(
            ImportError, match="epitran needs flite's program `lex_lookup` for English, but it is"
        ):
            EpitranPhonemizer("en")


class FakeEpitran(ModuleType):
    """epitran as far as it is used: its tables' names, and rules that know no hyphen."""

    def __init__(self, folder):
        super().__init__("epitran")
        self.__file__ = str(folder / "__init__.py")
        (folder / "data" / "map").mkdir(parents=True)
        for code in ("deu-Latn", "tur-Latn", "swe-Latn"):
            (folder / "data" / "map" / f"{code}.csv").touch()

    class Epitran:
        def __init__(self, code):
            pass

        def transliterate(self, word):
            return word.lower().replace("x", "ɡz")

        def strict_trans(self, word):
            # As epitran: what a rule writes that no table has is left out, too.
            return "".join(letter for letter in word.lower() if letter.isascii() and letter not in "kx")


@pytest.mark.parametrize("word", ["Ab-Ba", "Ab--Ba", "Ab\u2010Ba"])
def test_epitran_says_hyphenated_words_by_their_parts(monkeypatch, tmp_path, word):
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    said = EpitranPhonemizer("de").phones(f"a {word} b")
    assert said == [["a"], ["a", "b", "b", "a"], ["b"]]


def test_a_part_that_epitran_cannot_say_makes_the_word_unknown(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    with pytest.raises(UnknownWordError, match=r"can say, but holds 'ab-12'; add them"):
        EpitranPhonemizer("de").phones("a ab-12")


@pytest.mark.parametrize("word", ["東京", "привет", "b\u00e9b\u00e9", "task"])
def test_a_letter_that_epitran_does_not_know_is_no_phone(monkeypatch, tmp_path, word):
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    with pytest.raises(UnknownWordError, match=f"can say, but holds '{word}'; add them"):
        EpitranPhonemizer("de").phones(f"ab {word}")


def test_what_a_rule_of_epitran_writes_by_itself_is_a_phone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    assert EpitranPhonemizer("de").phones("fix") == [["f", "i", "ɡ", "z"]]


def test_turkish_has_two_letters_i(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    monkeypatch.setattr(FakeEpitran.Epitran, "strict_trans", FakeEpitran.Epitran.transliterate)
    assert EpitranPhonemizer("tr").phones("\u0130I") == [["i", "\u0131"]]


def test_a_language_may_bear_its_region(monkeypatch, tmp_path):
    """Common Voice calls Swedish sv-SE."""
    monkeypatch.setitem(sys.modules, "epitran", FakeEpitran(tmp_path))
    assert EpitranPhonemizer("sv-SE").phones("ab") == [["a", "b"]]


def test_epitran_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "epitran", None)
    with pytest.raises(
        ImportError, match=r"need the extra `g2p`; install it with: pip install 'unispeech\[g2p"
    ):
        EpitranPhonemizer("de")


def espeak_or_skip():
    espeak = pytest.importorskip("unispeech.data.espeak", reason="no module unispeech.data.espeak")
    try:
        espeak.EspeakProcess("en").close()
    except ImportError as error:
        pytest.skip(f"espeak-ng (extra espeak) is not installed: {error}")


def test_espeak_reads_texts_out():
    espeak_or_skip()
    rows = phones_from_text(["Hello 2.", "go"], method="espeak", language="en", word_boundary=True)
    assert rows[0].count("|") == 1
    assert rows[0][0] == "h"
    assert rows[1] == ["ɡ", "oʊ"]


def test_espeak_is_never_loaded_into_our_process():
    espeak_or_skip()
    script = (
        "from unispeech.data.g2p import phones_from_text\n"
        "phones_from_text(['hello'], method='espeak', language='en')\n"
        "print('espeak-ng' in open('/proc/self/maps').read())"
    )
    if sys.platform != "linux":
        pytest.skip("only Linux lists the libraries of a process")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            {"method": "lexikon"},
            r"`method` must be one of lexicon, epitran, espeak, but is 'lexikon'; did you me",
        ),
        (
            {"method": "lexicon"},
            r"`lexicon` must be the path of a lexicon where `method` is lexicon, but is None",
        ),
        ({"method": "epitran"}, r"`language` must be given where `method` is epitran, but is None"),
        ({"method": "espeak"}, r"`language` must be given where `method` is espeak, but is None"),
    ],
)
def test_what_a_method_needs(arguments, line):
    with pytest.raises(ValueError, match=line), open_phonemizer(**arguments):
        pass
