"""The beam search with all that it heeds, as a decoder of one recording after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unispeech.decoding.alignment import align
from unispeech.decoding.alternatives import Alternative, alternatives
from unispeech.decoding.automaton import Automaton
from unispeech.decoding.beam import BeamSettings, Hypothesis, beam_search
from unispeech.decoding.decoder import LogProbs
from unispeech.decoding.greedy import TokenSpan


@dataclass(frozen=True)
class BeamDecoder:
    """The most probable transcript over all its paths, with language models and hotwords; see `beam_search`.

    A `Decoder`. Its spans are those of the transcript's most probable path.
    """

    blank: int
    """Id of the CTC blank."""
    forbidden: frozenset[int] = frozenset()
    """Ids that are never written: the vocabulary's special ones; the blank may be among them."""
    settings: BeamSettings = field(default_factory=BeamSettings)
    """How wide to search."""
    scorers: Sequence[Automaton] = ()
    """Language models, hotwords."""

    def decode(self, log_probs: LogProbs) -> list[TokenSpan]:
        """Decode one utterance.

        Args:
            log_probs: (T, N) natural log-probabilities without padding.

        Returns:
            Spans in the order of time.
        """
        best = self.nbest(log_probs)
        return align(log_probs, best[0].tokens, self.blank) if best else []

    def nbest(self, log_probs: LogProbs) -> list[Hypothesis]:
        """List the most probable transcripts of one utterance.

        Args:
            log_probs: (T, N) natural log-probabilities without padding.

        Returns:
            The best first: `settings.nbest`, or as many as there are.
        """
        [found] = self.nbest_many([log_probs])
        return found

    def nbest_many(self, log_probs: Sequence[LogProbs]) -> list[list[Hypothesis]]:
        """List the most probable transcripts of several utterances, searched together.

        Args:
            log_probs: (T, N) natural log-probabilities of each.

        Returns:
            As `nbest`, for each.
        """
        forbidden = sorted(self.forbidden - {self.blank})
        rows = list(log_probs)
        if forbidden:
            rows = [row.copy() for row in rows]
            for row in rows:
                row[:, forbidden] = -np.inf
        return beam_search(rows, self.blank, settings=self.settings, scorers=self.scorers)

    def alternatives(self, log_probs: LogProbs, spans: Sequence[TokenSpan]) -> list[list[Alternative]]:
        """List what else may have been said in each span.

        Args:
            log_probs: (T, N) natural log-probabilities.
            spans: What `decode` gave for them.

        Returns:
            For each span the probable symbols, the most probable first.
        """
        found = alternatives(log_probs, spans, self.blank)
        return [[other for other in others if other.token not in self.forbidden] for others in found]


class NbestDecoder:
    """A `Decoder` of one recording that remembers, section by section, what else may have been said.

    Args:
        decoder: Does the work.
    """

    def __init__(self, decoder: BeamDecoder) -> None:
        self.decoder = decoder
        self.sections: list[list[Hypothesis]] = []
        """The transcripts of each section, the best first."""
        self.alternatives: list[list[Alternative]] = []
        """Of every span that was given, in order, the probable symbols."""

    def decode(self, log_probs: LogProbs) -> list[TokenSpan]:
        """Decode one section.

        Args:
            log_probs: (T, N) natural log-probabilities without padding.

        Returns:
            Spans in the order of time.
        """
        found = self.decoder.nbest(log_probs)
        spans = align(log_probs, found[0].tokens, self.decoder.blank) if found else []
        self.sections.append(found)
        self.alternatives += self.decoder.alternatives(log_probs, spans)
        return spans


def join_nbest(sections: Sequence[Sequence[Hypothesis]], nbest: int) -> list[Hypothesis]:
    """Put the transcripts of sections together.

    Args:
        sections: The transcripts of each section, the best first; one without any is passed over.
        nbest: Transcripts to give at most.

    Returns:
        The best combinations, the best first; their scores are those of the parts, added.
    """
    found = [Hypothesis(tokens=(), log_prob=0.0, score=0.0)]
    for section in sections:
        longer = [
            Hypothesis(
                tokens=start.tokens + end.tokens,
                log_prob=start.log_prob + end.log_prob,
                score=start.score + end.score,
            )
            for start in found
            for end in section
        ]
        found = sorted(longer, key=lambda hypothesis: -hypothesis.score)[:nbest] or found
    return found
