"""The one thread that runs the network, and how requests that wait together become a batch.

Shape in this file: S samples.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import perf_counter
from typing import Generic, Literal, TypeVar

from unispeech.audio import Waveform
from unispeech.frames import SAMPLE_RATE, Seconds

State = Literal["starting", "ready", "stopping"]
R = TypeVar("R")
M = TypeVar("M")

RunBatch = Callable[[Sequence[Waveform]], Sequence[R]]
"""Turns waveforms into as many results, each what it would be alone."""


STOP_SECONDS = 10.0
"""How long the thread has to finish a pass of the network."""


class AbandonedError(Exception):
    """Ends work that nobody waits for any more."""


class Task(Generic[R]):
    """Something to be done by the thread.

    Args:
        run: Does it alone; is given what to call from time to time, which lets others go first and raises
            `AbandonedError` when nobody waits any more.
        run_batch: Does it together with tasks that have the same `run_batch`; None: always alone.
        waveform: (S,) samples, where there is a `run_batch`.
        is_long: Whether it takes so long that others may go first when it lets them.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], R],
        *,
        run_batch: RunBatch[R] | None = None,
        waveform: Waveform | None = None,
        is_long: bool = False,
    ) -> None:
        self.run = run
        self.run_batch = run_batch
        self.waveform = waveform
        self.is_long = is_long
        self.future: Future[R] = Future()
        self.is_abandoned = False
        self.num_together = 0
        """Tasks of the batch in which it ran, itself included; 0 before."""
        self.came, self.began = perf_counter(), 0.0
        """When it was handed in and when it began, by `perf_counter`."""

    @property
    def num_samples(self) -> int:
        """S; 0 where there is no waveform."""
        return 0 if self.waveform is None else len(self.waveform)


class Worker(Generic[M]):
    """Loads a model and runs it, all on one thread.

    Tasks begin in the order in which they come. When the thread gets to a task that may share a pass, all
    that wait and may share it go along, those of the nearest length first, as far as `batch_seconds` allow. A
    long task gives way from time to time: a batch of what waits and is short runs in between.

    Args:
        load: Makes the model.
        batch_seconds: Most seconds of audio of a batch, padding included; 0: no batches.
        on_batch: Is told the number of tasks and the seconds of audio of each batch.
    """

    def __init__(
        self,
        load: Callable[[], M],
        *,
        batch_seconds: Seconds,
        on_batch: Callable[[int, Seconds], None] = lambda count, seconds: None,
    ) -> None:
        self._load = load
        self._batch_samples = batch_seconds * SAMPLE_RATE
        self._on_batch = on_batch
        self._waiting: deque[Task[object]] = deque()
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self.state: State = "starting"
        self.loaded: Future[M] = Future()

    @property
    def model(self) -> M:
        """The model, once it is loaded."""
        return self.loaded.result(timeout=0)

    @property
    def num_waiting(self) -> int:
        """Tasks that have not begun."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what has not begun, and wait a while for what has."""
        with self._condition:
            self.state = "stopping"
            for task in self._waiting:
                if task.future.set_running_or_notify_cancel():
                    task.future.set_exception(AbandonedError("the server stops."))
            self._waiting.clear()
            self._condition.notify()
        self._thread.join(STOP_SECONDS)

    async def do(self, task: Task[R]) -> R:
        """Wait for a task to be done; who is cancelled while he waits gives up his place.

        Args:
            task: What to do.

        Returns:
            Its result.
        """
        with self._condition:
            self._waiting.append(task)  # type: ignore[arg-type]
            self._condition.notify()
        try:
            return await asyncio.wrap_future(task.future)
        except asyncio.CancelledError:
            task.is_abandoned = True
            with self._condition:
                if task in self._waiting:
                    self._waiting.remove(task)  # type: ignore[arg-type]
            raise

    def _work(self) -> None:
        """The thread."""
        try:
            model = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        if self.state == "starting":
            self.state = "ready"
        self.loaded.set_result(model)
        while tasks := self._take():
            self._run(tasks)

    def _take(self) -> list[Task[object]]:
        """Wait for the next task and those that go along; none when all is over."""
        with self._condition:
            while not self._waiting:
                if self.state == "stopping":
                    return []
                self._condition.wait()
            return self._take_batch(self._waiting[0])

    def _take_batch(self, first: Task[object]) -> list[Task[object]]:
        """Take a waiting task and those that may share its pass."""
        batch, longest = [first], first.num_samples
        if first.run_batch is not None:
            others = [
                task for task in self._waiting if task is not first and task.run_batch == first.run_batch
            ]
            for task in sorted(others, key=lambda task: abs(task.num_samples - first.num_samples)):
                longest = max(longest, task.num_samples)
                if (len(batch) + 1) * longest > self._batch_samples:
                    break
                batch.append(task)
        for task in batch:
            self._waiting.remove(task)
        return batch

    def _run(self, tasks: Sequence[Task[object]]) -> None:
        """Run tasks together; where that fails, each alone, so that each gets its own error."""
        tasks = [task for task in tasks if task.future.set_running_or_notify_cancel()]
        now = perf_counter()
        for task in tasks:
            task.began, task.num_together = now, len(tasks)
        if not tasks:
            return
        self._on_batch(len(tasks), sum(task.num_samples for task in tasks) / SAMPLE_RATE)
        run_batch = tasks[0].run_batch
        if run_batch is not None:
            try:
                results = run_batch([task.waveform for task in tasks if task.waveform is not None])
                for task, result in zip(tasks, results, strict=True):
                    task.future.set_result(result)
                return
            except BaseException as error:  # whatever it is, the thread must live
                if len(tasks) == 1:
                    tasks[0].future.set_exception(error)
                    return
        for task in tasks:
            self._run_alone(task)

    def _run_alone(self, task: Task[object]) -> None:
        def give_way() -> None:
            if task.is_abandoned:
                raise AbandonedError("nobody waits any more.")
            self._run_short()

        try:
            task.future.set_result(task.run(give_way))
        except BaseException as error:
            task.future.set_exception(error)

    def _run_short(self) -> None:
        """Run one batch of what is short, if any waits."""
        with self._condition:
            first = next((task for task in self._waiting if not task.is_long), None)
            batch = [] if first is None else self._take_batch(first)
        if batch:
            self._run(batch)
