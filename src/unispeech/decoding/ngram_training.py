"""Small n-gram models from text: Witten-Bell or interpolated Kneser-Ney.

Both mix the share of a word behind its context with the probability that one word less of context gives,

    P(w | h) = max(c(hw) - D, 0) / (c(h) + E(h)) + lambda(h) * P(w | h'),

down to the uniform distribution over the words, `</s>` and `<unk>`, so that nothing has probability 0.
Witten-Bell has D = 0 and E(h) = t(h), the number of different words behind h; Kneser-Ney has E = 0, and below
the highest order c(hw) counts in how many contexts hw comes. lambda(h) is what makes the sum 1.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import log
from typing import Literal

from unispeech.decoding.ngram import SENTENCE_END, SENTENCE_START, UNKNOWN, Ngram, NgramModel

Smoothing = Literal["witten-bell", "kneser-ney"]
"""How probability is kept for what the text does not hold."""


def train_ngram(
    sentences: Iterable[Sequence[str]], *, order: int = 3, smoothing: Smoothing = "witten-bell"
) -> NgramModel:
    """Count n-grams and smooth them.

    Args:
        sentences: Words (or phones) of each sentence.
        order: Words of the longest n-gram.
        smoothing: "witten-bell" works with any text; "kneser-ney" needs n-grams of every order that occur
            once and twice, which a short text or few phones do not give.

    Returns:
        The model; it lists every n-gram of the text.

    Raises:
        ValueError: If `order` is below 1, there is no word, a word is `<s>`, `</s>` or `<unk>`, or counts
            are too few for Kneser-Ney.

    Source:
        Witten and Bell 1991, The Zero-Frequency Problem, method C, and Ney, Essen and Kneser 1994, both as
        interpolated in Chen and Goodman 1998, An Empirical Study of Smoothing Techniques for Language
        Modeling, sections 2.6 and 2.7.
    """
    if order < 1:
        raise ValueError(f"`order` must be at least 1, but is {order}.")
    counts = _count(sentences, order)
    if smoothing == "kneser-ney":
        counts = _continuations(counts)
    log_probs: dict[Ngram, float] = {(SENTENCE_START,): 0.0}
    backoffs: dict[Ngram, float] = {}
    probs: dict[Ngram, float] = {}
    num_words = len(counts[0]) + 1  # </s> is among the counts, <unk> is not
    for n, ngrams in enumerate(counts, 1):
        totals: dict[Ngram, int] = defaultdict(int)
        kinds: dict[Ngram, int] = defaultdict(int)
        for ngram, count in ngrams.items():
            totals[ngram[:-1]] += count
            kinds[ngram[:-1]] += 1
        discount = _discount(ngrams, n) if smoothing == "kneser-ney" else 0.0
        shares = {}
        for context, total in totals.items():
            extra = 0 if discount else kinds[context]
            kept = discount * kinds[context] if discount else extra
            shares[context] = (total + extra, kept / (total + extra))
            if context:
                backoffs[context] = log(shares[context][1])
        for ngram, count in ngrams.items():
            total, left = shares[ngram[:-1]]
            lower = probs[ngram[1:]] if n > 1 else 1.0 / num_words
            probs[ngram] = max(count - discount, 0.0) / total + left * lower
            log_probs[ngram] = log(probs[ngram])
        if n == 1:
            log_probs[UNKNOWN,] = log(shares[()][1] / num_words)
    return NgramModel(log_probs, backoffs)


def _count(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Ngram]]:
    """How often every n-gram comes, `<s>` never last; of each order up to the highest."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        for word in sentence:
            if word in {SENTENCE_START, SENTENCE_END, UNKNOWN}:
                raise ValueError(f"`sentences` must hold words of the text, but hold {word}; leave it out.")
        if not sentence:
            continue
        padded = (SENTENCE_START, *sentence, SENTENCE_END)
        for n, ngrams in enumerate(counts, 1):
            ngrams.update(padded[i : i + n] for i in range(1 if n == 1 else 0, len(padded) - n + 1))
    if not counts[0]:
        raise ValueError("`sentences` must hold at least one word, but hold none.")
    return counts


def _continuations(counts: list[Counter[Ngram]]) -> list[Counter[Ngram]]:
    """Below the highest order, how many different words come before an n-gram; behind `<s>` its count."""
    found = [Counter({g: c for g, c in ngrams.items() if g[0] == SENTENCE_START}) for ngrams in counts[:-1]]
    for ngrams, longer in zip(found, counts[1:], strict=True):
        for ngram in longer:
            ngrams[ngram[1:]] += 1
    return [*found, counts[-1]]


def _discount(ngrams: Counter[Ngram], order: int) -> float:
    """What Kneser-Ney takes off every count: n1 / (n1 + 2 n2)."""
    once = sum(count == 1 for count in ngrams.values())
    twice = sum(count == 2 for count in ngrams.values())
    if not once or not twice:
        raise ValueError(
            "`smoothing` must be witten-bell for this text, but is kneser-ney, which needs n-grams of every "
            f"order that come once and that come twice; of order {order} there are {once} and {twice}."
        )
    return once / (once + 2 * twice)
