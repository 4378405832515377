"""Text files -> the sentences in them that can be spoken: words of one script, no digits, nothing odd."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unispeech.errors import ManifestError

PUNCTUATION = frozenset(
    " .,;:!?'\"()-\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u00a1\u00bf\u2026"
)
"""What may stand between letters; everything else makes a sentence odd."""

# Scripts that one language mixes count as one.
_SCRIPTS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}


def read_sentences(paths: Sequence[Path], *, num_words: tuple[int, int]) -> tuple[list[str], Counter[str]]:
    """Read texts with a sentence per line.

    Args:
        paths: UTF-8 files.
        num_words: Smallest and greatest number of words; where words are not spaced (Chinese), of characters.

    Returns:
        The sentences in order, each once, and how many lines were left out by reason: "empty", "too short",
        "too long", "digits or odd characters", "two scripts", "repeated".

    Raises:
        FileNotFoundError: If a file is missing.
        ManifestError: If a file is not UTF-8, or there is no sentence in any.
    """
    sentences: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                # Composed, so that a sentence in both of Unicode's forms is one and not in train and dev.
                sentence = " ".join(unicodedata.normalize("NFC", line.decode("utf-8-sig")).split())
            except UnicodeDecodeError:
                raise ManifestError(f"{path}:{number}: text must be UTF-8, but is not.") from None
            reason = find_fault(sentence, num_words=num_words)
            key = sentence.casefold().strip(" .!?")
            if reason is None and key in sentences:
                reason = "repeated"
            if reason is None:
                sentences[key] = sentence
            else:
                left_out[reason] += 1
    if not sentences:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        raise ManifestError(
            f"{paths[0]}: must have sentences that can be spoken, but has none ({why or 'empty'})."
        )
    return list(sentences.values()), left_out


def find_fault(sentence: str, *, num_words: tuple[int, int]) -> str | None:
    """Say why a sentence is not taken.

    Args:
        sentence: Without line end, words separated by single spaces.
        num_words: Smallest and greatest number of words.

    Returns:
        The reason, or None for a good sentence.
    """
    letters = [character for character in sentence if unicodedata.category(character).startswith("L")]
    marks = {character for character in sentence if unicodedata.category(character).startswith("M")}
    if not sentence:
        return "empty"
    if set(sentence) - set(letters) - marks - PUNCTUATION - _CJK_PUNCTUATION:
        return "digits or odd characters"
    scripts = {_script(letter) for letter in letters}
    if len(scripts) > 1:
        return "two scripts"
    count = len(letters) if scripts == {"CJK"} else sum(any(map(str.isalpha, w)) for w in sentence.split())
    if count < num_words[0]:
        return "too short"
    return "too long" if count > num_words[1] else None


_CJK_PUNCTUATION = frozenset("\u3002\uff0c\u3001\uff1f\uff01\uff1a\uff1b\uff08\uff09\u300a\u300b")


def _script(letter: str) -> str:
    """Name a letter's script by the first word of its Unicode name."""
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _SCRIPTS.get(first, first)
