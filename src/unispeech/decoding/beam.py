"""CTC prefix beam search: frame log-probabilities -> the most probable transcripts, each over all its paths.

The work is laid out for arrays. Before the search every frame keeps only the symbols that matter; frames
in which nothing but the blank is left are taken together in one step. A step then handles all hypotheses of
all utterances at once. A hypothesis is known by a 64-bit hash of its symbols and of all but its last one, so
that the two ways to the same transcript (a longer hypothesis that stays, a shorter one that is extended)
find each other by comparing numbers, without a dictionary or a tree.

Shapes in this file: B utterances, T frames, N vocabulary, J steps, W hypotheses, K symbols of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unispeech.decoding.automaton import Automaton
from unispeech.decoding.greedy import MAX_LOG_PROB

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

MOST_HYPOTHESES = 10_000
"""More is a slip of the hand: a million hypotheses do not fit into memory."""

NEVER = -np.inf
_EMPTY, _NO_PARENT, _DEAD, _DEAD_PARENT = (np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4))
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


@dataclass(frozen=True, kw_only=True)
class BeamSettings:
    """How wide to search.

    Raises:
        ValueError: If a setting is out of its range.
    """

    beam: int = 20
    """Hypotheses that are kept from frame to frame."""
    nbest: int = 1
    """Transcripts to give, at most `beam`."""
    min_prob: float = 1e-3
    """A symbol less probable than this is left out of its frame, unless it is the frame's best; 0 keeps all.

    With 0, and a beam that holds every prefix, the search is exact.
    """
    max_tokens: int = 20
    """Symbols that a frame keeps at most, the most probable ones."""

    def __post_init__(self) -> None:
        for name in ("beam", "nbest", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
        if self.beam > MOST_HYPOTHESES:
            raise ValueError(f"`beam` must be at most {MOST_HYPOTHESES}, but is {self.beam}.")
        if self.nbest > self.beam:
            raise ValueError(f"`nbest` must be at most `beam` ({self.beam}), but is {self.nbest}.")
        if not 0 <= self.min_prob < 1:
            raise ValueError(f"`min_prob` must lie in [0, 1), but is {self.min_prob}.")


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One transcript of an utterance."""

    tokens: tuple[int, ...]
    """Ids of its symbols, without blanks; `alignment.align` gives them frames."""
    log_prob: float
    """Log of the probability, summed over the paths that were searched; by its sound alone."""
    score: float
    """`log_prob` and what language models and hotwords add, by which hypotheses are ranked."""


def beam_search(
    log_probs: Sequence[np.ndarray],
    blank: int,
    *,
    settings: BeamSettings | None = None,
    scorers: Sequence[Automaton] = (),
) -> list[list[Hypothesis]]:
    """Find the most probable transcripts of utterances.

    Unlike the greedy search, which takes the best path, this adds up all paths of a transcript. What a
    transcript earns from `scorers` counts from its first symbol on, as if its sound were so much likelier.

    Args:
        log_probs: (T, N) log-probabilities of each utterance, without padding; T may be 0.
        blank: Id of the CTC blank.
        settings: How wide to search; None takes the defaults.
        scorers: Language models, hotwords.

    Returns:
        For each utterance its transcripts, the best first: `nbest`, or as many as there are.

    Raises:
        ValueError: If an array does not have two axes, holds NaN or values above 0, or `blank` is not in
            [0, N).

    Source:
        Hannun et al. 2014, First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
        Recurrent DNNs (arXiv:1408.2873), algorithm 1.
    """
    settings = settings or BeamSettings()
    if not log_probs:
        return []
    frames = _Frames([_checked(rows, blank) for rows in log_probs], blank, settings)
    beams = _Beams.start(len(log_probs), blank, scorers)
    history = _History()
    keys = _symbol_keys(log_probs[0].shape[1])
    for step in range(frames.num_steps):
        beams = _advance(beams, frames, step, settings.beam, scorers, keys, history)
    return _hypotheses(beams, frames.tails, scorers, history, settings.nbest)


def _checked(rows: np.ndarray, blank: int) -> np.ndarray:
    """The array, if it can be searched."""
    if rows.ndim != 2:
        raise ValueError(f"`log_probs` must have shape (T, N), but has {tuple(rows.shape)}.")
    if not 0 <= blank < rows.shape[1]:
        raise ValueError(f"`blank` must lie in [0, {rows.shape[1]}), but is {blank}.")
    largest = rows.max(initial=NEVER)
    if not largest <= MAX_LOG_PROB:  # written so that NaN fails too
        raise ValueError(
            f"`log_probs` must be at most 0 and not NaN, but has {largest:.4g}; apply log_softmax to logits."
        )
    return rows


class _Frames:
    """What is left of the frames: per step and utterance the symbols to try, the most probable first.

    Frames with nothing but the blank belong to the gap before the next step. An utterance that has fewer
    steps than others ends in steps that change nothing.
    """

    def __init__(self, log_probs: Sequence[np.ndarray], blank: int, settings: BeamSettings) -> None:
        B, N = len(log_probs), log_probs[0].shape[1]
        num_kept = min(settings.max_tokens, N - 1)
        pruned = [_prune(rows, blank, settings.min_prob, num_kept) for rows in log_probs]
        steps = [np.flatnonzero(kept[:, 0] > NEVER) for _, kept in pruned]
        J = self.num_steps = max(map(len, steps))
        # One symbol more, which is never: where a symbol that the frame does not keep is looked up.
        self.tokens = np.full((J, B, num_kept + 1), blank)
        self.kept = np.full((J, B, num_kept + 1), NEVER)
        self.blanks = np.zeros((J, B))
        self.gaps = np.zeros((J, B))
        self.is_gap = np.zeros((J, B), np.bool_)
        self.tails = np.zeros(B)
        for row, (rows, (tokens, kept), places) in enumerate(zip(log_probs, pruned, steps, strict=True)):
            n = len(places)
            self.tokens[:n, row, :num_kept] = tokens[places]
            self.kept[:n, row, :num_kept] = kept[places]
            self.blanks[:n, row] = rows[places, blank]
            sums = np.concatenate([[0.0], np.cumsum(rows[:, blank], dtype=np.float64)])
            edges = [-1, *places.tolist(), len(rows)]
            gaps = [sums[right] - sums[left + 1] for left, right in pairwise(edges)]
            self.gaps[:n, row], self.tails[row] = gaps[:-1], gaps[-1]
            self.is_gap[:n, row] = np.diff(edges[:-1]) > 1
        self.has_gap = self.is_gap.max(axis=1, initial=False)
        self.sizes = (self.kept > NEVER).sum(axis=2).max(axis=1, initial=0)
        # Which column of a frame holds a symbol: its last one, which is never, where none does.
        self.columns = np.full((J, B, N), num_kept)
        np.put_along_axis(
            self.columns,
            np.where(self.kept > NEVER, self.tokens, blank),
            np.where(self.kept > NEVER, np.arange(num_kept + 1), num_kept),
            axis=2,
        )


def _prune(rows: np.ndarray, blank: int, min_prob: float, num_kept: int) -> tuple[Ints, Floats]:
    """The best symbols of every frame and their log-probabilities, those too improbable as never."""
    spoken = rows.astype(np.float64)
    spoken[:, blank] = NEVER
    tokens = np.argsort(-spoken, axis=1, kind="stable")[:, :num_kept]
    kept = np.take_along_axis(spoken, tokens, axis=1)
    least = np.log(min_prob) if min_prob > 0 else NEVER
    is_kept = kept >= least
    if num_kept:
        is_kept[:, 0] |= kept[:, 0] > rows[:, blank]
    return tokens, np.where(is_kept, kept, NEVER)


@dataclass(slots=True)
class _Beams:
    """The hypotheses that are alive: arrays of (B, W)."""

    ends_blank: Floats
    """Log-probability of the paths that end in a blank."""
    ends_symbol: Floats
    """Log-probability of the paths that end in the last symbol."""
    last: Ints
    """The last symbol; the blank of the empty transcript."""
    key: Keys
    """Hash of the symbols."""
    parent: Keys
    """Hash of all symbols but the last."""
    bonus: Floats
    """What the scorers have given so far."""
    states: list[Ints]
    """State of each scorer."""

    @classmethod
    def start(cls, num_utterances: int, blank: int, scorers: Sequence[Automaton]) -> "_Beams":
        """The empty transcript alone."""
        shape = (num_utterances, 1)
        return cls(
            ends_blank=np.zeros(shape),
            ends_symbol=np.full(shape, NEVER),
            last=np.full(shape, blank),
            key=np.full(shape, _EMPTY),
            parent=np.full(shape, _NO_PARENT),
            bonus=np.zeros(shape),
            states=[np.full(shape, scorer.start) for scorer in scorers],
        )


@dataclass(slots=True)
class _History:
    """Where the hypotheses of every step came from."""

    sources: list[npt.NDArray[np.int16]] = field(default_factory=list)
    """Of each step: (B, W) place in the step before."""
    tokens: list[npt.NDArray[np.int32]] = field(default_factory=list)
    """Of each step: (B, W) symbol that was added, or -1."""


def _symbol_keys(num_symbols: int) -> Keys:
    """A random number for every symbol, the same in every run."""
    return np.random.default_rng(0).integers(2**63, size=num_symbols, dtype=np.uint64)


def _advance(
    beams: _Beams,
    frames: _Frames,
    step: int,
    beam: int,
    scorers: Sequence[Automaton],
    keys: Keys,
    history: _History,
) -> _Beams:
    """Take one step with all hypotheses: stay, or go on by a symbol; keep the best."""
    K = int(frames.sizes[step]) + 1
    tokens = frames.tokens[step, :, :K]  # (B, K)
    columns = np.minimum(frames.columns[step], K - 1)  # (B, N)
    B, W = beams.last.shape
    row = np.arange(B)[:, None]

    ends_blank, ends_symbol = beams.ends_blank, beams.ends_symbol
    total = np.logaddexp(ends_blank, ends_symbol)
    if frames.has_gap[step]:
        is_gap = frames.is_gap[step][:, None]
        total = total + frames.gaps[step][:, None]
        ends_blank, ends_symbol = np.where(is_gap, total, ends_blank), np.where(is_gap, NEVER, ends_symbol)

    # A symbol that comes twice needs a blank between: only paths that end in one go on by it.
    kept = frames.kept[step, :, None, :K]
    is_repeat = beams.last[:, :, None] == tokens[:, None, :]
    longer = np.where(is_repeat, ends_blank[:, :, None], total[:, :, None]) + kept  # (B, W, K)
    column = columns[row, beams.last]
    stays_blank = total + frames.blanks[step][:, None]
    stays_symbol = ends_symbol + frames.kept[step][row, column]

    # A hypothesis that another one becomes by its last symbol takes over the other's paths.
    where, child, source = np.nonzero(beams.parent[:, :, None] == beams.key[:, None, :])
    if len(where):
        at = (where, source, column[where, child])
        stays_symbol[where, child] = np.logaddexp(stays_symbol[where, child], longer[at])
        longer[at] = NEVER

    bonus = np.broadcast_to(beams.bonus[:, :, None], (B, W, K))
    states = []
    for scorer, state in zip(scorers, beams.states, strict=True):
        earned, targets = scorer.expand(state, tokens)
        bonus = bonus + earned
        states.append(np.concatenate([state, targets.reshape(B, -1)], axis=1))
    symbol = np.concatenate([stays_symbol, longer.reshape(B, -1)], axis=1)  # (B, W + W * K)
    bonuses = np.concatenate([beams.bonus, bonus.reshape(B, -1)], axis=1)
    ranks = symbol + bonuses
    ranks[:, :W] = np.logaddexp(stays_blank, stays_symbol) + beams.bonus
    if ranks.shape[1] > beam:
        best = np.argpartition(-ranks, beam - 1, axis=1)[:, :beam]
    else:
        best = np.broadcast_to(np.arange(ranks.shape[1]), ranks.shape)
    return _select(beams, best, ranks, symbol, stays_blank, bonuses, states, tokens, keys, history)


def _select(
    beams: _Beams,
    best: Ints,
    ranks: Floats,
    symbol: Floats,
    stays_blank: Floats,
    bonuses: Floats,
    states: list[Ints],
    tokens: Ints,
    keys: Keys,
    history: _History,
) -> _Beams:
    """Make beams of the chosen candidates, those that stay first among them, and note their origin."""
    W, K = beams.last.shape[1], tokens.shape[1]
    row = np.arange(len(best))[:, None]
    is_longer = best >= W
    source = np.where(is_longer, (best - W) // K, best)
    added = tokens[row, (best - W) % K]
    parent, old_parent = beams.key[row, source], beams.parent[row, source]
    key = (parent + keys[added]) * _FACTOR
    key ^= key >> _SHIFT
    chosen = _Beams(
        ends_blank=np.where(is_longer, NEVER, stays_blank[row, source]),
        ends_symbol=symbol[row, best],
        last=np.where(is_longer, added, beams.last[row, source]),
        key=np.where(is_longer, key, parent),
        parent=np.where(is_longer, parent, old_parent),
        bonus=bonuses[row, best],
        states=[state[row, best] for state in states],
    )
    is_dead = np.equal(ranks[row, best], NEVER)
    if is_dead.any():
        # It would take the paths of a living one with the same symbols.
        chosen.key = np.where(is_dead, _DEAD, chosen.key)
        chosen.parent = np.where(is_dead, _DEAD_PARENT, chosen.parent)
    history.sources.append(source.astype(np.int16))
    history.tokens.append(np.where(is_longer, added, -1).astype(np.int32))
    return chosen


def _hypotheses(
    beams: _Beams, tails: Floats, scorers: Sequence[Automaton], history: _History, nbest: int
) -> list[list[Hypothesis]]:
    """Rank the hypotheses of every utterance and follow the best ones back to the start."""
    log_prob = np.logaddexp(beams.ends_blank, beams.ends_symbol) + tails[:, None]
    score = log_prob + beams.bonus
    for scorer, state in zip(scorers, beams.states, strict=True):
        score = score + scorer.finish(state)
    places = np.argsort(-score, axis=1, kind="stable")[:, :nbest]  # (B, M)
    rows = np.arange(len(places))[:, None]
    best_log_prob, best_score = log_prob[rows, places], score[rows, places]
    origin = np.empty((len(history.tokens), *places.shape), np.int32)
    for step in range(len(history.tokens) - 1, -1, -1):
        origin[step] = history.tokens[step][rows, places]
        places = history.sources[step][rows, places].astype(np.int64)
    found: list[list[Hypothesis]] = []
    for row in range(len(places)):
        found.append([])
        for rank in range(places.shape[1]):
            if best_score[row, rank] == NEVER:
                continue
            added = origin[:, row, rank]
            found[-1].append(
                Hypothesis(
                    tokens=tuple(added[added >= 0].tolist()),
                    log_prob=float(best_log_prob[row, rank]),
                    score=float(best_score[row, rank]),
                )
            )
    return found
