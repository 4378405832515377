"""Phone strings: IPA cut into phones, ARPAbet turned into IPA, and the forms in which corpora write phones.

A phone is one unit of a vocabulary: a base letter with everything that belongs to it (t, t with a tie bar and
esh, a with a length mark). IPA strings are compared in Unicode's decomposed form (NFD), because
there a diacritic is a character of its own behind its base, whether or not Unicode happens to have a
precomposed letter for the pair: a-tilde exists as one code point, open-o-tilde does not, and both must be cut
alike.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

Kind = Literal["phones", "characters"]
"""What a vocabulary's symbols are."""

WORD_BOUNDARY = "|"
"""The token between two words, in phone strings and in published vocabularies."""

TIES = frozenset("\u0361\u035c\u0362\u200d")
"""What binds the next base letter: the two tie bars, the double arrow, espeak's zero-width joiner."""

STRESS = frozenset("\u02c8\u02cc")
"""Primary and secondary stress: they stand before a syllable and belong to no phone."""

PROSODY = STRESS | frozenset(".\u203f\u2016")
"""What is left out of phones: stress, the syllable dot, the linking mark, the major group mark."""

LOOKALIKES = str.maketrans({"g": "\u0261", ":": "\u02d0"})
"""Keyboard characters that are commonly typed for an IPA letter: script g and the length mark."""

ARPABET_TO_IPA = {
    "AA": "ɑ",
    "AE": "æ",
    "AH": "ʌ",
    "AO": "ɔ",
    "AW": "aʊ",
    "AY": "aɪ",
    "B": "b",
    "CH": "t͡ʃ",
    "D": "d",
    "DH": "ð",
    "EH": "ɛ",
    "ER": "ɝ",
    "EY": "eɪ",
    "F": "f",
    "G": "ɡ",
    "HH": "h",
    "IH": "ɪ",
    "IY": "i",
    "JH": "d͡ʒ",
    "K": "k",
    "L": "l",
    "M": "m",
    "N": "n",
    "NG": "ŋ",
    "OW": "oʊ",
    "OY": "ɔɪ",
    "P": "p",
    "R": "ɹ",
    "S": "s",
    "SH": "ʃ",
    "T": "t",
    "TH": "θ",
    "UH": "ʊ",
    "UW": "u",
    "V": "v",
    "W": "w",
    "Y": "j",
    "Z": "z",
    "ZH": "ʒ",
}
"""The 39 phones of CMUdict and speechocean762. AH is one phone whatever its stress: speechocean762 writes
stress 0 almost everywhere, so that AH0 there does not mean schwa."""

_TAG = re.compile(r"\(([^()\s]+)\)(.+)", re.DOTALL)


def arpabet_to_ipa(phones: Sequence[str]) -> list[str]:
    """Turn ARPAbet phones into IPA.

    Args:
        phones: ARPAbet symbols in capitals, with or without a stress digit, which is dropped.

    Returns:
        As many IPA phones; diphthongs and affricates stay one phone.

    Raises:
        ValueError: If a symbol is none of the 39.
    """
    bare = [phone.rstrip("012") for phone in phones]
    for phone, symbol in zip(phones, bare, strict=True):
        if symbol not in ARPABET_TO_IPA:
            raise ValueError(
                f"`phones` must be ARPAbet symbols, but hold {phone!r}{nearest(symbol, ARPABET_TO_IPA)}"
            )
    return [ARPABET_TO_IPA[symbol] for symbol in bare]


def segment_ipa(text: str) -> list[str]:
    """Cut an IPA string into phones by Unicode categories, without an inventory.

    A phone is a base letter and what follows it: combining marks, modifier letters (length, aspiration,
    palatalisation), tone letters and tone digits. A tie bar joins the next base letter. Diphthongs that are
    written without a tie bar come out as two vowels. Stress, syllable dots and linking marks are left out;
    keyboard `g` and `:` become the IPA letters that they stand for.

    Args:
        text: IPA; whitespace separates phones and is dropped.

    Returns:
        The phones in NFD.
    """
    words = unicodedata.normalize("NFD", text.translate(LOOKALIKES)).split()
    return [unit for word in words for unit in clusters(word) if unit not in PROSODY]


def clusters(word: str) -> list[str]:
    """Group the characters of a word around their base letters; nothing is left out.

    Args:
        word: Text without whitespace, in NFD or NFC.

    Returns:
        Units that give `word` when joined. A stress mark is a unit of its own; marks before the first base
        letter belong to that letter.
    """
    units: list[str] = []
    is_open = False  # the last unit still waits for its base letter
    for character in word:
        if units and units[-1] not in PROSODY and (is_open or _follows(character)):
            units[-1] += character
        else:
            units.append(character)
        is_open = character in TIES or (_follows(character) and (len(units[-1]) == 1 or is_open))
    return units


def phones_by_word(field: str | Sequence[str], *, is_separated: bool = False) -> list[list[str]]:
    """Read the phones of an utterance from any of the forms in which corpora write them.

    * A list has a string per word, phones separated by spaces (speechocean762: `["S OW0", "HH AA0 R D"]`).
    * A string with spaces holds separated phones; `|` between them marks word boundaries.
    * A string without spaces is IPA without separators (arabic-speech-commands: `θamaːnija`) and is cut by
      `segment_ipa`, unless it is a single ARPAbet symbol. Pinyin (audio-cmn: `ma3`) is a spelling, not IPA:
      do not read it with this function.

    Separated phones are kept as they are written, whatever the alphabet: nothing is cut that a corpus has
    cut.

    Args:
        field: The corpus' own form.
        is_separated: Whether the corpus is known to separate phones, so that a lone token is one phone.

    Returns:
        The phones of each word; words without phones are left out. Without word boundaries the whole
        utterance counts as one word.
    """
    words = field.split(WORD_BOUNDARY) if isinstance(field, str) else list(field)
    tokens = [word.split() for word in words]
    is_arpabet = all(token.rstrip("012") in ARPABET_TO_IPA for word in tokens for token in word)
    if not (is_separated or is_arpabet or any(len(word) > 1 for word in tokens)):
        tokens = [segment_ipa(word) for word in words]
    return [word for word in tokens if word]


def normalise(text: str, kind: Kind) -> str:
    """Bring text into the form in which symbols are compared.

    Args:
        text: Any text.
        kind: Phones are decomposed (NFD): a diacritic is a sign of its own behind its base. Characters are
            composed (NFC): an accented letter is one letter.

    Returns:
        The text in that form.
    """
    return unicodedata.normalize("NFD" if kind == "phones" else "NFC", text)


def split_tag(symbol: str) -> tuple[str | None, str]:
    """Take the language tag off a symbol.

    Args:
        symbol: `(en)a`, or a symbol without a tag.

    Returns:
        The language, or None, and the bare phone.
    """
    match = _TAG.fullmatch(symbol)
    return (match[1], match[2]) if match else (None, symbol)


def longest_match(units: Sequence[str], inventory: Mapping[str, object]) -> list[str]:
    """Cut a word into symbols of an inventory, the longest first.

    A cut that leaves nothing over wins: a symbol is taken shorter where the longest would strand the rest.
    Where no cut covers the whole word, symbols end at the ends of `units` and the units that no symbol
    begins are left as they are, so that a base letter is never taken without its marks.

    Args:
        units: The word in parts that belong together.
        inventory: The symbols.

    Returns:
        Symbols and, where the inventory has none, units; joined they give the word.
    """
    word = "".join(units)
    longest = max(map(len, inventory), default=0)
    # reach[i]: the length of the symbol to take at i so that the rest can be covered too, else 0.
    reach = [0] * len(word) + [1]
    for start in range(len(word) - 1, -1, -1):
        for size in range(min(longest, len(word) - start), 0, -1):
            if reach[start + size] and word[start : start + size] in inventory:
                reach[start] = size
                break
    found: list[str] = []
    if reach[0]:
        start = 0
        while start < len(word):
            found.append(word[start : start + reach[start]])
            start += reach[start]
        return found
    first = 0
    while first < len(units):
        ends = range(len(units), first, -1)
        last = next((end for end in ends if "".join(units[first:end]) in inventory), first + 1)
        found.append("".join(units[first:last]))
        first = last
    return found


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error line: `; did you mean 'x'?` with the nearest known name, or a full stop.

    Args:
        name: What was asked for.
        known: The names there are.

    Returns:
        Text that ends the sentence.
    """
    same = [other for other in known if other.casefold() == name.casefold() and other != name]
    found = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else "."


def _follows(character: str) -> bool:
    """Whether a character belongs to the base letter before it."""
    if character in STRESS:
        return False
    category = unicodedata.category(character)
    return category in {"Lm", "Sk", "Nd", "No"} or category.startswith("M") or character in TIES
