"""How often the utterances of a language come in an epoch: rare languages more often, common ones less."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from unispeech.frames import Seconds

Counts = npt.NDArray[np.uint32]
"""(N,) how often each of N utterances comes."""


def language_ratios(durations: Mapping[str, Seconds], exponent: float) -> dict[str, float]:
    """By which factor each language's utterances are multiplied.

    A language with a share s of all speech gets a share proportional to s ** exponent; the whole stays as
    long as it is.

    Args:
        durations: Language -> duration of its speech, in any unit.
        exponent: In [0, 1]: 1 changes nothing, 0 gives all languages the same share.

    Returns:
        Language -> factor, positive.

    Raises:
        ValueError: If `exponent` does not lie in [0, 1].

    Source:
        Wang et al. 2021, UniSpeech, section 4.2 (arXiv:2101.07597): exponent 0.5.
    """
    if not 0.0 <= exponent <= 1.0:
        raise ValueError(f"`exponent` must lie in [0, 1], but is {exponent:g}.")
    total = sum(durations.values())
    weights = {name: (duration / total) ** exponent for name, duration in durations.items()}
    scale = total / sum(weights.values())
    return {name: weights[name] * scale / duration for name, duration in durations.items()}


class LanguageResampling:
    """Draws for every epoch how often each utterance comes.

    Args:
        languages: (N,) language of each utterance.
        durations: (N,) seconds.
        exponent: As in `language_ratios`.
    """

    def __init__(self, languages: list[str], durations: npt.NDArray[np.float64], exponent: float) -> None:
        names, indices = np.unique(languages, return_inverse=True)
        self._indices = indices.astype(np.uint16)
        totals = np.bincount(indices, weights=durations)
        self.ratios = language_ratios(dict(zip(names.tolist(), totals.tolist(), strict=True)), exponent)
        """Language -> factor."""
        sizes = np.bincount(indices)
        self._sizes = [
            max(round(size * ratio), 1) for size, ratio in zip(sizes, self.ratios.values(), strict=True)
        ]
        self.num_utterances = sum(self._sizes)
        """Utterances of an epoch."""

    def draw(self, rng: np.random.Generator) -> Counts:
        """Draw an epoch: with replacement where a language becomes more, without where it becomes less.

        Args:
            rng: Where the draw comes from.

        Returns:
            (N,) counts, whose sum is `num_utterances`.
        """
        counts = np.zeros(len(self._indices), np.uint32)
        for index, size in enumerate(self._sizes):
            (places,) = np.nonzero(self._indices == index)
            # A language that keeps its size comes whole: drawn with replacement, a third of it would not.
            if size <= len(places):
                counts[rng.choice(places, size, replace=False)] = 1
            else:
                drawn = rng.integers(len(places), size=size)
                counts[places] = np.bincount(drawn, minlength=len(places))
        return counts
