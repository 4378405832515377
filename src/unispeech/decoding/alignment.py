"""Forced alignment: a known transcript -> the frames of each of its tokens.

Shapes in this file: T frames, N vocabulary, L tokens, U distinct tokens.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from unispeech.decoding.alignment_band import anchored_bands
from unispeech.decoding.alignment_trellis import Graph, Path, best_path
from unispeech.decoding.greedy import MAX_LOG_PROB, TokenSpan
from unispeech.errors import AlignmentError

WILDCARD = -1
"""The token that stands for something said that cannot be spelled: one or more unknown symbols."""

WILDCARD_COST = 1.0
"""What a frame of another symbol costs under a wildcard, in nats on top of its own log-probability.

A wildcard that cost nothing would swallow its neighbours wherever they are not the network's first choice.
"""

WILDCARD_BLANK_COST = 1e-3
"""What a blank frame costs under a wildcard: enough to leave blanks at its ends to the gaps around it."""


def align(
    log_probs: npt.NDArray[np.floating], tokens: Sequence[int], blank: int, *, fillers: Collection[int] = ()
) -> list[TokenSpan]:
    """Lay known tokens over an utterance: the most probable path of the CTC graph that says all of them.

    Exact up to some minutes of speech (`alignment_band.MAX_EXACT_CELLS` frames times tokens). Longer
    utterances are searched in a band around anchors, stretches in which the network writes what the
    transcript says; the band is widened until the path keeps away from its edges. Memory grows with the
    frames, not with frames times tokens. As in `greedy`, a span is where CTC names the token, not how long
    it lasts: see `extents`.

    Args:
        log_probs: (T, N) log-probabilities of one utterance without padding. -inf forbids a symbol.
        tokens: L ids in [0, N), none of them the blank, or `WILDCARD`. Wildcards in a row count as one each.
        blank: Id of the CTC blank, in [0, N).
        fillers: Ids that may stand between tokens without being among them, at no cost: a silence or noise
            symbol, or word boundaries that are not always written. They belong to no span.

    Returns:
        A span for each token, in order; they do not overlap. The token of a wildcard's span is `WILDCARD`
        and its score the mean probability of the best symbol other than the blank.

    Raises:
        AlignmentError: If there are fewer frames than the tokens need, or no path has a probability above 0.
        ValueError: If an id or a shape is out of its range, or `log_probs` are none.

    Source:
        Graves et al. 2006, Connectionist Temporal Classification, section 4.1, with the maximum in the place
        of the sum.
    """
    rows = np.asarray(log_probs)
    _check(rows, tokens, blank, fillers)
    if not len(tokens):
        return []
    graph = build_graph(rows, tokens, blank, fillers)
    check_num_frames(len(rows), tokens)
    path = _search(graph)
    if path is None:
        raise AlignmentError(
            f"`tokens` must have a path through `log_probs`, but every way of saying all {len(tokens)} in "
            f"{len(rows)} frames has probability 0; take out what forbids symbols."
        )
    return _spans(path, graph, rows, tokens, blank)


def num_frames_needed(tokens: Sequence[int]) -> int:
    """Count the frames that a transcript takes at least: one per token and one between two equal ones.

    Args:
        tokens: L ids, as `align` takes them.
    """
    return len(tokens) + num_repeats(tokens)


def num_repeats(tokens: Sequence[int]) -> int:
    """Count the tokens that equal the one before them; wildcards do not count.

    Args:
        tokens: L ids, as `align` takes them.
    """
    ids = np.asarray(tokens, np.int64)
    return int(((ids[1:] == ids[:-1]) & (ids[1:] != WILDCARD)).sum())


def check_num_frames(num_frames: int, tokens: Sequence[int]) -> None:
    """Refuse a transcript that cannot fit.

    Args:
        num_frames: T.
        tokens: L ids, as `align` takes them.

    Raises:
        AlignmentError: If it takes more frames than there are.
    """
    needed, repeats = num_frames_needed(tokens), num_repeats(tokens)
    if num_frames < needed:
        raise AlignmentError(
            f"`log_probs` must have at least {needed} frames for {len(tokens)} tokens"
            f"{f' with {repeats} repeats' if repeats else ''}, but has {num_frames}."
        )


def build_graph(
    log_probs: npt.NDArray[np.floating], tokens: Sequence[int], blank: int, fillers: Collection[int] = ()
) -> Graph:
    """Take out of the log-probabilities what a transcript is about.

    Args:
        log_probs: (T, N), as in `align`.
        tokens: L ids, at least one.
        blank: Id of the CTC blank.
        fillers: As in `align`.
    """
    ids = np.asarray(tokens, np.int64)
    distinct, columns = np.unique(ids, return_inverse=True)
    emissions = log_probs[:, distinct]  # the last column stands in for a wildcard, which sorts first
    if distinct[0] == WILDCARD:
        emissions[:, 0] = _wildcard(log_probs, blank)
    return Graph(
        emissions=emissions,
        gaps=log_probs[:, [blank, *fillers]].max(axis=1),
        columns=columns,
        needs_gap=np.append(False, (ids[1:] == ids[:-1]) & (ids[1:] != WILDCARD)),
    )


def _check(
    rows: npt.NDArray[np.floating], tokens: Sequence[int], blank: int, fillers: Collection[int]
) -> None:
    if rows.ndim != 2:
        raise ValueError(f"`log_probs` must have shape (T, N), but has {rows.shape}.")
    num_symbols = rows.shape[1]
    if not 0 <= blank < num_symbols:
        raise ValueError(f"`blank` must lie in [0, {num_symbols}), but is {blank}.")
    for token in tokens:
        if token == blank or not (token == WILDCARD or 0 <= token < num_symbols):
            raise ValueError(
                f"`tokens` must lie in [0, {num_symbols}) without the blank ({blank}), or be WILDCARD, "
                f"but hold {token}."
            )
    for filler in fillers:
        if not 0 <= filler < num_symbols or filler in tokens:
            raise ValueError(
                f"`fillers` must lie in [0, {num_symbols}) and not be among `tokens`, but hold {filler}."
            )
    highest = float(rows.max()) if rows.size else 0.0
    if not highest <= MAX_LOG_PROB:  # written so that NaN fails too
        raise ValueError(
            f"`log_probs` must be at most 0 and not NaN, but has {highest:.4g}; apply log_softmax to logits."
        )


def _wildcard(log_probs: npt.NDArray[np.floating], blank: int) -> npt.NDArray[np.floating]:
    """(T,) the log-probability of a frame under a wildcard: blanks are free, other symbols cost."""
    others = np.delete(log_probs, blank, axis=1).max(axis=1, initial=-np.inf)
    best: npt.NDArray[np.floating] = np.maximum(
        others - WILDCARD_COST, log_probs[:, blank] - WILDCARD_BLANK_COST
    )
    return best


def _search(graph: Graph) -> Path | None:
    """The best path in the narrowest band that it does not lean on."""
    path = None
    for band, margin in anchored_bands(graph):
        path = best_path(graph, band)
        if path is not None and path.nearest_edge >= margin:
            break
    return path


def _spans(
    path: Path, graph: Graph, rows: npt.NDArray[np.floating], tokens: Sequence[int], blank: int
) -> list[TokenSpan]:
    """The run of frames of each token."""
    frames = np.flatnonzero(path.tokens >= 0)
    numbers = path.tokens[frames]
    starts = frames[np.flatnonzero(np.diff(numbers, prepend=-1))]
    ends = frames[np.flatnonzero(np.diff(numbers, append=len(tokens)))] + 1
    log_probs = graph.emissions[frames, graph.columns[numbers]].astype(np.float64)
    if WILDCARD in tokens:
        is_wild = np.asarray(tokens)[numbers] == WILDCARD
        log_probs[is_wild] = np.delete(rows[frames[is_wild]], blank, axis=1).max(axis=1, initial=-np.inf)
    sums = np.bincount(numbers, np.exp(np.minimum(log_probs, 0.0)), minlength=len(tokens))
    return [
        TokenSpan(int(token), int(start), int(end), float(total / (end - start)))
        for token, start, end, total in zip(tokens, starts, ends, sums, strict=True)
    ]
