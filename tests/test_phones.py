"""IPA cut into phones, ARPAbet as IPA, and the forms in which corpora write phones."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.phones import (
    ARPABET_TO_IPA,
    arpabet_to_ipa,
    clusters,
    longest_match,
    nearest,
    phones_by_word,
    segment_ipa,
    split_tag,
)


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("t͡ʃaːn", "t͡ʃ aː n"),
        ("θamaːnija", "θ a m aː n i j a"),
        ("pʰat͜sʲ", "pʰ a t͜sʲ"),
        ("ˈhɛləʊ.ˌwɜːld", "h ɛ l ə ʊ w ɜː l d"),
        ("ma˥˩ ma51 ma⁵¹", "m a˥˩ m a51 m a⁵¹"),
        ("bɔ̃ʒuʁ", "b ɔ̃ ʒ u ʁ"),
        ("kʼǃaː̃", "kʼ ǃ aː̃"),
        ("ⁿdaⁿda", "ⁿd aⁿ d a"),
        ("t\u200dʃa", "t\u200dʃ a"),
        ("ˈʰpaˌʰta", "ʰp a ʰt a"),
        ("k͡pa ɡ͡ba", "k͡p a ɡ͡b a"),
        ("a:g", "aː ɡ"),
        ("ɚ˞ vaɪ̯s", "ɚ˞ v a ɪ̯ s"),
        ("", ""),
    ],
)
def test_ipa_is_cut_around_its_base_letters(text, phones):
    assert segment_ipa(text) == unicodedata.normalize("NFD", phones).split()


def test_both_unicode_forms_are_cut_alike():
    assert segment_ipa(unicodedata.normalize("NFC", "ãç")) == segment_ipa(unicodedata.normalize("NFD", "ãç"))
    assert len(segment_ipa("ãç")) == 2


@given(st.text(max_size=20).map(lambda text: "".join(text.split())))
def test_clusters_leave_nothing_out(word):
    assert "".join(clusters(word)) == word


@given(st.lists(st.sampled_from(["t", "t͡ʃ", "aː", "ɔ̃", "pʰ", "ɪ"]), max_size=8))
def test_phones_are_found_again(phones):
    assert segment_ipa("".join(phones)) == [unicodedata.normalize("NFD", phone) for phone in phones]


def brute_cuts(word, inventory):
    """Every way to cut a word into symbols, longest symbols first."""
    if not word:
        return [[]]
    heads = [symbol for symbol in sorted(inventory, key=len, reverse=True) if word.startswith(symbol)]
    return [[head, *rest] for head in heads for rest in brute_cuts(word[len(head) :], inventory)]


@given(st.text("abc", max_size=7), st.sets(st.text("abc", min_size=1, max_size=3), max_size=5))
def test_the_longest_match_is_the_first_of_all_cuts(word, inventory):
    cuts = brute_cuts(word, inventory)
    found = longest_match(list(word), dict.fromkeys(inventory))
    assert "".join(found) == word
    if cuts:
        assert found == cuts[0]


def test_arpabet_has_39_phones_and_distinct_ipa():
    assert len(ARPABET_TO_IPA) == len(set(ARPABET_TO_IPA.values())) == 39
    assert arpabet_to_ipa(["HH", "AH0", "L", "OW1", "JH"]) == ["h", "ʌ", "l", "oʊ", "d͡ʒ"]


def test_an_unknown_arpabet_symbol_is_named():
    with pytest.raises(
        ValueError, match=r"`phones` must be ARPAbet symbols, but hold 'aa1'; did you mean 'AA'"
    ):
        arpabet_to_ipa(["B", "aa1"])


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (["S OW0", "HH AA0 R D"], [["S", "OW0"], ["HH", "AA0", "R", "D"]]),
        (["AY1"], [["AY1"]]),
        (["haɪ", "ðɛɹ"], [["h", "a", "ɪ"], ["ð", "ɛ", "ɹ"]]),
        ("θamaːnija", [["θ", "a", "m", "aː", "n", "i", "j", "a"]]),
        ("h aɪ | ð ɛ ɹ", [["h", "aɪ"], ["ð", "ɛ", "ɹ"]]),
        ("OW1", [["OW1"]]),
        ("", []),
        ([], []),
    ],
)
def test_every_form_of_the_phones_of_an_utterance(field, words):
    assert phones_by_word(field) == words


def test_language_tags_come_off():
    assert split_tag("(en)aː") == ("en", "aː")
    assert split_tag("(zh-CN)a") == ("zh-CN", "a")
    assert [split_tag(symbol) for symbol in ("a", "(", "(en)")] == [(None, "a"), (None, "("), (None, "(en)")]


def test_the_nearest_name():
    assert nearest("lexcon", ["lexicon", "espeak"]) == "; did you mean 'lexicon'?"
    assert nearest("x", ["lexicon"]) == "."


@pytest.mark.shared_data
def test_every_shared_phone_can_be_read(shared_dir):
    lines = (shared_dir / "data" / "speech" / "manifest.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if "phones" in entry and "pinyin" not in entry]
    assert {entry["dataset"] for entry in entries} == {"speechocean762", "arabic-speech-commands"}
    for entry in entries:
        words = phones_by_word(entry["phones"])
        if entry["dataset"] == "speechocean762":
            assert len(words) == len(entry["phones"])
            arpabet_to_ipa([phone for word in words for phone in word])
        else:
            assert all(unicodedata.category(phone[0]) in {"Ll", "Lo"} for phone in words[0]), entry["phones"]
