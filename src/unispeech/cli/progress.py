"""How far a verb has come through its recordings, in seconds of audio, on stderr."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0
"""What takes less shows nothing."""


@contextmanager
def audio_progress(measure: Callable[[], float]) -> Iterator[Callable[[float], None]]:
    """Show a bar with audio seconds and the time left, if stderr is a terminal and the work takes long.

    Args:
        measure: Finds the seconds of audio in all; not called where nothing is shown.

    Yields:
        What takes the seconds of each recording when it is done.
    """
    if not sys.stderr.isatty():
        yield lambda seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s of audio"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        # Results on a terminal go above the bar; into a pipe or a file they must go as they are.
        redirect_stdout=sys.stdout.isatty(),
    )
    task = progress.add_task("", total=measure())
    timer = threading.Timer(PATIENCE_SECONDS, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda seconds: progress.advance(task, seconds)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()
