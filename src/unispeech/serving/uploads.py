"""Uploads -> waveforms, by way of processes that may die.

Shape in this file: S samples.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio
import numpy as np

from unispeech.audio import Waveform
from unispeech.frames import SAMPLE_RATE, Seconds
from unispeech.serving.refusals import Refusal, shown
from unispeech.serving.settings import Limits

NUM_PROCESSES = 2
"""Uploads that are decoded at once."""


@dataclass(frozen=True)
class Upload:
    """A recording that a client sent."""

    name: str
    """What the client calls it, fit for messages; never opened."""
    waveform: Waveform
    """(S,) float32 samples at 16 kHz; they stay in a file that has no name any more."""

    @property
    def duration(self) -> Seconds:
        """Its length."""
        return len(self.waveform) / SAMPLE_RATE


class Uploads:
    """Decodes uploads in a few processes, with files in a folder of its own that nobody else can read.

    Args:
        limits: Longest recording, and longest time to decode one.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._idle: asyncio.Queue[_Process] = asyncio.Queue()
        self._folder = Path()
        self._count = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the folder and the processes while the context lasts.

        Yields:
            Nothing.
        """
        async with AsyncExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unispeech-")))
            for _ in range(NUM_PROCESSES):
                process = _Process()
                stack.push_async_callback(process.kill)
                self._idle.put_nowait(process)
            yield

    async def decode(self, file: BinaryIO, filename: str | None) -> Upload:
        """Decode what a client sent.

        Args:
            file: The bytes, read from where the file stands.
            filename: What the client calls it.

        Returns:
            The recording.

        Raises:
            Refusal: If it is not audio, too long, or takes too long to decode.
        """
        name = shown(filename)
        self._count += 1
        audio = self._folder / f"{self._count}.audio"
        samples = self._folder / f"{self._count}.samples"
        try:
            await anyio.to_thread.run_sync(_copy, file, audio)
            process = await self._idle.get()
            try:
                answer = await self._ask(process, audio, samples)
            finally:
                self._idle.put_nowait(process)
            if "error" in answer:
                status, code = (413, "audio_too_long") if answer["is_long"] else (422, "invalid_audio")
                raise Refusal(status, f"{name}: {answer['error']}", code=code, param="file")
            waveform = np.memmap(samples, np.float32, mode="r")
            return Upload(name, waveform.view(np.ndarray))
        finally:
            audio.unlink(missing_ok=True)
            samples.unlink(missing_ok=True)

    async def _ask(self, process: "_Process", audio: Path, samples: Path) -> dict[str, int | str]:
        """Have a process decode a file; one that dies, hangs or is not waited for is ended."""
        request: dict[str, str | float] = {
            "audio": str(audio),
            "samples": str(samples),
            "max_seconds": self.limits.max_seconds,
        }
        try:
            async with asyncio.timeout(self.limits.decode_seconds):
                return await process.ask(request)
        except TimeoutError:
            await process.kill()
            seconds = f"{self.limits.decode_seconds:g} s"
            return {"is_long": False, "error": f"must be decoded within {seconds}; convert it to wav."}
        except EOFError:
            await process.kill()
            return {
                "is_long": False,
                "error": "cannot be decoded, its decoder died of it; convert it to wav.",
            }
        except asyncio.CancelledError:
            await process.kill()
            raise


class _Process:
    """A decoding process, started when it is needed."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, request: dict[str, str | float]) -> dict[str, int | str]:
        """Send a request and wait for its answer."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "unispeech.serving.decoding_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # Libraries in C write what they think of broken files there.
                stderr=asyncio.subprocess.DEVNULL,
                # Ctrl-C is for the server, which ends its processes itself.
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(ConnectionError):  # a process that has died is told by its answer
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError("the decoding process died.")
        answer: dict[str, int | str] = json.loads(line)
        return answer

    async def kill(self) -> None:
        """End the process; the next request starts another one."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _copy(file: BinaryIO, path: Path) -> None:
    """Give bytes a name, which decoders want."""
    with path.open("xb") as target:
        shutil.copyfileobj(file, target)
