"""Sound over a WebSocket -> phones that stay and phones that may still change.

A client may send `{"type": "start", "sample_rate": 16000, "api_key": KEY}` first, as text; all fields but the
type may be left out. Then it sends sound: binary frames of any size, 16-bit little-endian samples, one
channel. It ends with `{"type": "stop"}`. The server sends `ready`, `partial` whenever the network has heard
more, `final`, and closes. Whatever is wrong closes the connection with a code and a reason.

Shape in this file: S samples.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import soxr
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.types import Message

from unispeech.audio import Waveform
from unispeech.formats.json import NUM_DECIMALS, to_jsonl
from unispeech.frames import SAMPLE_RATE, Seconds
from unispeech.pipelines.streaming import Partial, StreamingTranscriber
from unispeech.results import Transcript
from unispeech.serving.answers import spoken_phones
from unispeech.serving.gate import check_key
from unispeech.serving.refusals import Refusal, shown
from unispeech.serving.service import NOTES, Service
from unispeech.serving.worker import AbandonedError, Task

RATES = (8000, 96_000)
"""Lowest and highest sample rate that is taken, in Hz."""
STEP_SECONDS = 0.5
"""Sound that is waited for before the network hears it."""
HELD_SECONDS = 30.0
"""Sound that is held while the network is behind; a client that sends more has to wait."""

UNSUPPORTED, INVALID, POLICY, BROKEN, RESTART, LATER = 1003, 1007, 1008, 1011, 1012, 1013
"""Close codes of RFC 6455 and its registry."""
CODES = {401: POLICY, 404: POLICY, 429: LATER, 503: RESTART}
"""HTTP status of a refusal -> close code."""


class ClosingError(Exception):
    """Ends a stream.

    Args:
        code: Close code.
        reason: One line.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Start:
    """What a client says first."""

    sample_rate: int = SAMPLE_RATE
    """Rate of its samples in Hz."""
    api_key: str | None = None
    """The key, which pages cannot send as a header."""


def stream_routes(service: Service) -> APIRouter:
    """Make the route.

    Args:
        service: What does the work.

    Returns:
        A router.
    """
    router = APIRouter()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        connection = _Connection(service, socket)
        reading = asyncio.create_task(connection.read())
        try:
            await connection.answer()
            await socket.close()
        except ClosingError as closing:
            await _close(socket, closing.code, str(closing))
        except Refusal as refusal:
            await _close(socket, CODES.get(refusal.status_code, POLICY), refusal.detail)
        except AbandonedError:
            await _close(socket, RESTART, "the server is stopping.")
        except WebSocketDisconnect:
            pass
        finally:
            reading.cancel()

    return router


def parse_start(text: str) -> Start:
    """Read a start message.

    Args:
        text: The message.

    Returns:
        What it says.

    Raises:
        ClosingError: If it is none, or the rate is out of its range.
    """
    message = parse_message(text)
    if message.get("type") != "start":
        raise _text_for_sound(text)
    rate, key = message.get("sample_rate", SAMPLE_RATE), message.get("api_key")
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        found = shown(repr(rate), longest=20)
        raise ClosingError(
            INVALID, f"`sample_rate` must be a whole number in [{RATES[0]}, {RATES[1]}], but is {found}."
        )
    unknown = message.keys() - {"type", "sample_rate", "api_key"}
    if unknown:
        name = shown(min(unknown), longest=20)
        raise ClosingError(INVALID, f"start has the fields `sample_rate` and `api_key`, but not `{name}`.")
    return Start(rate, key if isinstance(key, str) else None)


def parse_message(text: str) -> dict[str, object]:
    """Read a text message.

    Args:
        text: The message.

    Returns:
        Its fields; none where it is no JSON object.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


class _Connection:
    """One stream: what comes in is held until the network has time for it."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self.service, self.socket = service, socket
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._start: Start | None = None
        self._held = bytearray()
        self._num_samples = 0
        self._is_over = False
        self._end: Exception | None = None

    @property
    def rate(self) -> int:
        """Sample rate of what the client sends."""
        return SAMPLE_RATE if self._start is None else self._start.sample_rate

    async def read(self) -> None:
        """Take messages until the client says that it is done, leaves, or does something wrong."""
        try:
            while not self._is_over:
                self._take(await self._receive())
                self._news.set()
                while len(self._held) > HELD_SECONDS * self.rate * 2:
                    self._room.clear()
                    await self._room.wait()
        except (ClosingError, WebSocketDisconnect) as end:
            self._end = end
            self._news.set()

    async def answer(self) -> None:
        """Send what is understood, until all is."""
        while self._start is None:
            await self._next()
        key = self._start.api_key
        check_key(self.service, self.socket.headers.get("authorization") if key is None else f"Bearer {key}")
        with self.service.stream_place():
            stream = self.service.served.open_stream()
            resample = _resampler(self.rate)
            name = self.service.settings.model.shown_name
            await self._send({
                "type": "ready",
                "model": name,
                "sample_rate": self.rate,
                "latency": stream.latency,
            })
            while not self._is_over:
                if len(self._held) >= STEP_SECONDS * self.rate * 2:
                    partial = await self.service.worker.do(_feeding(stream, resample(self._let_go(), False)))
                    if partial is not None:
                        await self._send(_partial(partial, self._num_samples / self.rate))
                await self._next()
            rest = resample(self._let_go(), True)
            transcript = await self.service.worker.do(_finishing(stream, rest))
            self.socket.scope.setdefault(NOTES, {})["audio"] = f"{transcript.duration:.2f}s"
            await self._send({"type": "final", "transcript": json.loads(to_jsonl(transcript))})

    async def _receive(self) -> Message:
        """The next message."""
        seconds = self.service.limits.idle_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await self.socket.receive()
        except TimeoutError as error:
            raise ClosingError(
                POLICY, f"something must come every {seconds:g} s, but nothing came."
            ) from error
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        return message

    def _take(self, message: Message) -> None:
        """Note what a message says, or hold its sound."""
        text, sound = message.get("text"), message.get("bytes") or b""
        if text is not None:
            if parse_message(text).get("type") == "stop":
                self._is_over = True
            elif self._start is None:
                self._start = parse_start(text)
            else:
                raise _text_for_sound(text)
        self._start = self._start or Start()
        if len(sound) % 2:
            raise ClosingError(
                INVALID, f"frames must hold whole 16-bit samples, but one has {len(sound)} bytes."
            )
        self._held += sound
        self._num_samples += len(sound) // 2
        longest = self.service.limits.max_seconds
        if self._num_samples > longest * self.rate:
            raise ClosingError(POLICY, f"a stream must last at most {longest:g} s; open another one.")

    async def _next(self) -> None:
        """Wait until something has come."""
        await self._news.wait()
        self._news.clear()
        if self._end is not None:
            raise self._end

    def _let_go(self) -> Waveform:
        """The sound that is held, (S,) at the client's rate; there is room for more then."""
        samples = np.frombuffer(bytes(self._held), "<i2").astype(np.float32) / np.float32(2**15)
        self._held.clear()
        self._room.set()
        return samples

    async def _send(self, message: dict[str, object]) -> None:
        await self.socket.send_text(json.dumps(message, ensure_ascii=False))


def _resampler(rate: int) -> Callable[[Waveform, bool], Waveform]:
    """What makes 16 kHz of blocks of another rate, the last of which is told as such."""
    if rate == SAMPLE_RATE:
        return lambda samples, is_last: samples
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    return lambda samples, is_last: np.asarray(stream.resample_chunk(samples, last=is_last), np.float32)


def _feeding(stream: StreamingTranscriber, samples: Waveform) -> Task[Partial | None]:
    """The task of hearing some sound; a resampler may have given none yet."""
    return Task(lambda give_way: stream.feed(samples) if len(samples) else None)


def _finishing(stream: StreamingTranscriber, samples: Waveform) -> Task[Transcript]:
    """The task of hearing the last sound."""

    def run(give_way: Callable[[], None]) -> Transcript:
        if len(samples):
            stream.feed(samples)
        return stream.finish()

    return Task(run)


def _partial(partial: Partial, seconds: Seconds) -> dict[str, object]:
    """What is known after some seconds."""
    return {
        "type": "partial",
        "seconds": round(seconds, NUM_DECIMALS),
        "stable": [phone.model_dump() for phone in spoken_phones(partial.new)],
        "provisional": {
            "text": partial.provisional.text,
            "phones": [phone.model_dump() for phone in spoken_phones(partial.provisional.phones)],
        },
    }


def _text_for_sound(text: str) -> ClosingError:
    return ClosingError(
        UNSUPPORTED, f"sound must come as binary frames, but text came: {shown(text, longest=20)}"
    )


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close with a reason, which may have 123 bytes."""
    with suppress(RuntimeError):  # the client was quicker
        await socket.close(code, reason.encode()[:123].decode(errors="ignore"))
