"""A server from its start to its end."""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType

import uvicorn

from unispeech.serving.app import create_app
from unispeech.serving.served import Served
from unispeech.serving.service import Service
from unispeech.serving.settings import ServerSettings

MAX_FRAME_BYTES = 2**20
"""Largest message of a WebSocket: half a minute of sound."""


def serve(settings: ServerSettings, *, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until the process is told to stop by SIGTERM or SIGINT, then finish what was begun.

    Args:
        settings: What to serve, and how.
        on_ready: Is told the address once the model is loaded.

    Raises:
        CheckpointError: If the model cannot be loaded.
        OSError: If the address cannot be listened at.
        ValueError: If a setting of the model is out of its range.
    """
    service = Service(settings)
    with _listen(settings.host, settings.port) as listening, _logging():
        config = uvicorn.Config(
            create_app(service),
            http="h11",
            ws="websockets-sansio",
            ws_max_size=MAX_FRAME_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.limits.stop_seconds),
        )
        server = _Server(config, service)

        def loaded(future: Future[Served]) -> None:
            if future.exception() is None:
                on_ready(_address(listening))
            else:
                server.should_exit = True

        service.worker.loaded.add_done_callback(loaded)
        server.run(sockets=[listening])
    if service.worker.loaded.done():
        service.worker.loaded.result()


class _Server(uvicorn.Server):
    """A server that tells its service when it is told to stop, and ends as having done its work."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second time, stop at once."""
        self.service.is_stopping = True
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to signals as long as the server runs."""
        before = {name: signal.signal(name, self.handle_exit) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(
            f"`host` and `port` must be free to listen at, but {host}:{port} is not ({reason}); "
            "choose others."
        ) from error


def _address(listening: socket.socket) -> str:
    """The address of the page."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _logging() -> Iterator[None]:
    """Write a line for each request, and what goes wrong, to stderr.

    Yields:
        Nothing.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    levels = {"unispeech.serving": logging.INFO, "uvicorn.error": logging.WARNING}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in levels:
            logging.getLogger(name).removeHandler(handler)
