"""Text -> the tokens that a model writes for it, word by word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from unispeech.data.g2p import Phonemizer, split_words
from unispeech.decoding.alignment import WILDCARD
from unispeech.errors import AlignmentError
from unispeech.phones import ARPABET_TO_IPA, WORD_BOUNDARY, arpabet_to_ipa
from unispeech.text import Vocabulary

STAR = "*"
"""How a wildcard is written, in texts and in results."""

NUM_NAMED = 10
"""Words that an error names; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class SpelledWord:
    """A word and its symbols."""

    word: str
    """The word as the text writes it; `*` for a wildcard."""
    tokens: list[int]
    """Ids of the vocabulary, or `WILDCARD` where it cannot be spelled; at least one."""


class Speller:
    """Spells texts in the symbols of a vocabulary.

    A vocabulary of characters spells words by their letters, in capitals or small letters as it has them; a
    vocabulary of phones asks how they are spoken. Punctuation is left out; apostrophes and hyphens stay where
    the vocabulary has them. A `*` that stands alone is a wildcard: something said that is not in the text.

    Args:
        vocabulary: The symbols of the model.
        phonemizer: Says how text is spoken; None for vocabularies of characters and for texts in phones.
        language: Tag of the phones in a vocabulary that has phones for each language apart.
        wildcard: Whether a word that cannot be spelled becomes a wildcard; else it is an error.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        phonemizer: Phonemizer | None = None,
        language: str | None = None,
        wildcard: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        self.phonemizer = phonemizer
        self.language = language
        self.wildcard = wildcard
        self._known = {s for i, s in enumerate(vocabulary.symbols) if i not in vocabulary.special}

    def spell_text(self, text: str) -> list[SpelledWord]:
        """Spell an ordinary text.

        Args:
            text: Words and punctuation in any number of lines.

        Returns:
            Its words in order.

        Raises:
            AlignmentError: If words cannot be spelled and `wildcard` is off; they are named.
            ValueError: If the vocabulary is one of phones and there is no phonemizer.
        """
        spell_line = self._letters_of_line if self.vocabulary.kind == "characters" else self._phones_of_line
        spelled = [pair for line in text.splitlines() for part in _parts(line) for pair in spell_line(part)]
        return self._to_tokens(spelled, "text")

    def spell_phones(self, text: str) -> list[SpelledWord]:
        """Read a text that is written in the vocabulary's phones already.

        Args:
            text: Phones separated by whitespace, or IPA to be cut by longest match; `|` between words.

        Returns:
            Its words in order, named by their phones; all of it is one word where there is no `|`.

        Raises:
            AlignmentError: If there are phones that the vocabulary lacks and `wildcard` is off.
            ValueError: If the vocabulary is one of characters.
        """
        if self.vocabulary.kind == "characters":
            raise ValueError(
                "`phones` must be given to a model that writes phones, but this one writes characters; "
                "give it the text."
            )
        spelled: list[tuple[str, list[str]]] = []
        for word in text.split(WORD_BOUNDARY):
            stretches = groupby(word.split(), key=lambda token: token == STAR)
            units = [
                unit
                for is_star, tokens in stretches
                for unit in ([STAR] if is_star else self._cut(" ".join(tokens)))
            ]
            if units:
                spelled.append(("".join(units), units))
        return self._to_tokens(spelled, "phones")

    def _to_tokens(self, spelled: Sequence[tuple[str, list[str]]], name: str) -> list[SpelledWord]:
        """Number the symbols; what has none is refused or becomes a wildcard."""
        strange = {
            word: [unit for unit in units if unit not in self._known and unit != STAR] or ["no sound"]
            for word, units in spelled
            if not units or not self._known.issuperset(set(units) - {STAR})
        }
        if strange and not self.wildcard:
            named = ", ".join(map(repr, list(strange)[:NUM_NAMED]))
            more = f" and {len(strange) - NUM_NAMED} more" if len(strange) > NUM_NAMED else ""
            missing = sorted({unit for units in strange.values() for unit in units} - {"no sound"})
            because = f" (not among its symbols: {' '.join(missing[:NUM_NAMED])})" if missing else ""
            raise AlignmentError(
                f"`{name}` must be spelled in the model's symbols, but {named}{more} cannot be{because}; "
                "write it as it is spoken, or let wildcards stand for it."
            )
        ids = {symbol: index for index, symbol in enumerate(self.vocabulary.symbols)}
        # One wildcard for a whole word: what is not known of it cannot be told apart either.
        return [
            SpelledWord(
                word=word,
                tokens=[WILDCARD]
                if word in strange
                else [WILDCARD if unit == STAR else ids[unit] for unit in units],
            )
            for word, units in spelled
        ]

    def _cut(self, text: str) -> list[str]:
        """A text in the vocabulary's spelling, without the word boundaries that the vocabulary would set."""
        boundary = self.vocabulary.word_boundary
        units = self.vocabulary.segment(text, language=self.language)
        return [unit for unit in units if boundary is None or unit != self.vocabulary.symbols[boundary]]

    def _letters_of_line(self, line: str) -> Iterator[tuple[str, list[str]]]:
        """Spell by letters.

        Yields:
            Every word with its letters.
        """
        if line == STAR:
            yield STAR, [STAR]
            return
        for word in split_words(line):
            kept = "".join(letter for letter in word if letter not in "'-" or letter in self._known)
            ways = [self._cut(form) for form in (kept, kept.lower(), kept.upper())]
            yield word, next((way for way in ways if self._known.issuperset(way)), ways[0])

    def _phones_of_line(self, line: str) -> Iterator[tuple[str, list[str]]]:
        """Spell by phones.

        Yields:
            Every word with its phones; none where it cannot be said.
        """
        if line == STAR:
            yield STAR, [STAR]
            return
        if self.phonemizer is None:
            raise ValueError(
                "`phonemizer` must say how text is spoken where the model writes phones, but is None; "
                "give a lexicon or a g2p method, or give the phones themselves."
            )
        words = split_words(line)
        try:
            said = self.phonemizer.phones(line)
        except ValueError:  # a word that cannot be said; which one is found out below
            said = []
        if len(said) != len(words):
            # Where some words run together in speech, each is said alone, so that it keeps its times.
            said = [self._say(self.phonemizer, word) for word in words]
        for word, phones in zip(words, said, strict=True):
            yield word, self._in_vocabulary(phones)

    @staticmethod
    def _say(phonemizer: Phonemizer, word: str) -> list[str]:
        """The phones of one word; none where it cannot be said."""
        try:
            return [phone for phones in phonemizer.phones(word) for phone in phones]
        except ValueError:
            return []

    def _in_vocabulary(self, phones: Sequence[str]) -> list[str]:
        """Phones as the vocabulary writes them; ARPAbet becomes IPA for a vocabulary of IPA."""
        units = [unit for phone in phones for unit in self._cut(phone)]
        if not self._known.issuperset(units) and all(p.rstrip("012") in ARPABET_TO_IPA for p in phones):
            units = [unit for phone in arpabet_to_ipa(phones) for unit in self._cut(phone)]
        return units


def _parts(line: str) -> Iterator[str]:
    """Cut a line at its wildcards.

    Yields:
        Stretches of words, and wildcards alone.
    """
    for is_star, tokens in groupby(line.split(), key=lambda token: token == STAR):
        yield STAR if is_star else " ".join(tokens)
