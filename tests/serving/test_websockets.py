"""Sound over a WebSocket: what comes out, and what closes the connection."""

import json

import kaldialign
import numpy as np
import pytest
import soxr
from server_rig import Server, settings
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tiny_recognisers import babble, save_classifier
from unispeech.pipelines.streaming import StreamingTranscriber
from unispeech.pipelines.transcriber import Transcriber
from unispeech.serving.settings import Limits


def pcm(seconds, seed=0) -> bytes:
    return (babble(seconds, seed) * 2**15).astype("<i2").tobytes()


def frames(sound: bytes, size: int):
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def talk(server, messages, headers=None) -> list[dict]:
    """Send messages, text as str and sound as bytes; all that comes back until the server closes."""
    answers = []
    with server.client.websocket_connect("/v1/stream", headers=headers or {}) as socket:
        for message in messages:
            socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
        try:
            while True:
                answers.append(json.loads(socket.receive_text()))
        except WebSocketDisconnect as closed:
            answers.append({"type": "closed", "code": closed.code, "reason": closed.reason})
    return answers


START, STOP = '{"type": "start"}', '{"type": "stop"}'


def in_python(model_dir, sound):
    stream = StreamingTranscriber(Transcriber(model_dir, device="cpu"))
    stream.feed(np.frombuffer(sound, "<i2").astype(np.float32) / 2**15)
    return stream.finish()


def test_a_stream_ends_as_the_same_sound_in_python(server, model_dir):
    # Within the delay: all of it is decided by the last pass, which hears the whole.
    sound = pcm(1.9)
    _, *partials, final, closed = talk(server, [START, *frames(sound, 3200), STOP])
    expected = in_python(model_dir, sound)
    assert expected.phones
    assert final["transcript"]["text"] == expected.text
    assert final["transcript"]["duration"] == 1.9
    assert closed["code"] == 1000
    assert partials


def test_what_a_stream_has_told_stays(server, model_dir):
    sound = pcm(4.0)
    ready, *partials, final, closed = talk(server, [START, *frames(sound, 3200), STOP])
    assert ready == {"type": "ready", "model": "tiny", "sample_rate": 16_000, "latency": 2.5}
    assert closed["code"] == 1000
    # Where passes end depends on how fast the sound comes, and with it, here and there, what they say.
    found, expected = final["transcript"]["text"].split(), in_python(model_dir, sound).text.split()
    assert kaldialign.edit_distance(found, expected)["total"] <= 0.05 * len(expected)
    assert final["transcript"]["duration"] == 4.0
    stable = [phone for partial in partials for phone in partial["stable"]]
    told = final["transcript"]["phones"][: len(stable)]
    assert [phone["phone"] for phone in stable] == [phone["phone"] for phone in told]
    assert partials[0].keys() == {"type", "seconds", "stable", "provisional"}
    assert partials[0]["provisional"].keys() == {"text", "phones"}


def test_sound_may_come_without_a_start(server):
    ready, *_, final, closed = talk(server, [pcm(0.7), STOP])
    assert (ready["type"], final["type"], closed["code"]) == ("ready", "final", 1000)


def test_other_rates_are_resampled(server):
    rate = 44_100
    sound = soxr.resample(babble(3.0), 16_000, rate)
    messages = frames((sound * 2**15).astype("<i2").tobytes(), 8820)
    *_, final, closed = talk(server, [json.dumps({"type": "start", "sample_rate": rate}), *messages, STOP])
    assert closed["code"] == 1000
    assert final["transcript"]["duration"] == pytest.approx(3.0, abs=0.01)
    *_, direct, _ = talk(server, [pcm(3.0), STOP])
    found, expected = final["transcript"]["text"].split(), direct["transcript"]["text"].split()
    assert abs(len(found) - len(expected)) < len(expected) / 2


def test_an_empty_stream_has_an_empty_text(server):
    assert talk(server, [STOP])[-2]["transcript"]["text"] == ""


WRONG = {
    "text for sound": ([START, "hello"], 1003, "sound must come as binary frames, but text came: hello"),
    "text first": (["hello"], 1003, "sound must come as binary frames, but text came: hello"),
    "json for sound": (["[" * 5000], 1003, "sound must come as binary frames, but text came: "),
    "start twice": ([START, START], 1003, "sound must come as binary frames, but text came: "),
    "half a sample": ([b"123"], 1007, "frames must hold whole 16-bit samples, but one has 3 bytes."),
    "rate": (
        ['{"type": "start", "sample_rate": 1}'],
        1007,
        "`sample_rate` must be a whole number in [8000, 96000], but is 1.",
    ),
    "rate of another kind": (
        ['{"type": "start", "sample_rate": "16k"}'],
        1007,
        "`sample_rate` must be a whole number in [8000, 96000], but is '16k'.",
    ),
    "field": (
        ['{"type": "start", "rate": 1}'],
        1007,
        "start has the fields `sample_rate` and `api_key`, but not `rate`.",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_closes_with_a_code_and_a_reason(server, kind):
    messages, code, reason = WRONG[kind]
    closed = talk(server, messages)[-1]
    assert closed["code"] == code
    assert closed["reason"].startswith(reason)
    assert len(closed["reason"].encode()) <= 123
    assert server.service.num_streams == 0


def test_streams_are_bounded(model_dir):
    limits = Limits(max_seconds=1.0, max_streams=1, idle_seconds=0.3)
    with Server(settings(model_dir, limits=limits)) as server:
        assert talk(server, [pcm(1.1)])[-1] == {
            "type": "closed",
            "code": 1008,
            "reason": "a stream must last at most 1 s; open another one.",
        }
        assert talk(server, [START])[-1]["reason"] == "something must come every 0.3 s, but nothing came."
        with server.client.websocket_connect("/v1/stream") as socket:
            socket.send_bytes(pcm(0.1))
            assert json.loads(socket.receive_text())["type"] == "ready"
            second = talk(server, [pcm(0.1)])[-1]
            assert second == {
                "type": "closed",
                "code": 1013,
                "reason": "all 1 streams are taken; try again later.",
            }
        assert talk(server, [pcm(0.1), STOP])[-1]["code"] == 1000
        server.service.is_stopping = True
        assert talk(server, [pcm(0.1), STOP])[-1]["code"] == 1012


def test_keys_come_by_header_or_in_the_start_message(model_dir):
    with Server(settings(model_dir, key="k1")) as server:
        assert talk(server, [START, STOP])[-1]["code"] == 1008
        assert talk(server, [pcm(0.1), STOP])[-1]["reason"].startswith("a key must be sent")
        wrong = talk(server, ['{"type": "start", "api_key": "k2"}', STOP])[-1]
        assert (wrong["code"], wrong["reason"]) == (1008, "the key is wrong.")
        assert talk(server, ['{"type": "start", "api_key": "k1"}', STOP])[-1]["code"] == 1000
        assert talk(server, [STOP], headers={"Authorization": "Bearer k1"})[-1]["code"] == 1000


def test_pages_of_other_sites_may_not_stream(server):
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        server.client.websocket_connect("/v1/stream", headers={"Origin": "https://evil.example"}),
    ):
        pass
    assert refused.value.status_code == 403


def test_classifiers_do_not_stream(tmp_path):
    with Server(settings(save_classifier(tmp_path / "labels", ["a", "b"]))) as server:
        assert talk(server, [START, STOP])[-1] == {
            "type": "closed",
            "code": 1008,
            "reason": "labels is a classifier; send recordings to /v1/classify.",
        }


def test_a_client_that_leaves_frees_its_stream(server):
    with server.client.websocket_connect("/v1/stream") as socket:
        socket.send_bytes(pcm(0.1))
        assert json.loads(socket.receive_text())["type"] == "ready"
        assert server.service.num_streams == 1
    assert server.service.num_streams == 0
