"""What all requests share: the model's thread, the decoding processes, the places and the counters."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import perf_counter
from typing import TypeVar

import anyio
from starlette.requests import Request

from unispeech.serving.meters import Meters
from unispeech.serving.refusals import Refusal, busy, unavailable
from unispeech.serving.served import Served
from unispeech.serving.settings import ServerSettings
from unispeech.serving.uploads import Uploads
from unispeech.serving.worker import AbandonedError, State, Task, Worker

NOTES = "unispeech.notes"
"""Where in an ASGI scope stands what the log says of a request."""

R = TypeVar("R")


class Service:
    """The running parts of a server.

    Args:
        settings: What the server was told.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.uploads = Uploads(settings.limits)
        self.num_requests = 0
        self.num_streams = 0
        self.is_stopping = False
        self.meters = Meters(
            num_waiting=lambda: self.worker.num_waiting,
            num_requests=lambda: self.num_requests,
            num_streams=lambda: self.num_streams,
        )
        self.worker: Worker[Served] = Worker(
            lambda: Served(settings.model),
            batch_seconds=settings.model.batch_seconds,
            on_batch=self.meters.count_batch,
        )

    @property
    def state(self) -> State:
        """Whether requests are taken."""
        return "stopping" if self.is_stopping else self.worker.state

    @property
    def served(self) -> Served:
        """The model.

        Raises:
            Refusal: If it is not loaded yet.
        """
        if self.worker.state == "starting":
            raise unavailable("starting")
        return self.worker.model

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the model and keep all parts running while the context lasts.

        Yields:
            Nothing; the model is still being loaded then.
        """
        async with self.uploads.running():
            self.worker.start()
            try:
                yield
            finally:
                self.is_stopping = True
                await anyio.to_thread.run_sync(self.worker.stop)
                if self.worker.loaded.done() and self.worker.loaded.exception() is None:
                    self.worker.model.close()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold the place of a request.

        Yields:
            Nothing.

        Raises:
            Refusal: If the server does not serve, or all places are taken.
        """
        if self.state != "ready":
            raise unavailable(self.state)
        if self.num_requests >= self.limits.max_requests:
            raise busy(f"all {self.limits.max_requests} places are taken; try again in a moment.")
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1

    @contextmanager
    def stream_place(self) -> Iterator[None]:
        """Hold the place of a stream.

        Yields:
            Nothing.

        Raises:
            Refusal: If the server does not serve, or all places are taken.
        """
        if self.state != "ready":
            raise unavailable(self.state)
        if self.num_streams >= self.limits.max_streams:
            raise busy(f"all {self.limits.max_streams} streams are taken; try again later.", retry_seconds=10)
        self.num_streams += 1
        try:
            yield
        finally:
            self.num_streams -= 1

    async def do(self, request: Request, task: Task[R]) -> R:
        """Have the model's thread do something for a request.

        Args:
            request: Who asks; the log is told how it went.
            task: What to do.

        Returns:
            The result.

        Raises:
            Refusal: If the task finds something wrong with what was sent, or the server stops.
        """
        try:
            return await self.worker.do(task)
        except AbandonedError as error:
            raise unavailable("stopping") from error
        except ValueError as error:
            raise Refusal(422, self._without_paths(str(error)), code="cannot_be_done") from error
        finally:
            notes = request.scope.setdefault(NOTES, {})
            if task.began:
                notes["waited"] = f"{task.began - task.came:.3f}s"
                notes["ran"] = f"{perf_counter() - task.began:.3f}s"
            if task.num_together > 1:
                notes["batch"] = str(task.num_together)

    def _without_paths(self, message: str) -> str:
        """A message that does not tell where the server's files are."""
        lexicon = self.settings.model.lexicon
        return message if lexicon is None else message.replace(str(lexicon), lexicon.name)


async def while_there(request: Request, work: Awaitable[R]) -> R:
    """Do work for a client as long as it stays; when it leaves, the work is cancelled.

    Args:
        request: Its request, the body of which has been read.
        work: What to do.

    Returns:
        The result of the work.

    Raises:
        Refusal: If the client left.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Refusal(499, "the client has left.", code="client_left")
        return doing.result()
    finally:
        leaving.cancel()
        doing.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await doing


async def _left(request: Request) -> None:
    """Wait until a client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
