"""The API: answers in OpenAI's form, refusals in one line, nothing read that a client names."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from server_rig import Server, busy, refusal, settings, wait_until, wav

from tiny_recognisers import WORD_PHONES, babble, save_recogniser
from unispeech.formats import FORMATS
from unispeech.pipelines.transcriber import Transcriber
from unispeech.serving.settings import Limits


@pytest.fixture(scope="module")
def transcriber(model_dir):
    return Transcriber(model_dir, device="cpu")


def samples(seconds, seed=0):
    """What the server hears of `wav(seconds, seed)`."""
    return soundfile.read(io.BytesIO(wav(seconds, seed)), dtype="float32")[0]


def test_json_is_the_default(server, transcriber):
    answer = server.transcribe(wav(0.8))
    assert answer.status_code == 200
    expected = transcriber.transcribe(samples(0.8), 16_000)
    assert expected.phones
    assert answer.json() == {"text": expected.text, "usage": {"type": "duration", "seconds": 0.8}}


def test_verbose_json_has_segments_and_phones(server, transcriber):
    granularities = {"timestamp_granularities[]": ["phone", "segment"]}
    answer = server.transcribe(wav(0.8), response_format="verbose_json", **granularities).json()
    expected = transcriber.transcribe(samples(0.8), 16_000)
    assert [(phone["phone"], phone["start"], phone["end"]) for phone in answer["phones"]] == [
        (phone.phone, round(phone.start, 4), round(phone.end, 4)) for phone in expected.phones
    ]
    [segment] = answer["segments"]
    assert segment["text"] == answer["text"] == expected.text
    symbols = transcriber.vocabulary.symbols
    assert [symbols[token] for token in segment["tokens"]] == [phone.phone for phone in expected.phones]
    assert segment["avg_logprob"] == pytest.approx(
        np.mean([np.log(phone.score) for phone in expected.phones]), abs=1e-3
    )
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "unknown", 0.8)
    assert "words" not in answer


def test_verbose_json_has_segments_unless_told(server):
    answer = server.transcribe(response_format="verbose_json").json()
    assert "segments" in answer
    assert "phones" not in answer


@pytest.mark.parametrize("name", ["text", "srt", "vtt"])
def test_texts_and_subtitles(server, transcriber, name):
    answer = server.transcribe(response_format=name)
    expected = FORMATS["txt" if name == "text" else name](transcriber.transcribe(samples(0.5), 16_000))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == expected + "\n"


def test_silence_is_an_empty_text(server):
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(16_000), 16_000, format="WAV")
    answer = server.transcribe(silence.getvalue(), response_format="verbose_json")
    assert (answer.json()["text"], answer.json()["segments"]) == ("", [])


def test_long_recordings_go_through_in_windows(model_dir):
    with Server(settings(model_dir, window_seconds=1.0)) as server:
        answer = server.transcribe(wav(2.5)).json()
    windows = Transcriber(model_dir, device="cpu", window_seconds=1.0, overlap_seconds=0.25)
    assert answer["text"] == windows.transcribe(samples(2.5), 16_000).text


def test_words_of_models_that_write_them(tmp_path):
    with Server(settings(save_recogniser(tmp_path / "words", WORD_PHONES))) as server:
        form = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
        answer = server.transcribe(wav(0.8), **form).json()
    assert answer["words"]
    assert answer["words"][0].keys() == {"word", "start", "end", "score"}


REFUSED = {
    "response_format": ("xml", 422, "`response_format` must be one of 'json', .*, but is 'xml'"),
    "temperature": ("0.7", 422, "`temperature` must be 0, .*, but is '0.7'"),
    "prompt": ("Dr. Who", 422, "`prompt` must be left out, the model hears sound only"),
    "stream": ("true", 422, "`stream` must be false, sound in parts is taken by the WebSocket"),
    "include[]": ("logprobs", 422, r"`include\[\]` must be left out, scores come with verbose_json"),
    "language": ("xx", 422, "`language` must be left out, tiny knows no inventories of languages, but is"),
    "model": ("whisper-1", 404, "`model` must be tiny, the one that is served here, but is whisper-1"),
    "timestamp_granularities[]": ("phone", 422, "`response_format` must be verbose_json where"),
    "temprature": ("0", 422, "there is no field `temprature`, only file, .*; did you mean 'temperature'?"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_fields_are_refused_by_name(server, field):
    value, status, message = REFUSED[field]
    answer = server.transcribe(**{field: value})
    assert refusal(answer)[0] == status
    assert pytest.raises(ValueError, match=message).matches(ValueError(refusal(answer)[1]))


def test_words_are_refused_where_there_are_none(server):
    form = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
    assert refusal(server.transcribe(**form)) == (
        422,
        "`timestamp_granularities[]` must be segment or phone, the model writes no words, but is word.",
    )


def test_what_openai_sends_by_default_is_taken(server):
    form = {"model": "tiny", "temperature": "0", "stream": "false", "response_format": "json"}
    assert server.transcribe(**form, chunking_strategy="auto").status_code == 200


def test_a_missing_file_is_named(server):
    answer = server.client.post("/v1/audio/transcriptions", data={"model": "tiny"})
    assert refusal(answer) == (422, "`file` must be given, but is missing.")


def test_a_body_that_is_no_form_is_refused(server):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = server.client.post("/v1/align", content=b"--y\r\nhello", headers=headers)
    assert refusal(answer)[0] in {400, 422}


BROKEN = {
    "empty": (b"", r"talk.wav: must hold audio, but is empty \(0 bytes\)"),
    "text": (b"hello\n", "talk.wav: must be audio .*, but is text; convert it to wav"),
    "truncated": (wav(0.5)[:4000], "talk.wav: holds 0.12 s of the 0.50 s that its header promises"),
    "playlist": (b"#EXTM3U\n/etc/passwd\n", "talk.wav: must be audio .*, but is text"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_uploads_are_named_as_the_client_names_them(server, kind):
    content, message = BROKEN[kind]
    status, found = refusal(server.transcribe(content))
    assert status == 422
    assert pytest.raises(ValueError, match=message).matches(ValueError(found))


def test_names_of_files_are_never_paths(server, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(0.5))
    for name in (str(secret), f"../../..{secret}", f"file://{secret}", "..", "/", "a\nb\x00.wav"):
        answer = server.send(audio=b"", name=name)
        assert answer.status_code == 422
        assert str(tmp_path) not in answer.text
        assert "\\n" not in answer.text
    assert sorted(tmp_path.iterdir()) == [secret]


def test_recordings_that_are_too_long_are_refused(model_dir):
    with Server(settings(model_dir, limits=Limits(max_seconds=1.0))) as server:
        status, message = refusal(server.transcribe(wav(1.5)))
        assert (status, message) == (
            413,
            "talk.wav: must last at most 1 s, but lasts 1.5 s; send parts of it.",
        )
        # This header states a length that no file of this size can have.
        header = bytearray(wav(1.5))
        header[24:32] = (8).to_bytes(4, "little") + (16).to_bytes(4, "little")
        assert refusal(server.transcribe(bytes(header)))[0] == 413
        assert server.transcribe(wav(1.0)).status_code == 200


def test_uploads_that_are_too_large_are_refused(model_dir):
    with Server(settings(model_dir, limits=Limits(max_upload_mb=0.05))) as server:
        expected = "the body must have at most 0.05 MB; send a compressed recording, or parts of it."
        assert refusal(server.transcribe(wav(2.0))) == (413, expected)

        def chunks():
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            yield from (b"x" * 10_000 for _ in range(10))

        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = server.client.post("/v1/audio/transcriptions", content=chunks(), headers=headers)
        assert refusal(answer) == (413, expected)
        assert server.service.num_requests == 0
        assert server.transcribe(wav(1.0)).status_code == 200


def test_requests_that_wait_together_share_a_pass_and_get_their_own_answers(server, transcriber):
    lengths = [0.3, 0.9, 0.5, 0.31, 0.7, 0.02, 1.3, 0.4]
    form = {"response_format": "verbose_json", "timestamp_granularities[]": ["phone"]}
    recordings = [wav(length, seed) for seed, length in enumerate(lengths)]
    with busy(server.service.worker) as release, ThreadPoolExecutor(len(lengths)) as pool:
        futures = [pool.submit(server.transcribe, recording, **form) for recording in recordings]
        wait_until(lambda: server.service.worker.num_waiting == len(lengths))
        release()
        answers = [future.result(timeout=30).json() for future in futures]
    assert max_batch(server) > 1
    for seed, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        alone = transcriber.transcribe(samples(length, seed), 16_000)
        assert answer["text"] == alone.text
        expected = [(phone.phone, round(phone.start, 4), round(phone.end, 4)) for phone in alone.phones]
        assert [(phone["phone"], phone["start"], phone["end"]) for phone in answer["phones"]] == expected
        for phone, other in zip(answer["phones"], alone.phones, strict=True):
            assert phone["score"] == pytest.approx(other.score, abs=2e-4)


def max_batch(server) -> int:
    """The bucket of the largest batch so far."""
    lines = server.client.get("/metrics").text.splitlines()
    counts = {
        line.split('le="')[1].split('"')[0]: float(line.split()[-1])
        for line in lines
        if line.startswith("unispeech_batch_size_bucket")
    }
    total = counts["+Inf"]
    return int(next(float(bound) for bound, count in counts.items() if count == total))


def test_babble_is_loud_enough():
    assert np.abs(babble(0.5)).max() > 0.05
