"""What a recogniser in training makes of dev utterances, and how wrong it is.

Shapes in this file: B batch, T frames, N vocabulary, L target length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch.nn.functional as F
from torch import Tensor

from unispeech.decoding.greedy import greedy
from unispeech.metrics import error_rate
from unispeech.objectives import IGNORED_LABEL, ctc_loss
from unispeech.text import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """What a recogniser made of one dev utterance."""

    reference: list[str]
    """The symbols that were said."""
    symbols: list[str]
    """The symbols that were recognised."""
    loss: float
    """CTC loss of the reference, summed over its symbols."""
    num_frames: int
    """Frames of the utterance."""
    num_blank: int
    """Frames in which the blank is best."""


def recognise(logits: Tensor, num_frames: Tensor, labels: Tensor, vocabulary: Vocabulary) -> list[Hypothesis]:
    """Recognise a batch greedily.

    Args:
        logits: (B, T, N) scores of the CTC head.
        num_frames: (B,) valid frames.
        labels: (B, L) references, `IGNORED_LABEL` behind the end of each.
        vocabulary: The symbols of the head.

    Returns:
        One hypothesis per utterance.
    """
    ctc = ctc_loss(logits, num_frames, labels, blank=vocabulary.blank)
    log_probs = F.log_softmax(logits.float(), dim=-1).cpu()
    losses: list[float] = ctc.per_utterance.tolist()
    hypotheses = []
    for row, frames in enumerate(num_frames.tolist()):
        own = log_probs[row, :frames]
        spans = greedy(own, vocabulary.blank)
        reference = [label for label in labels[row].tolist() if label != IGNORED_LABEL]
        hypotheses.append(
            Hypothesis(
                reference=vocabulary.decode(reference),
                symbols=vocabulary.decode(span.token for span in spans),
                loss=losses[row],
                num_frames=frames,
                num_blank=int((own.argmax(dim=-1) == vocabulary.blank).sum()),
            )
        )
    return hypotheses


def judge(hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary) -> dict[str, float]:
    """Error rates over all dev utterances.

    Args:
        hypotheses: Those of all processes.
        vocabulary: The symbols.

    Returns:
        `per` for phones; `cer` for characters; `wer` where the vocabulary has word boundaries; `loss/ctc` per
        symbol; `blank_ratio`.
    """
    references = [hypothesis.reference for hypothesis in hypotheses]
    symbols = [hypothesis.symbols for hypothesis in hypotheses]
    num_symbols = sum(map(len, references))
    num_frames = sum(hypothesis.num_frames for hypothesis in hypotheses)
    values = {}
    if vocabulary.word_boundary is not None:
        sign = vocabulary.symbols[vocabulary.word_boundary]
        values["wer"] = error_rate(
            [_words(reference, sign) for reference in references], [_words(units, sign) for units in symbols]
        ).rate
        references = [[unit for unit in reference if unit != sign] for reference in references]
        symbols = [[unit for unit in units if unit != sign] for units in symbols]
    values["per" if vocabulary.kind == "phones" else "cer"] = error_rate(references, symbols).rate
    values["loss/ctc"] = sum(hypothesis.loss for hypothesis in hypotheses) / max(num_symbols, 1)
    values["blank_ratio"] = sum(hypothesis.num_blank for hypothesis in hypotheses) / max(num_frames, 1)
    return values


def _words(symbols: list[str], boundary: str) -> list[str]:
    """Symbols between boundaries, joined."""
    groups = groupby(symbols, key=lambda symbol: symbol == boundary)
    return ["".join(units) for is_boundary, units in groups if not is_boundary]
