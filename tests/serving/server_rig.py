"""Servers of tiny models, inside this process and outside of it."""

import io
import threading
import time
from contextlib import contextmanager

import soundfile
import uvicorn
from starlette.testclient import TestClient

from tiny_recognisers import babble
from unispeech.serving.app import create_app
from unispeech.serving.service import Service
from unispeech.serving.settings import Limits, ModelSettings, ServerSettings
from unispeech.serving.worker import Task


def wav(seconds: float, seed: int = 0, rate: int = 16_000, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, babble(seconds, seed), rate, format="WAV", subtype="PCM_16", **options)
    return file.getvalue()


def settings(model, *, limits=None, key=None, origins=(), **options) -> ServerSettings:
    return ServerSettings(
        model=ModelSettings(model=str(model), device="cpu", **options),
        limits=limits or Limits(),
        api_key=key,
        allowed_origins=origins,
    )


class Server:
    """An application with its service, and a client of it that waits until the model is loaded."""

    def __init__(self, given: ServerSettings) -> None:
        self.service = Service(given)
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def __enter__(self):
        self.client.__enter__()
        self.service.worker.loaded.result(timeout=60)
        return self

    def __exit__(self, *error):
        self.client.__exit__(*error)

    def send(self, path="/v1/audio/transcriptions", audio=None, name="talk.wav", headers=None, **fields):
        files = {"file": (name, wav(0.5) if audio is None else audio)}
        return self.client.post(path, files=files, data=fields, headers=headers)

    def transcribe(self, audio=None, **fields):
        return self.send(audio=audio, **fields)


def refusal(response) -> tuple[int, str]:
    """Status and message of an error in OpenAI's form."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return response.status_code, error["message"]


@contextmanager
def busy(worker):
    """Keep the thread of a worker busy until told, or until the context ends.

    Yields:
        What lets it go on.
    """
    hold = threading.Event()
    task = Task(lambda give_way: hold.wait(30))
    with worker._condition:
        worker._waiting.append(task)
        worker._condition.notify()
    wait_until(task.future.running)
    try:
        yield hold.set
    finally:
        hold.set()


def wait_until(holds, seconds=20.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def listening(given: ServerSettings):
    """A server that listens at a free port of this machine, in a thread of this process.

    Yields:
        Its address and its service.
    """
    service = Service(given)
    config = uvicorn.Config(
        create_app(service), port=0, http="h11", ws="websockets-sansio", log_config=None, ws_max_size=2**20
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    service.worker.loaded.result(timeout=120)
    [port] = {socket.getsockname()[1] for each in server.servers for socket in each.sockets}
    try:
        yield f"http://127.0.0.1:{port}", service
    finally:
        server.should_exit = True
        thread.join(30)
