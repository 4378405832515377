"""N-gram models in the beam search: of the symbols themselves, or of the words between word boundaries.

Shapes in this file: N vocabulary.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from unispeech.decoding.automaton import Automaton
from unispeech.decoding.ngram import SENTENCE_END, Ngram, NgramModel
from unispeech.phones import Kind, normalise, split_tag
from unispeech.text import Vocabulary

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_SHARE = 0.5
"""Share of a model's words that are symbols of the vocabulary, from which on it is a model of symbols."""

ROOT, ASTRAY = 0, -1
"""Where the spelling of a word begins, and where no word is spelled like this."""

Lexicon = Mapping[str, Sequence[str]]
"""Word -> its spellings, each in symbols separated by spaces."""


def fuse(
    model: NgramModel,
    vocabulary: Vocabulary,
    *,
    weight: float = 0.5,
    bonus: float = 0.0,
    lexicon: Lexicon | None = None,
    language: str | None = None,
) -> Automaton:
    """Make an n-gram model heard in the beam search.

    A model whose words are symbols of the vocabulary scores symbols; any other scores words, where the
    vocabulary has word boundaries.

    Args:
        model: The n-grams.
        vocabulary: The symbols that are decoded.
        weight: Factor of the model's log-probabilities.
        bonus: Nats for every symbol or word, against the short transcripts that a model prefers.
        lexicon: How words are spelled in symbols; None spells them as the vocabulary cuts them.
        language: Language of the words, in a vocabulary that is tagged by language.

    Returns:
        Scores for `beam_search`.

    Raises:
        ValueError: If the model's words are no symbols and cannot be spelled either, or a number is infinite.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of `lm` must be finite and at least 0, but is {weight}.")
    if not math.isfinite(bonus):
        raise ValueError(f"the bonus of `lm` must be finite, but is {bonus}.")
    symbols = {normalise(split_tag(symbol)[1], vocabulary.kind) for symbol in vocabulary.symbols}
    num_symbols = sum(normalise(word, vocabulary.kind) in symbols for word in model.words)
    if num_symbols >= MIN_SHARE * max(len(model.words), 1):
        return SymbolModel(model, vocabulary, weight=weight, bonus=bonus)
    if vocabulary.word_boundary is None:
        foreign = sorted(word for word in model.words if normalise(word, vocabulary.kind) not in symbols)
        raise ValueError(
            "`lm` must be of the model's symbols where the model writes no word boundaries, but has "
            f"{', '.join(map(repr, foreign[:5]))}{' and others' if len(foreign) > 5 else ''}; train one with "
            "unispeech lm train on phones separated by spaces."
        )
    return WordModel(model, vocabulary, weight=weight, bonus=bonus, lexicon=lexicon, language=language)


class SymbolModel(Automaton):
    """An n-gram model of phones or characters. Word boundaries that it does not know leave it as it is.

    Args:
        model: The n-grams.
        vocabulary: The symbols that are decoded; language tags are not compared.
        weight: Factor of the log-probabilities.
        bonus: Nats for every symbol.
    """

    def __init__(
        self, model: NgramModel, vocabulary: Vocabulary, *, weight: float = 0.5, bonus: float = 0.0
    ) -> None:
        self._model, self._weight, self._bonus = model, weight, bonus
        known = {normalise(word, vocabulary.kind): word for word in sorted(model.words)}
        self._ids: dict[str, list[int]] = {}
        self._silent = []
        for index, symbol in enumerate(vocabulary.symbols):
            word = known.get(normalise(split_tag(symbol)[1], vocabulary.kind))
            if index in vocabulary.special or (word is None and index == vocabulary.word_boundary):
                self._silent.append(index)
            elif word is not None:
                self._ids.setdefault(word, []).append(index)
        self._rows: dict[Ngram, tuple[Floats, Ints]] = {}
        super().__init__(len(vocabulary), model.start)

    def arcs(self, state: Hashable) -> tuple[Floats, Ints]:
        """Score every symbol behind a context.

        Args:
            state: The context.

        Returns:
            (N,) scores in nats, and (N,) numbers of the contexts behind.
        """
        context = cast(Ngram, state)
        log_probs, targets = self._row(context)
        scores = self._weight * log_probs + self._bonus
        targets = targets.copy()
        scores[self._silent], targets[self._silent] = 0.0, self.number(context)
        return scores, targets

    def final(self, state: Hashable) -> float:
        """Score the end of the sentence, where the model knows sentences.

        Args:
            state: The context.

        Returns:
            Nats.
        """
        return self._weight * _end(self._model, cast(Ngram, state))

    def _row(self, context: Ngram) -> tuple[Floats, Ints]:
        """The log-probability of every symbol, and its next context: those of a shorter context, mended."""
        if context in self._rows:
            return self._rows[context]
        model = self._model
        if context:
            log_probs, targets = self._row(context[1:])
            log_probs, targets = log_probs + model.backoffs.get(context, 0.0), targets.copy()
        else:
            log_probs = np.full(self.num_symbols, model.unknown_log_prob)
            targets = np.full(self.num_symbols, self.number(()))
        for word, log_prob in model.followers(context).items():
            log_probs[self._ids.get(word, [])] = log_prob
        for word in model.continued(context):
            if word in self._ids:
                targets[self._ids[word]] = self.number((*context, word))
        self._rows[context] = log_probs, targets
        return log_probs, targets


class WordModel(Automaton):
    """An n-gram model of words: a word is scored at the boundary that ends it.

    On the way there a hypothesis is scored by the most frequent word that it can still become, so that it
    is not suddenly worse at the boundary; what was given on the way is taken back there. What no word of the
    model is spelled like is an unknown word.

    Args:
        model: The n-grams.
        vocabulary: The symbols that are decoded, a word boundary among them.
        weight: Factor of the log-probabilities.
        bonus: Nats for every word.
        lexicon: Word -> spellings; None cuts words as the vocabulary does.
        language: Language of the words, in a vocabulary that is tagged by language.

    Raises:
        ValueError: If no word of the model can be spelled.
    """

    def __init__(
        self,
        model: NgramModel,
        vocabulary: Vocabulary,
        *,
        weight: float = 0.5,
        bonus: float = 0.0,
        lexicon: Lexicon | None = None,
        language: str | None = None,
    ) -> None:
        self._model, self._weight, self._bonus = model, weight, bonus
        self._boundary = vocabulary.word_boundary
        self._special = sorted(vocabulary.special)
        self._children: list[dict[int, int]] = [{}]
        self._words: list[list[str]] = [[]]
        self._ahead = [0.0]
        spelled = False
        for word in sorted(model.words):
            for spelling in _spellings(word, vocabulary.kind, lexicon):
                try:
                    tokens = vocabulary.encode(spelling, language=language)
                except ValueError:
                    continue
                self._spell(word, tokens)
                spelled = True
        if not spelled:
            raise ValueError(
                f"`lm` must have words that the vocabulary can spell, but none of its {len(model.words)} "
                "words can be; give a lexicon of their phones."
            )
        super().__init__(len(vocabulary), (model.start, ROOT))

    def arcs(self, state: Hashable) -> tuple[Floats, Ints]:
        """Score every symbol within a word.

        Args:
            state: The context and the place in the spellings.

        Returns:
            (N,) scores in nats, and (N,) numbers of the states behind.
        """
        context, node = cast(tuple[Ngram, int], state)
        ahead = self._model.unknown_log_prob if node == ASTRAY else self._ahead[node]
        astray = self._weight * (self._model.unknown_log_prob - ahead)
        scores = np.full(self.num_symbols, astray)
        targets = np.full(self.num_symbols, self.number((context, ASTRAY)))
        for token, child in self._children[node].items() if node != ASTRAY else ():
            scores[token] = self._weight * (self._ahead[child] - ahead)
            targets[token] = self.number((context, child))
        scores[self._special], targets[self._special] = 0.0, self.number(state)
        scores[self._boundary], behind = self._end_word(context, node)
        targets[self._boundary] = self.number((behind, ROOT))
        return scores, targets

    def final(self, state: Hashable) -> float:
        """Score the end of the last word and of the sentence.

        Args:
            state: The context and the place in the spellings.

        Returns:
            Nats.
        """
        score, context = self._end_word(*cast(tuple[Ngram, int], state))
        return score + self._weight * _end(self._model, context)

    def _end_word(self, context: Ngram, node: int) -> tuple[float, Ngram]:
        """The score of the word that ends here, less what was given on the way, and the context behind."""
        if node == ROOT:
            return 0.0, context
        words = self._words[node] if node != ASTRAY else []
        log_prob, word = max(
            ((self._model.log_prob(context, word), word) for word in words),
            default=(self._model.log_prob(context, ""), ""),
        )
        ahead = self._model.unknown_log_prob if node == ASTRAY else self._ahead[node]
        return self._weight * (log_prob - ahead) + self._bonus, self._model.context((*context, word))

    def _spell(self, word: str, tokens: Sequence[int]) -> None:
        """Put a word into the tree of spellings."""
        log_prob = self._model.log_prob((), word)
        node = ROOT
        for token in tokens:
            child = self._children[node].setdefault(token, len(self._children))
            if child == len(self._children):
                self._children.append({})
                self._words.append([])
                self._ahead.append(-np.inf)
            node = child
            self._ahead[node] = max(self._ahead[node], log_prob)
        if node != ROOT:
            self._words[node].append(word)


def _end(model: NgramModel, context: Ngram) -> float:
    """The log-probability of a sentence's end, 0 where the model does not know it."""
    return model.log_prob(context, SENTENCE_END) if (SENTENCE_END,) in model.log_probs else 0.0


def _spellings(word: str, kind: Kind, lexicon: Lexicon | None) -> Sequence[str]:
    """How a word may be written in symbols."""
    return [normalise(word, kind)] if lexicon is None else lexicon.get(word, ())
