"""What espeak-ng prints for a phone -> International Phonetic Alphabet.

The policy, for every language:

* Stress marks and tones are dropped, length marks (U+02D0) kept.
* An affricate is written with a tie bar (U+0361), as in `unispeech.phones.ARPABET_TO_IPA`; a diphthong is one
  symbol of two vowels without one. Everything is in Unicode's decomposed form (NFD).
* A vowel that espeak-ng fuses with what follows it (English "or", "-le", "fire") is two phones.
* A letter that espeak-ng uses in another sense than the IPA is replaced, by language.
* What is still not IPA is refused, never passed on.
"""

import re
import unicodedata

LENGTH = "\u02d0"
"""The IPA length mark."""

TIE = "\u0361"
"""The IPA tie bar, between the letters of an affricate."""

# One printed phone is one sound, so a stop before a fricative in it makes an affricate.
_AFFRICATE = re.compile("([tdʈɖpbcɟkɡq]\u032a?)([szʃʒɕʑʂʐfvxɣχʁθð])")
_REGION = re.compile("[a-z]{2,3}-[A-Z]{2}")
_STRESS = re.compile("[\u02c8\u02cc]")
_TONE = {"zh": re.compile("[1-5ɜ]+$")}
_ANY_TONE = re.compile("[0-9]+$")

_LETTERS = frozenset(
    "abcdefhijklmnopqrstuvwxyz"  # g is U+0261 in the IPA
    "ɑɐɒæɓʙβɔɕɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃ"
)
_MARKS = frozenset(LENGTH + "ˑʲʰʷˠˤⁿˡ˞ʼ")

_ANY_LANGUAGE = {
    "S": "ʃ", "Z": "ʒ", "N": "ŋ", "tS": "tʃ", "dZ": "dʒ", "t[": "t̪", "d[": "d̪", "g": "ɡ",
}  # fmt: skip

NORMAL: dict[str, dict[str, str]] = {
    "de": {"ɜ": "ɐ", "ɾ": "ʁ", "r": "ʁ", "ɔø": "ɔʏ", "ʊɐ": "ʊ ɐ"},
    "en": {
        "ᵻ": "ɪ", "r": "ɹ", "ɡʲ": "ɡ", "əl": "ə l", "iə": "i ə", "aɪə": "aɪ ə", "aɪɚ": "aɪ ɚ",
        "ɔːɹ": "ɔː ɹ", "ɑːɹ": "ɑː ɹ", "ʊɹ": "ʊ ɹ", "ɛɹ": "ɛ ɹ", "ɪɹ": "ɪ ɹ",
    },
    "fr": {"ə-": "ə", "e-": "e", "a-": "a", "y-": "y"},
    "it": {"ss": "sː"},
    "ky": {"oe": "ø", "l-": "ɫ", "X": "χ"},
    "ru": {
        "y": "ɨ", 'u"': "ʉ", "ɪ^": "ɪ", "ja": "j a", "ju": "j u", "ɭ": "ɫ", "ɭʲ": "lʲ", "tʃʲ": "tɕ",
        "dʒʲ": "dʑ",
    },
    "sv": {"sx": "ɧ"},
    "tr": {"ɯɯ": "ɯː"},
    "zh": {
        "th": "tʰ", "kh": "kʰ", "ph": "pʰ", "tsh": "tsʰ", "tɕh": "tɕʰ", "ts.": "ʈʂ", "ts.h": "ʈʂʰ", "s.": "ʂ",
        "χ": "x", "o-": "ɤ", "i.": "ʐ̩", "i̪": "z̩", "onɡ": "ʊ ŋ", "yæ": "yɛ", "ər": "ɚ",
    },
}  # fmt: skip
"""Language -> what espeak-ng prints -> IPA; a space parts two phones. Symbols not listed are IPA already."""

_ALIASES = {"cmn": "zh"}


class PhoneError(ValueError):
    """A text has no phones in its language: espeak-ng switches language in it, or prints what is not IPA."""


def language_of(voice: str) -> str:
    """Return the language whose symbols a voice uses.

    Args:
        voice: A language code or voice name of espeak-ng: "en", "en-us", "cmn".

    Returns:
        The two- or three-letter code that `NORMAL` is keyed by.
    """
    base = voice.split("-")[0].split("+")[0].lower()
    return _ALIASES.get(base, base)


def without_region(tag: str) -> str:
    """Take the region off a language tag.

    Args:
        tag: `sv-SE` and `zh-CN`, as Common Voice names languages, or any other name.

    Returns:
        The language of such a tag; any other name as it is.
    """
    return tag[:-3] if _REGION.fullmatch(tag) else tag


def without_stress(token: str) -> str:
    """Drop the marks of main and secondary stress.

    Args:
        token: What espeak-ng prints for a phone.

    Returns:
        The token without them; it may be empty.
    """
    return _STRESS.sub("", token)


def normalise_phone(token: str, language: str) -> tuple[str, ...]:
    """Turn one printed phone into IPA.

    Args:
        token: What espeak-ng prints between two separators, not empty.
        language: Code as `language_of` gives it; a language without a table gets the common rules.

    Returns:
        One phone; two where espeak-ng fuses them; none where the token is only a tone or a stress mark.

    Raises:
        PhoneError: If the token marks a switch of language or has a character outside the IPA.
    """
    if "(" in token:
        raise PhoneError(f"text must stay in language {language}, but switches: espeak-ng prints {token}")
    symbol = without_stress(token).replace(":", LENGTH)
    symbol = _TONE.get(language, _ANY_TONE).sub("", symbol)
    symbol = unicodedata.normalize("NFD", symbol)
    table = _ANY_LANGUAGE | NORMAL.get(language, {})
    base = symbol.rstrip(LENGTH)
    if symbol in table:
        symbol = table[symbol]
    elif base in table:
        symbol = table[base] + symbol[len(base) :]
    strange = [character for character in symbol if not _is_ipa(character) and character != " "]
    if strange:
        raise PhoneError(f"phones of language {language} must be IPA, but are not: espeak-ng prints {token}")
    return tuple(_AFFRICATE.sub(f"\\1{TIE}\\2", phone) for phone in symbol.split())


def _is_ipa(character: str) -> bool:
    """Tell whether a character is an IPA letter, modifier or combining mark."""
    return character in _LETTERS or character in _MARKS or unicodedata.category(character) == "Mn"
