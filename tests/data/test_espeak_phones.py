import re
import unicodedata

import pytest

from unispeech.data.espeak_phones import NORMAL, PhoneError, language_of, normalise_phone


@pytest.mark.parametrize(
    ("language", "token", "phones"),
    [
        ("en", "ˈɑːɹ", ["ɑː", "ɹ"]),
        ("en", "əl", ["ə", "l"]),
        ("en", "dʒ", ["d͡ʒ"]),
        ("en", "ᵻ", ["ɪ"]),
        ("fr", "ə-", ["ə"]),
        ("fr", "ɑ̃", ["ɑ̃"]),
        ("it", "ss", ["sː"]),
        ("it", "tsː", ["t͡sː"]),
        ("ky", "t[", ["t̪"]),
        ("ky", "d[", ["d̪"]),
        ("ky", "tS", ["t͡ʃ"]),
        ("ky", "dZ", ["d͡ʒ"]),
        ("ky", "S", ["ʃ"]),
        ("ky", "N", ["ŋ"]),
        ("ky", "l-", ["ɫ"]),
        ("ky", "ˌoe:", ["øː"]),
        ("ky", "X", ["χ"]),
        ("ru", 'u"', ["ʉ"]),
        ("ru", "ɪ^", ["ɪ"]),
        ("ru", "ja", ["j", "a"]),
        ("ru", "ɭʲ", ["lʲ"]),
        ("ru", "tʃʲ", ["t͡ɕ"]),
        ("sv", "sx", ["ɧ"]),
        ("tr", "ɯɯ", ["ɯː"]),
        ("zh", "ts.h", ["ʈ͡ʂʰ"]),
        ("zh", "uəɜ", ["uə"]),
        ("zh", "onɡ5", ["ʊ", "ŋ"]),
        ("de", "ç", ["c\u0327"]),
        ("xx", "ˈ", []),
    ],
)
def test_printed_phones_become_ipa(language: str, token: str, phones: list[str]) -> None:
    assert list(normalise_phone(token, language)) == phones


def test_tables_give_ipa_in_decomposed_form() -> None:
    symbols = [phone for table in NORMAL.values() for target in table.values() for phone in target.split()]
    assert len(symbols) > 40
    for symbol in symbols:
        assert unicodedata.normalize("NFD", symbol) == symbol
        assert not re.search(r"[A-Z0-9g:.\-\[\]^\"']", symbol)
        # What is IPA already stays what it is, but for the tie bar.
        assert "".join(normalise_phone(symbol, "xx")).replace("\u0361", "") == symbol


def test_a_switch_of_language_is_refused() -> None:
    with pytest.raises(PhoneError, match=r"must stay in language fr, but switches: espeak-ng prints \(en\)"):
        normalise_phone("(en)", "fr")


def test_what_is_not_ipa_is_refused() -> None:
    with pytest.raises(PhoneError, match=r"language xx must be IPA, but are not: espeak-ng prints Q\^"):
        normalise_phone("Q^", "xx")


@pytest.mark.parametrize(
    ("voice", "language"), [("en-us", "en"), ("cmn", "zh"), ("fr+f2", "fr"), ("TR", "tr")]
)
def test_language_of_a_voice(voice: str, language: str) -> None:
    assert language_of(voice) == language
