"""What is started ahead and finished in its turn: the network works while results are made of its last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

K = TypeVar("K")
R = TypeVar("R")


def in_turn(
    started: Iterable[tuple[K, Callable[[], R]]], num_ahead: Callable[[], int]
) -> Iterator[tuple[K, R]]:
    """Finish jobs in the order in which they are started.

    Args:
        started: Starts the next job when it is asked for it: what it is about, and what waits for its result.
        num_ahead: How many further jobs are started before the first unfinished one is waited for; asked
            again for every job.

    Yields:
        What each job is about, and its result.
    """
    waiting: deque[tuple[K, Callable[[], R]]] = deque()
    for job in started:
        waiting.append(job)
        while len(waiting) > num_ahead():
            subject, finish = waiting.popleft()
            yield subject, finish()
    for subject, finish in waiting:
        yield subject, finish()
