"""Hotwords: sequences of symbols that a hypothesis is paid for, on the way to them already.

Shapes in this file: N vocabulary.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from unispeech.decoding.automaton import Automaton
from unispeech.decoding.ngram_fusion import Lexicon
from unispeech.text import Vocabulary

DEFAULT_WEIGHT = 1.5
"""Nats for every symbol of a hotword that is given none."""


@dataclass(frozen=True)
class Hotword:
    """A sequence of symbols to listen for."""

    tokens: tuple[int, ...]
    """Ids of its symbols."""
    weight: float = DEFAULT_WEIGHT
    """Nats for every symbol, in a transcript that holds the whole hotword; negative ones keep it out."""


class Hotwords(Automaton):
    """Pays `weight` for every symbol of a hotword, wherever a transcript holds the whole of it.

    Hotwords that overlap or lie within one another are paid each. A hypothesis on its way to a hotword is
    paid in advance for the part that it has, so that it survives until the rest comes; where it breaks off,
    or ends, the advance is taken back. Thus a transcript's score depends only on the hotwords in it. Where
    there are word boundaries, a hotword is whole words: it begins and ends at a boundary or with the
    utterance.

    Args:
        hotwords: What to listen for.
        num_symbols: Size of the vocabulary N.
        word_boundary: Id of the word boundary; None has none.

    Raises:
        ValueError: If a hotword is empty.

    Source:
        Aho and Corasick 1975, Efficient String Matching.
    """

    def __init__(
        self, hotwords: Sequence[Hotword], num_symbols: int, *, word_boundary: int | None = None
    ) -> None:
        if not all(hotword.tokens for hotword in hotwords):
            raise ValueError("`hotwords` must have symbols, but one has none.")
        self._boundary = word_boundary
        self._children: list[dict[int, int]] = [{}]
        self._paid = [0.0]
        self._advance = [0.0]
        for hotword in hotwords:
            self._add(hotword)
        self._fallback = self._fallbacks()
        super().__init__(num_symbols, 0 if word_boundary is None else self._children[0].get(word_boundary, 0))

    def arcs(self, state: Hashable) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Pay for every symbol behind a part of a hotword.

        Args:
            state: The longest part of a hotword that ends here.

        Returns:
            (N,) scores in nats, and (N,) numbers of the parts behind.
        """
        node = cast(int, state)
        nodes = np.zeros(self.num_symbols, np.int64)
        for suffix in reversed(self._suffixes(node)):
            for token, child in self._children[suffix].items():
                nodes[token] = child
        scores = np.array([self._paid[child] + self._advance[child] for child in nodes]) - self._advance[node]
        return scores, np.array([self.number(int(child)) for child in nodes])

    def final(self, state: Hashable) -> float:
        """Take back what was paid in advance; a word boundary that is left out counts as written.

        Args:
            state: The longest part of a hotword that ends here.

        Returns:
            Nats.
        """
        if self._boundary is None:
            return -self._advance[cast(int, state)]
        scores, targets = self.arcs(state)
        end = cast(int, self._states[targets[self._boundary]])
        return float(scores[self._boundary]) - self._advance[end]

    def _add(self, hotword: Hotword) -> None:
        """Put a hotword into the tree."""
        node = 0
        edge = () if self._boundary is None else (self._boundary,)
        tokens = (*edge, *hotword.tokens, *edge)
        for depth, token in enumerate(tokens, 1):
            child = self._children[node].setdefault(token, len(self._children))
            if child == len(self._children):
                self._children.append({})
                self._paid.append(0.0)
                self._advance.append(0.0)
            node = child
            if depth < len(tokens):
                advance = hotword.weight * min(depth - len(edge), len(hotword.tokens))
                self._advance[node] = max(self._advance[node], advance)
        self._paid[node] += hotword.weight * len(hotword.tokens)

    def _fallbacks(self) -> list[int]:
        """The longest end of every part that is a part itself; parts are paid what their ends are paid."""
        fallback = [0] * len(self._children)
        queue = deque(self._children[0].values())
        while queue:
            node = queue.popleft()
            self._paid[node] += self._paid[fallback[node]]
            for token, child in self._children[node].items():
                suffix = fallback[node]
                while suffix and token not in self._children[suffix]:
                    suffix = fallback[suffix]
                fallback[child] = self._children[suffix].get(token, 0)
                queue.append(child)
        return fallback

    def _suffixes(self, node: int) -> list[int]:
        """A part and its ends that are parts, the longest first, nothing last."""
        found = [node]
        while found[-1]:
            found.append(self._fallback[found[-1]])
        return found


def read_hotword(
    text: str, vocabulary: Vocabulary, *, lexicon: Lexicon | None = None, language: str | None = None
) -> list[Hotword]:
    """Read a hotword as the command line takes it.

    Args:
        text: `TEXT` or `TEXT=WEIGHT`. The text is words of the lexicon, or else symbols of the vocabulary.
        vocabulary: The symbols that are decoded.
        lexicon: Word -> spellings in symbols separated by spaces; None has none.
        language: Language of the words, in a vocabulary that is tagged by language.

    Returns:
        A hotword for each spelling.

    Raises:
        ValueError: If the weight is no number, or the text is neither in the lexicon nor in symbols.
    """
    name, equals, weight_text = text.rpartition("=")
    if not equals:
        name, weight_text = text, str(DEFAULT_WEIGHT)
    try:
        weight = float(weight_text)
    except ValueError:
        weight = np.nan
    if not np.isfinite(weight):
        raise ValueError(f"`hotword` must be TEXT or TEXT=WEIGHT, but is {text!r}.")
    spellings = [""]
    for word in name.split():
        # Words of several spellings give all their combinations.
        ways = (lexicon or {}).get(word) or [word]
        spellings = [f"{start} {way}".strip() for start in spellings for way in ways]
    if not spellings[0]:
        raise ValueError(f"`hotword` must be TEXT or TEXT=WEIGHT, but is {text!r}.")
    try:
        return [Hotword(tuple(vocabulary.encode(way, language=language)), weight) for way in spellings]
    except ValueError as error:
        raise ValueError(
            f"`hotword` {name!r} must be in the lexicon or in the model's symbols: {error}"
        ) from error
