"""Phones from text: by a lexicon, by epitran's rules, or by espeak-ng in a process of its own.

All three say how a text is spoken word by word, through one method, `phones`. A word that cannot be said is
an error that names it: a guess would be learnt as a label.
"""

import itertools
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from unispeech.data.espeak_phones import without_region
from unispeech.errors import ManifestError
from unispeech.phones import WORD_BOUNDARY, nearest, segment_ipa

Method = Literal["lexicon", "epitran", "espeak"]

EPITRAN_CODES = {
    "ar": "ara-Arab",
    "de": "deu-Latn",
    "en": "eng-Latn",
    "es": "spa-Latn",
    "fr": "fra-Latn",
    "it": "ita-Latn",
    "ky": "kir-Cyrl",
    "nl": "nld-Latn",
    "pl": "pol-Latn",
    "pt": "por-Latn",
    "ru": "rus-Cyrl",
    "sv": "swe-Latn",
    "tr": "tur-Latn",
    "uk": "ukr-Cyrl",
}
"""Language -> epitran's code in the usual script; any other code of epitran can be given as it is."""

TURKIC_CAPITALS = str.maketrans({"I": "\u0131", "\u0130": "i"})
"""Capitals of the two letters i of Turkish and Azerbaijani, which `str.lower` takes for those of English."""

_PROBABILITY = re.compile(r"\d+\.\d+(e-\d+)?")
_VARIANT = re.compile(r"\(\d+\)$")
_COMMENT = re.compile(r"\s#.*")


class UnknownWordError(ValueError):
    """A text holds words whose phones are not known.

    Args:
        words: All of them, each once.
        source: What was asked: the lexicon's path, or the method and language.
    """

    def __init__(self, words: Sequence[str], source: str) -> None:
        self.words = tuple(dict.fromkeys(words))
        """All words that are not known, in the order of the text."""
        self.source = source
        """What was asked."""
        named = ", ".join(map(repr, self.words[:10]))
        more = f" and {len(self.words) - 10} more" if len(self.words) > 10 else ""
        super().__init__(
            f"`text` must hold words that {source} can say, but holds {named}{more}; "
            "add them to a lexicon, or spell them out."
        )


class Phonemizer(Protocol):
    """Whatever says how a text is spoken; `data.espeak.EspeakProcess` is one too."""

    def phones(self, text: str) -> list[list[str]]:
        """Say how a text is spoken.

        Args:
            text: Words and punctuation.

        Returns:
            The phones of every word, in order.
        """
        ...


class LexiconPhonemizer:
    """Looks words up in a pronunciation lexicon.

    A line is a word, whitespace, and its phones separated by spaces, as in CMUdict and MFA's dictionaries,
    whose probabilities between the two are passed over. Lines that begin with `;;;` and what follows ` #` are
    comments. Of several pronunciations (`read`, `read(2)` or the word again) the first counts. Capitals do
    not matter. A hyphenated word that is not listed is said by its parts. Phones stay as the lexicon writes
    them.

    Args:
        path: The lexicon, UTF-8 text.

    Raises:
        FileNotFoundError: If there is no such file.
        ManifestError: If a word has no phones, the file is not UTF-8 text or holds no word.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._entries: dict[str, list[str]] = {}
        if not self._path.is_file():
            raise FileNotFoundError(f"{path}: there is no such lexicon; check the path.")
        try:
            lines = self._path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path}: must be UTF-8 text, but is not ({error.reason}).") from error
        for number, line in enumerate(lines, start=1):
            if line.startswith(";;;") or not line.strip():
                continue
            word, *cells = _COMMENT.sub("", line).split()
            phones = list(itertools.dropwhile(_PROBABILITY.fullmatch, cells))
            if not phones:
                raise ManifestError(
                    f"{path}:{number}: `{word}` must be followed by its phones, but stands alone."
                )
            self._entries.setdefault(_lookup_form(_VARIANT.sub("", word)), phones)
        if not self._entries:
            raise ManifestError(f"{path}: must hold a word and its phones per line, but holds no word.")

    def phones(self, text: str) -> list[list[str]]:
        """Look up every word of a text.

        Args:
            text: Words and punctuation; punctuation is left out.

        Returns:
            The phones of every word, in order.

        Raises:
            UnknownWordError: If the lexicon lacks words; all of them are named.
        """
        said: list[list[str]] = []
        unknown: list[str] = []
        for word in split_words(text):
            parts = [word] if _lookup_form(word) in self._entries else word.split("-")
            found = [self._entries.get(_lookup_form(part)) for part in parts]
            if None in found:
                unknown.append(word)
            said.append([phone for phones in found if phones for phone in phones])
        if unknown:
            raise UnknownWordError(unknown, str(self._path))
        return said


class EpitranPhonemizer:
    """Spells words out by epitran's rules (extra `g2p`): for languages that are written as they are spoken.

    Words with hyphens are said by their parts. A word with a letter that the rules do not have, such as one
    of another script, cannot be said.

    Args:
        language: A language code of `EPITRAN_CODES`, with a region ("sv-SE") or without, or a code of
            epitran, such as "deu-Latn".

    Raises:
        ImportError: If epitran is not installed, or needs flite for English and there is none.
        ValueError: If epitran has no such language.
    """

    def __init__(self, language: str) -> None:
        try:
            import epitran
        except ImportError as error:
            raise ImportError(
                "phones by epitran need the extra `g2p`; install it with: pip install 'unispeech[g2p]'."
            ) from error
        code = EPITRAN_CODES.get(without_region(language), language)
        if code == "eng-Latn" and shutil.which("lex_lookup") is None:
            raise ImportError(
                "epitran needs flite's program `lex_lookup` for English, but it is not installed; "
                "use a lexicon or espeak."
            )
        folder = Path(epitran.__file__).parent / "data" / "map"
        codes = {"eng-Latn", *(path.stem for path in folder.glob("*.csv"))}
        if code not in codes:
            raise ValueError(
                f"`language` must be one of {', '.join(EPITRAN_CODES)} or a code of epitran, "
                f"but is {language!r}{nearest(language, codes)}"
            )
        self._language = code
        self._rules = epitran.Epitran(code)
        self._said: dict[str, list[str]] = {}

    def phones(self, text: str) -> list[list[str]]:
        """Spell out every word of a text.

        Args:
            text: Words and punctuation; punctuation is left out.

        Returns:
            The IPA phones of every word, in order.

        Raises:
            UnknownWordError: If rules cannot say words, such as numbers; all of them are named.
        """
        words = split_words(text)
        for word in words:
            if word not in self._said:
                self._said[word] = self._spell_out(word)
        unknown = [word for word in words if not self._said[word]]
        if unknown:
            raise UnknownWordError(unknown, f"epitran in {self._language}")
        return [list(self._said[word]) for word in words]

    def _spell_out(self, word: str) -> list[str]:
        """The phones of a word, part by part where it has hyphens; none where a part cannot be said."""
        parts = [self._spell_part(part) for part in word.split("-") if part]
        return [phone for phones in parts for phone in phones] if all(map(_is_spoken, parts)) else []

    def _spell_part(self, part: str) -> list[str]:
        if self._language.startswith(("tur-", "aze-")):
            part = part.translate(TURKIC_CAPITALS)
        letters = part.replace("'", "")
        # What the rules do not know goes through `transliterate` as it is. The strict form leaves it out,
        # together with phones that a rule writes directly; those are no letters of the word.
        said, known = (
            Counter(unicodedata.normalize("NFD", spell(letters)))
            for spell in (self._rules.transliterate, self._rules.strict_trans)
        )
        if (said - known).keys() & set(unicodedata.normalize("NFD", letters.lower())):
            return []
        return segment_ipa(self._rules.transliterate(part))


@contextmanager
def open_phonemizer(
    method: Method, *, language: str | None = None, lexicon: str | Path | None = None
) -> Iterator[Phonemizer]:
    """Open one of the three ways from text to phones, and end its process afterwards where it has one.

    Args:
        method: "lexicon" needs `lexicon`; "epitran" (extra `g2p`) and "espeak" (extra `espeak`) need
            `language`.
        language: Language code, epitran's code or espeak-ng's voice.
        lexicon: Path of the lexicon.

    Yields:
        What says texts.

    Raises:
        ValueError: If `method` is unknown, or what it needs is missing.
    """
    if method not in {"lexicon", "epitran", "espeak"}:
        raise ValueError(
            f"`method` must be one of lexicon, epitran, espeak, but is {method!r}"
            f"{nearest(method, ['lexicon', 'epitran', 'espeak'])}"
        )
    if method == "lexicon":
        if lexicon is None:
            raise ValueError(
                "`lexicon` must be the path of a lexicon where `method` is lexicon, but is None."
            )
        yield LexiconPhonemizer(lexicon)
        return
    if language is None:
        raise ValueError(f"`language` must be given where `method` is {method}, but is None.")
    if method == "epitran":
        yield EpitranPhonemizer(language)
        return
    from unispeech.data.espeak import EspeakProcess

    with EspeakProcess(language) as process:
        yield process


def phones_from_text(
    texts: Iterable[str],
    *,
    method: Method,
    language: str | None = None,
    lexicon: str | Path | None = None,
    word_boundary: bool = False,
) -> list[list[str]]:
    """Say how texts are spoken.

    Args:
        texts: Words and punctuation.
        method: As in `open_phonemizer`.
        language: As in `open_phonemizer`.
        lexicon: As in `open_phonemizer`.
        word_boundary: Whether `|` stands between words.

    Returns:
        The phones of each text, in order.

    Raises:
        UnknownWordError: If words cannot be said; those of all texts are named together.
    """
    said: list[list[str]] = []
    unknown: list[str] = []
    source = ""
    with open_phonemizer(method, language=language, lexicon=lexicon) as phonemizer:
        for text in texts:
            try:
                words = phonemizer.phones(text)
            except UnknownWordError as error:
                unknown += error.words
                source = error.source
                continue
            said.append(join_words(words, word_boundary=word_boundary))
    if unknown:
        raise UnknownWordError(unknown, source)
    return said


def join_words(words: Sequence[Sequence[str]], *, word_boundary: bool) -> list[str]:
    """Put the phones of words into one row.

    Args:
        words: The phones of each word.
        word_boundary: Whether `|` stands between words.

    Returns:
        The phones in order.
    """
    row: list[str] = []
    for word in words:
        if word_boundary and row and word:
            row.append(WORD_BOUNDARY)
        row += word
    return row


def split_words(text: str) -> list[str]:
    """Take the words out of a text: punctuation goes, apostrophes and hyphens inside words stay.

    Args:
        text: Any text.

    Returns:
        Words in Unicode's composed form (NFC), as they are written.
    """
    composed = unicodedata.normalize("NFC", text).replace("\u2019", "'").replace("\u2010", "-")
    # Everything but letters, marks and numbers separates; modifier symbols belong to no orthography here.
    spaced = "".join(
        character if character in "'-" or unicodedata.category(character)[0] in "LMN" else " "
        for character in composed
    )
    return [word for token in spaced.split() if (word := token.strip("'-"))]


def _lookup_form(word: str) -> str:
    """The form in which words are compared: composed, without capitals."""
    return unicodedata.normalize("NFC", word).replace("\u2019", "'").casefold()


def _is_spoken(phones: Sequence[str]) -> bool:
    """Whether rules gave phones and nothing else: a digit or a sign left over is no phone."""
    return bool(phones) and all(unicodedata.category(phone[0]).startswith("L") for phone in phones)
