"""Decoding in processes that may die, hang, or lie."""

import asyncio
import io
import os
import signal

import pytest
from server_rig import wav

from unispeech.serving import decoding_process
from unispeech.serving.refusals import Refusal
from unispeech.serving.settings import Limits
from unispeech.serving.uploads import Uploads


def decode(content, scenario=None, **limits):
    """Decode one upload, or run a scenario with the uploads."""

    async def run():
        uploads = Uploads(Limits(**limits))
        async with uploads.running():
            if scenario is not None:
                return await scenario(uploads)
            upload = await uploads.decode(io.BytesIO(content), "talk.wav")
            assert list(uploads._folder.iterdir()) == []
            return upload

    return asyncio.run(run())


async def processes(uploads):
    return [uploads._idle.get_nowait() for _ in range(uploads._idle.qsize())]


def test_an_upload_becomes_a_waveform():
    upload = decode(wav(0.5))
    assert (upload.name, upload.duration, upload.waveform.dtype) == ("talk.wav", 0.5, "float32")
    assert float(abs(upload.waveform).max()) > 0.01


def test_a_decoder_that_dies_costs_one_upload():
    async def scenario(uploads):
        await uploads.decode(io.BytesIO(wav(0.1)), "a.wav")
        for process in await processes(uploads):
            if process._process is not None:
                os.kill(process._process.pid, signal.SIGSEGV)
                await process._process.wait()
            uploads._idle.put_nowait(process)
        outcomes = []
        for _ in range(4):
            try:
                outcomes.append((await uploads.decode(io.BytesIO(wav(0.1)), "a.wav")).duration)
            except Refusal as refusal:
                outcomes.append(refusal.detail)
        return outcomes

    outcomes = decode(None, scenario)
    assert sorted(map(str, outcomes)) == [
        "0.1",
        "0.1",
        "0.1",
        "a.wav: cannot be decoded, its decoder died of it; convert it to wav.",
    ]


def test_a_decoder_that_hangs_is_ended():
    async def scenario(uploads):
        for process in await processes(uploads):
            await process.ask({"audio": "x", "samples": "y", "max_seconds": 1.0})
            os.kill(process._process.pid, signal.SIGSTOP)
            uploads._idle.put_nowait(process)
        with pytest.raises(Refusal) as refused:
            await uploads.decode(io.BytesIO(wav(0.1)), "a.wav")
        return refused.value.detail

    expected = "a.wav: must be decoded within 3 s; convert it to wav."
    assert decode(None, scenario, decode_seconds=3.0) == expected


def test_a_client_that_leaves_ends_its_decoder():
    async def scenario(uploads):
        for process in await processes(uploads):
            await process.ask({"audio": "x", "samples": "y", "max_seconds": 1.0})
            os.kill(process._process.pid, signal.SIGSTOP)
            uploads._idle.put_nowait(process)
        task = asyncio.ensure_future(uploads.decode(io.BytesIO(wav(0.1)), "a.wav"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        running = [process._process for process in await processes(uploads)]
        assert list(uploads._folder.iterdir()) == []
        return running.count(None)

    assert decode(None, scenario) == 1


def test_what_is_no_audio_is_told(tmp_path):
    def answer(content, max_seconds=10.0):
        (tmp_path / "a").write_bytes(content)
        return decoding_process.decode(tmp_path / "a", tmp_path / "b", max_seconds)

    assert answer(wav(0.5)) == {"num_samples": 8000}
    assert (tmp_path / "b").stat().st_size == 32_000
    found = answer(b"hello")
    assert found["error"].startswith("must be audio (wav, flac")
    assert not found["is_long"]
    found = answer(wav(0.5), 0.3)
    assert found == {"is_long": True, "error": "must last at most 0.3 s, but lasts 0.5 s; send parts of it."}


def test_lengths_are_counted_where_headers_lie(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(wav(0.5))
    info = decoding_process.audio_info(tmp_path / "a")
    monkeypatch.setattr(
        decoding_process, "audio_info", lambda path: type(info)(**vars(info) | {"duration": 0.1})
    )
    found = decoding_process.decode(tmp_path / "a", tmp_path / "b", 0.3)
    assert found == {"is_long": True, "error": "must last at most 0.3 s, but lasts longer; send parts of it."}


def test_memory_that_runs_out_is_told(tmp_path, monkeypatch):
    def fail(path):
        raise MemoryError

    monkeypatch.setattr(decoding_process, "audio_info", fail)
    found = decoding_process.decode(tmp_path / "a", tmp_path / "b", 1.0)
    assert found["error"] == "cannot be decoded (MemoryError)."
