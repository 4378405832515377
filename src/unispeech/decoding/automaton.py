"""What a transcript earns besides its sound: scores of symbols by what stood before them, state by state.

A language model, hotwords and anything else that the beam search heeds is an automaton over the ids of the
vocabulary: from a state, every symbol leads on to a state and earns a score. States are numbered as they are
met, and the arcs of a state are computed when a hypothesis first comes to it, so that a model of millions of
n-grams costs only what an utterance visits.

Shapes in this file: B utterances, W hypotheses of each, K symbols of a frame, N vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

State = TypeVar("State", bound=Hashable)

FIRST_CAPACITY = 64
"""States for which there is room at first."""


class Automaton(ABC):
    """Scores for symbols that depend on the symbols before them.

    Args:
        num_symbols: Size of the vocabulary N.
        start: State before the first symbol: anything that can be a key.
    """

    def __init__(self, num_symbols: int, start: Hashable) -> None:
        self.num_symbols = num_symbols
        self._states: list[Hashable] = []
        self._numbers: dict[Hashable, int] = {}
        self._scores = np.zeros((FIRST_CAPACITY, num_symbols))
        self._targets = np.zeros((FIRST_CAPACITY, num_symbols), np.int64)
        self._is_filled = np.zeros(FIRST_CAPACITY, np.bool_)
        self._finals: dict[int, float] = {}
        self.start = self.number(start)
        """Number of the state before the first symbol."""

    @abstractmethod
    def arcs(self, state: Hashable) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Compute where every symbol leads from a state.

        Args:
            state: The state.

        Returns:
            (N,) scores in nats, and (N,) numbers of the states behind, from `number`.
        """

    @abstractmethod
    def final(self, state: Hashable) -> float:
        """Compute what a transcript earns by ending in a state.

        Args:
            state: The state.

        Returns:
            Score in nats.
        """

    def number(self, state: Hashable) -> int:
        """Give a state its number.

        Args:
            state: The state.

        Returns:
            The same number whenever it comes.
        """
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self._states)
            self._states.append(state)
        return found

    def expand(
        self, states: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Look up what the symbols of a frame earn behind every hypothesis.

        Args:
            states: (B, W) numbers of states.
            tokens: (B, K) ids.

        Returns:
            (B, W, K) scores in nats, and (B, W, K) numbers of the states behind.
        """
        if states.max() >= len(self._is_filled) or not self._is_filled[states].all():
            self._fill(np.unique(states))
        index = states[:, :, None] * self.num_symbols + tokens[:, None, :]
        return self._scores.ravel()[index], self._targets.ravel()[index]

    def finish(self, states: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Look up what ending earns.

        Args:
            states: Numbers of states, any shape.

        Returns:
            Scores in nats, the same shape.
        """
        numbers, places = np.unique(states, return_inverse=True)
        for number in numbers.tolist():
            if number not in self._finals:
                self._finals[number] = self.final(self._states[number])
        return np.array([self._finals[number] for number in numbers.tolist()])[places].reshape(states.shape)

    def score(self, tokens: list[int]) -> float:
        """Score a whole transcript.

        Args:
            tokens: Ids of its symbols.

        Returns:
            Nats, its end included.
        """
        state, total = np.array([[self.start]]), 0.0
        for token in tokens:
            earned, targets = self.expand(state, np.array([[token]]))
            total, state = total + float(earned[0, 0, 0]), targets[0]
        return total + float(self.finish(state)[0, 0])

    def _fill(self, numbers: npt.NDArray[np.int64]) -> None:
        """Compute the arcs of states that are met for the first time."""
        for number in numbers.tolist():
            if number < len(self._is_filled) and self._is_filled[number]:
                continue
            scores, targets = self.arcs(self._states[number])
            if number >= len(self._is_filled):
                self._grow(len(self._states))
            self._scores[number], self._targets[number] = scores, targets
            self._is_filled[number] = True

    def _grow(self, num_states: int) -> None:
        """Make room, twice as much each time."""
        capacity = max(num_states, 2 * len(self._is_filled))
        more = capacity - len(self._is_filled)
        self._scores = np.concatenate([self._scores, np.zeros((more, self.num_symbols))])
        self._targets = np.concatenate([self._targets, np.zeros((more, self.num_symbols), np.int64)])
        self._is_filled = np.concatenate([self._is_filled, np.zeros(more, np.bool_)])
