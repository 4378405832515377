"""Vocabularies: what transcripts become and what ids become."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.text import Vocabulary

PHONES = ("h ə l oʊ | w ɜː l d", "t͡ʃ aː n", "t͡s a ɪ aɪ")


def phones(*symbols, **fields):
    return Vocabulary(symbols=("<pad>", *symbols), blank=0, kind="phones", **fields)


class TestBuilding:
    def test_phones(self):
        vocabulary = Vocabulary.build(PHONES, kind="phones")
        assert vocabulary.symbols[:2] == ("<pad>", "|")
        assert list(vocabulary.symbols[2:]) == sorted({
            "h",
            "ə",
            "l",
            "oʊ",
            "w",
            "ɜː",
            "d",
            "t͡ʃ",
            "aː",
            "n",
            "t͡s",
            "a",
            "ɪ",
            "aɪ",
        })
        assert (vocabulary.blank, vocabulary.word_boundary, vocabulary.unknown) == (0, 1, None)
        assert vocabulary.special == {0}
        assert len(vocabulary) == 16

    def test_phones_without_boundaries(self):
        assert Vocabulary.build(["a b"], kind="phones").word_boundary is None
        assert Vocabulary.build(["a | b"], kind="phones", word_boundary=False).symbols == ("<pad>", "a", "b")
        assert Vocabulary.build(["a b"], kind="phones", word_boundary=True).word_boundary == 1

    def test_characters_always_have_a_boundary(self):
        vocabulary = Vocabulary.build(["Zug um Zug", "é"], kind="characters")
        assert vocabulary.symbols == ("<pad>", "|", "Z", "g", "m", "u", "é")

    def test_both_unicode_forms_are_one_symbol(self):
        forms = [unicodedata.normalize(form, "ã") for form in ("NFC", "NFD")]
        assert Vocabulary.build(forms, kind="phones").symbols == ("<pad>", forms[1])
        assert Vocabulary.build(forms, kind="characters").symbols == ("<pad>", "|", forms[0])

    def test_language_tags(self):
        vocabulary = Vocabulary.build(["a | b", "a"], kind="phones", languages=["en", "de"])
        assert vocabulary.symbols == ("<pad>", "|", "(de)a", "(en)a", "(en)b")
        assert vocabulary.languages == ("de", "en")
        assert Vocabulary.build(["a b"], kind="phones").languages == ()

    @given(st.permutations(PHONES))
    def test_order_does_not_matter(self, transcripts):
        assert Vocabulary.build(transcripts, kind="phones") == Vocabulary.build(PHONES, kind="phones")

    def test_nothing_to_collect(self):
        with pytest.raises(
            ValueError, match="`transcripts` must hold at least one symbol, but hold none in 2"
        ):
            Vocabulary.build(["", " | "], kind="phones")

    @pytest.mark.parametrize(("kind", "languages"), [("phones", ["en"]), ("characters", ["en", "de"])])
    def test_languages_that_do_not_fit(self, kind, languages):
        with pytest.raises(ValueError, match=rf"`languages` must name .* but are {len(languages)} for 2 tr"):
            Vocabulary.build(["a", "b"], kind=kind, languages=languages)

    def test_symbols_twice(self):
        with pytest.raises(ValueError, match="`symbols` must be distinct and not empty, but hold 'a' twice"):
            phones("a", "b", "a")
        with pytest.raises(ValueError, match="`symbols` must be distinct and not empty, but hold '' twice"):
            phones("")
        with pytest.raises(ValueError, match="'<pad>' twice"):
            Vocabulary.build(["a <pad>"], kind="phones")

    @pytest.mark.parametrize("field", ["unknown", "word_boundary"])
    def test_ids_outside(self, field):
        with pytest.raises(ValueError, match="`symbols` must have one for every id, but are 2 and none is 5"):
            phones("a", **{field: 5})


class TestSegmenting:
    def test_separated_phones(self):
        vocabulary = Vocabulary.build(PHONES, kind="phones")
        assert vocabulary.segment(" h ə l  oʊ | w ɜː l d ") == PHONES[0].split()

    def test_unseparated_phones_by_longest_match(self):
        vocabulary = Vocabulary.build(PHONES, kind="phones")
        assert vocabulary.segment("t͡ʃaːn|".replace("|", " | ") + "haɪ") == ["t͡ʃ", "aː", "n", "|", "h", "aɪ"]

    def test_a_longest_match_gives_way_where_it_strands_the_rest(self):
        assert phones("a", "ab", "bc").segment("abc") == ["a", "bc"]

    def test_a_base_is_never_taken_without_its_marks(self):
        nasal = unicodedata.normalize("NFD", "ã")
        assert phones("a", "n").segment("n" + nasal + "n") == ["n", nasal, "n"]
        assert phones("t", "ʃ").segment("t͡ʃ") == ["t͡ʃ"]

    def test_marks_that_are_symbols_are_split_off(self):
        assert phones("a", "ː").segment("aː") == ["a", "ː"]

    def test_known_symbols_around_an_unknown_one(self):
        assert phones("aɪ", "n", "d").segment("naɪʘʰd") == ["n", "aɪ", "ʘʰ", "d"]

    def test_the_spelling_of_the_vocabulary_is_kept(self):
        composed = unicodedata.normalize("NFC", "ç")
        assert phones(composed).segment(unicodedata.normalize("NFD", "ç")) == [composed]
        assert phones(composed).encode(composed + composed) == [1, 1]

    def test_of_two_equal_symbols_the_first_is_written(self):
        both = [unicodedata.normalize(form, "ã") for form in ("NFC", "NFD")]
        assert phones(*both).encode(both[1]) == [1]

    def test_boundaries_are_left_out_where_there_are_none(self):
        assert phones("a", "b").segment("| a | b |") == ["a", "b"]
        assert phones("|", "a", "b", word_boundary=1).segment("| a | | b |") == ["a", "|", "b"]

    def test_a_boundary_of_another_name(self):
        vocabulary = phones("#", "a", word_boundary=1)
        assert vocabulary.segment("a # a | a") == ["a", "#", "a", "#", "a"]

    def test_characters(self):
        vocabulary = Vocabulary.build(["ab éc"], kind="characters")
        assert vocabulary.segment("  ab \t be\u0301 ") == ["a", "b", "|", "b", "é"]
        assert vocabulary.encode("c a") == [4, 1, 2]

    def test_characters_of_several_letters(self):
        vocabulary = Vocabulary(symbols=("<pad>", "c", "ch", "h"), blank=0, kind="characters")
        assert vocabulary.segment("chhc") == ["ch", "h", "c"]

    def test_tags_are_put_before_phones(self):
        vocabulary = Vocabulary.build(["a b", "a"], kind="phones", languages=["en", "de"])
        assert vocabulary.segment("ab", language="en") == ["(en)a", "(en)b"]
        assert vocabulary.segment("ab", language="de") == ["(de)a", "(de)b"]
        assert vocabulary.segment("(en)a (de)a", language="de") == ["(en)a", "(de)a"]
        assert phones("a").segment("a", language="en") == ["a"]
        composed, decomposed = (unicodedata.normalize(form, "(de)ç") for form in ("NFC", "NFD"))
        assert phones(composed).segment(decomposed) == [composed]

    def test_a_language_that_is_not_there(self):
        vocabulary = Vocabulary.build(["a", "a"], kind="phones", languages=["eng", "deu"])
        with pytest.raises(
            ValueError, match="`language` must be one of deu, eng, but is 'en'; did you mean 'e"
        ):
            vocabulary.encode("a", language="en")

    @given(st.lists(st.sampled_from(["t", "t͡ʃ", "ʃ", "a", "aː", "aɪ", "ɪ"]), max_size=12))
    @settings(deadline=None)
    def test_segments_join_to_the_text(self, units):
        vocabulary = Vocabulary.build(["t t͡ʃ ʃ a aː aɪ ɪ"], kind="phones")
        assert "".join(vocabulary.segment("".join(units))) == "".join(units)
        assert vocabulary.segment(" ".join(units)) == units

    @given(st.text(max_size=30), st.sampled_from(["phones", "characters"]))
    @settings(deadline=None)
    def test_any_text_can_be_cut(self, text, kind):
        vocabulary = Vocabulary.build(["a b ɪː"], kind=kind)
        units = vocabulary.segment(text)
        assert all(units)
        assert all(unit in vocabulary.symbols for unit in units if set(unit) <= set("ab"))


class TestCoding:
    @given(st.lists(st.sampled_from(PHONES), max_size=4))
    def test_decoding_undoes_encoding(self, transcripts):
        vocabulary = Vocabulary.build(PHONES, kind="phones")
        text = " | ".join(transcripts)
        symbols = vocabulary.decode(vocabulary.encode(text))
        assert symbols == text.split()
        assert vocabulary.join(symbols) == " ".join(text.replace("|", " ").split())

    def test_characters_are_joined_with_spaces(self):
        vocabulary = Vocabulary.build(["guten tag"], kind="characters")
        assert vocabulary.join(vocabulary.decode(vocabulary.encode("tag guten"))) == "tag guten"

    def test_special_symbols_are_never_printed_and_never_encoded(self):
        vocabulary = phones("a", "<s>", "<unk>", unknown=3, special=frozenset({2}))
        assert vocabulary.special == {0, 2, 3}
        assert vocabulary.decode([0, 1, 2, 3, 1]) == ["a", "a"]
        with pytest.raises(ValueError, match="symbols of the vocabulary only, but holds '<'"):
            vocabulary.encode("a <s>")
        with pytest.raises(ValueError, match="symbols of the vocabulary only, but holds '#'"):
            phones("a", "#", special=frozenset({2})).encode("a #")

    def test_unknown_symbols_are_named(self):
        with pytest.raises(ValueError, match=r"symbols of the vocabulary only, but holds 'b', 'ʘː'\."):
            phones("a").encode("a b ʘː b")
        with pytest.raises(ValueError, match=r"but holds 'h', 'i'; did you mean 'H'\?"):
            Vocabulary.build(["HI"], kind="characters").encode("hi")
        with pytest.raises(ValueError, match=r"'j' and more\."):
            phones("z").encode("a b c d e f g h i j k")

    def test_a_tagged_vocabulary_asks_for_the_language(self):
        vocabulary = Vocabulary.build(["a", "b"], kind="phones", languages=["en", "de"])
        with pytest.raises(ValueError, match="but holds 'a'; give `language`, one of de, en"):
            vocabulary.encode("a")

    @pytest.mark.parametrize("index", [-1, 2])
    def test_ids_outside_the_head(self, index):
        with pytest.raises(ValueError, match=rf"`ids` must lie in \[0, 2\), but hold {index}\."):
            phones("a").decode([1, index])
