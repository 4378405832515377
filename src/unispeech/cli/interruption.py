"""Signals that come while a training is not yet, or no longer, able to take them."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process with one line and status 130 or 143.

    While modules are imported and data are looked at, an exception from a signal may come up inside of any
    library, which may swallow it or tell it in a page. Nothing is open then that would have to be closed. The
    training loop has handlers of its own while it runs.

    Yields:
        Nothing.
    """
    earlier = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":
        name = signal.Signals(number).name
        print(f"unispeech: stopped by {name}; checkpoints stay as they are.", file=sys.stderr, flush=True)
    os._exit(128 + number)
