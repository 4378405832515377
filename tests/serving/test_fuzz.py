"""The server against strangers: requests made up from its own OpenAPI page, and audio with bytes turned over.

`make test-fuzz` tries many more; here it is a few of each kind.
"""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from server_rig import Server, listening, wav
from server_rig import settings as server_settings

from unispeech.serving.settings import Limits

NUM_EXAMPLES = int(os.environ.get("UNISPEECH_FUZZ", "4"))
RECORDINGS = Path(__file__).parents[2] / "examples/recordings"
QUICK = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    derandomize=NUM_EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)


LIMITS = Limits(max_seconds=20.0, max_upload_mb=2.0, decode_seconds=20.0)


@pytest.fixture(scope="module")
def guarded(model_dir):
    """A server with narrow limits.

    Yields:
        The server.
    """
    with Server(server_settings(model_dir, limits=LIMITS)) as running:
        yield running
        assert running.service.num_requests == 0
        assert running.transcribe().status_code == 200


@pytest.fixture(scope="module")
def api(model_dir):
    """The OpenAPI page of a server that listens.

    Yields:
        What makes requests of it.
    """
    with listening(server_settings(model_dir, limits=LIMITS)) as (address, service):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")
        assert service.num_requests == 0


def test_requests_by_the_openapi_page(api):
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 7
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for operation in operations:
        for mode in modes:
            with suppress(Unsatisfiable):  # nothing can be wrong where nothing is sent

                @given(case=operation.as_strategy(generation_mode=mode))
                @QUICK
                def check(case):
                    case.call_and_validate(checks=checks)

                check()


SEEDS = [wav(0.4), *(path.read_bytes()[:30_000] for path in sorted(RECORDINGS.glob("*.flac"))[:2])]
HEADS = [
    b"RIFF",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\xff\xfb\x90",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x18ftypM4A ",
    b"#!AMR\n",
]


@st.composite
def broken_audio(draw):
    """A recording with bytes turned over, cut out, doubled, or behind the head of another format."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for place in rng.integers(
        0, min(len(data), draw(st.sampled_from([64, len(data)]))), size=draw(st.integers(0, 40))
    ):
        data[place] = int(rng.integers(0, 256))
    cut = sorted(int(place) for place in rng.integers(0, len(data), size=2))
    kind = draw(st.sampled_from(["whole", "cut", "short", "doubled", "other head"]))
    if kind == "cut":
        del data[cut[0] : cut[1]]
    elif kind == "short":
        del data[cut[1] :]
    elif kind == "doubled":
        data[cut[0] : cut[0]] = data[cut[0] : cut[1]]
    elif kind == "other head":
        head = draw(st.sampled_from(HEADS))
        data[: len(head)] = head
    return bytes(data)


@given(audio=broken_audio())
@settings(QUICK, max_examples=5 * NUM_EXAMPLES)
def test_broken_audio_is_an_answer_or_a_refusal(guarded, audio):
    answer = guarded.transcribe(audio)
    assert answer.status_code in {200, 413, 422}
    if answer.status_code != 200:
        assert answer.json()["error"]["message"].count("\n") == 0


@given(messages=st.lists(st.binary(max_size=50) | st.text(max_size=20), max_size=6))
@settings(QUICK, max_examples=2 * NUM_EXAMPLES)
def test_streams_of_anything_end(guarded, messages):
    with guarded.client.websocket_connect("/v1/stream", headers={}) as socket:
        for message in messages:
            socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
    assert guarded.service.num_streams == 0


@given(body=st.binary(max_size=400), boundary=st.sampled_from(["x", "", "--", '"']))
@settings(QUICK, max_examples=5 * NUM_EXAMPLES)
def test_bodies_of_anything_are_refused(guarded, body, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = guarded.client.post("/v1/align", content=b"--x\r\n" + body, headers=headers)
    assert answer.status_code in {400, 422}
