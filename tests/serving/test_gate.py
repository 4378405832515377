"""Who may ask, how many at once, who leaves, and what the log and the headers say."""

import asyncio
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from server_rig import Server, busy, refusal, settings, wait_until, wav

from unispeech.serving.app import create_app
from unispeech.serving.gate import Gate
from unispeech.serving.refusals import Refusal, error_body, shown
from unispeech.serving.service import Service
from unispeech.serving.settings import Limits, ModelSettings, ServerSettings


def test_a_key_is_asked_for_everywhere_but_at_the_page_and_the_health(model_dir):
    with Server(settings(model_dir, key="some-key")) as server:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
            missing = server.client.get(path)
            assert refusal(missing) == (401, "a key must be sent, as `Authorization: Bearer KEY`.")
            assert missing.headers["www-authenticate"] == "Bearer"
        assert refusal(server.transcribe())[0] == 401
        for wrong in ("Bearer some-kez", "Bearer", "Basic some-key", "Bearer \xff\xfe"):
            answer = server.transcribe(headers={"Authorization": wrong.encode("latin-1")})
            assert refusal(answer)[0] == 401
        right = {"Authorization": "bearer  some-key"}
        assert server.transcribe(headers=right).status_code == 200
        for path in ("/", "/health", "/favicon.ico", "/page/style.css"):
            assert server.client.get(path).status_code == 200


def test_pages_of_other_sites_may_not_ask(model_dir):
    with Server(settings(model_dir, origins=("https://mine.example",))) as server:
        status, message = refusal(server.transcribe(headers={"Origin": "https://evil.example"}))
        assert (status, message) == (
            403,
            "pages of evil.example may not ask here; the server can allow it (--allow-origin).",
        )
        assert refusal(server.transcribe(headers={"Origin": "null"}))[0] == 403
        assert server.transcribe(headers={"Origin": "http://testserver"}).status_code == 200
        mine = server.transcribe(headers={"Origin": "https://mine.example"})
        assert mine.headers["access-control-allow-origin"] == "https://mine.example"
        asked = {"Origin": "https://mine.example", "Access-Control-Request-Method": "POST"}
        assert server.client.options("/v1/align", headers=asked).status_code == 200


def test_all_pages_may_ask_where_that_is_allowed(model_dir):
    with Server(settings(model_dir, origins=("*",))) as server:
        assert server.transcribe(headers={"Origin": "https://any.example"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//"])
def test_an_origin_that_is_none_may_not_ask(model_dir, origin):
    with Server(settings(model_dir)) as server:
        assert refusal(server.transcribe(headers={"Origin": origin}))[0] == 403


@pytest.mark.parametrize(
    ("is_stopping", "is_answered", "is_told"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_who_is_cut_off_by_a_stop_is_told(is_stopping, is_answered, is_told):
    sent = []

    async def app(scope, receive, send):
        if is_answered:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    async def send(message):
        sent.append(message)

    class Stopped:
        limits, is_stopping, settings = Limits(), None, SimpleNamespace(allowed_origins=(), api_key=None)
        place = staticmethod(nullcontext)

    service = Stopped()
    service.is_stopping = is_stopping
    scope = {"type": "http", "method": "POST", "path": "/v1/align", "headers": []}
    outcome = nullcontext() if is_told else pytest.raises(asyncio.CancelledError)
    with outcome:
        asyncio.run(Gate(app, service)(scope, None, send))
    statuses = [message["status"] for message in sent if message["type"] == "http.response.start"]
    assert statuses == ([503] if is_told else [200] * is_answered)
    assert not is_told or b"the server is stopping; try again" in sent[-1]["body"]


def test_places_are_counted_and_given_back(model_dir):
    with Server(settings(model_dir, limits=Limits(max_requests=2))) as server:
        with busy(server.service.worker) as release, ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(server.transcribe) for _ in range(2)]
            wait_until(lambda: server.service.worker.num_waiting == 2)
            third = server.transcribe()
            assert refusal(third) == (429, "all 2 places are taken; try again in a moment.")
            assert third.headers["retry-after"] == "1"
            assert third.json()["error"]["type"] == "rate_limit_error"
            assert server.client.get("/health").status_code == 200
            assert "unispeech_requests_open 2.0" in server.client.get("/metrics").text
            release()
            assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert server.transcribe().status_code == 200
        assert server.service.num_requests == 0


def test_before_the_model_is_loaded_and_after_the_end_there_are_no_places(model_dir):
    server = Server(settings(model_dir))
    assert server.client.get("/health").status_code == 503
    assert refusal(server.transcribe()) == (503, "the server is starting; try again in a moment.")
    assert refusal(server.client.get("/v1/models"))[0] == 503
    with server:
        server.service.is_stopping = True
        answer = server.transcribe()
        assert refusal(answer) == (503, "the server is stopping; try again in a moment.")
        assert answer.headers["retry-after"] == "5"
        assert server.client.get("/health").json() == {"status": "stopping"}


class Call:
    """One request by the letter of ASGI, to be broken off at will."""

    def __init__(self, server, body: bytes, parts=1, headers=()):
        self.app = create_app(server.service)
        self.messages: asyncio.Queue = asyncio.Queue()
        self.sent: list = []
        self.size = len(body) // parts + 1
        self.pieces = [body[i * self.size : (i + 1) * self.size] for i in range(parts)]
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "path": "/v1/audio/transcriptions",
            "raw_path": b"/v1/audio/transcriptions",
            "query_string": b"",
            "headers": [(b"content-type", b"multipart/form-data; boundary=x"), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "scheme": "http",
            "http_version": "1.1",
            "root_path": "",
        }

    def put(self, piece, more):
        self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def send(self, message):
        self.sent.append(message)

    async def run(self):
        await self.app(self.scope, self.messages.get, self.send)


def form(content: bytes) -> bytes:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n"


def test_a_client_that_leaves_frees_its_place(server):
    async def scenario():
        call = Call(server, form(wav(0.5)))
        call.put(call.pieces[0], False)
        running = asyncio.ensure_future(call.run())
        while not server.service.worker.num_waiting:
            await asyncio.sleep(0.01)
        assert server.service.num_requests == 1
        call.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(running, 10)
        return call

    with busy(server.service.worker):
        # Decoding processes belong to the loop of the application, so this one has its own.
        server.service.uploads, before = type(server.service.uploads)(Limits()), server.service.uploads

        async def with_uploads():
            async with server.service.uploads.running():
                return await scenario()

        call = asyncio.run(with_uploads())
        server.service.uploads = before
        assert server.service.worker.num_waiting == 0
    assert call.sent[0]["status"] == 499
    assert server.service.num_requests == 0


def test_a_client_that_leaves_while_it_sends_frees_its_place(server):
    async def scenario():
        call = Call(server, form(wav(0.5)), parts=2)
        call.put(call.pieces[0], True)
        running = asyncio.ensure_future(call.run())
        while server.service.num_requests != 1:
            await asyncio.sleep(0.01)
        call.messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(running, 10)

    asyncio.run(scenario())
    assert server.service.num_requests == 0


def test_a_body_that_comes_too_slowly_is_refused(model_dir):
    server = Server(settings(model_dir, limits=Limits(upload_seconds=0.2)))

    async def scenario():
        call = Call(server, form(wav(0.5)), parts=2)
        call.put(call.pieces[0], True)
        running = asyncio.ensure_future(call.run())
        await asyncio.sleep(0.5)
        call.put(call.pieces[1], False)  # what is thrown away
        await asyncio.wait_for(running, 10)
        return call.sent

    with server:
        start, body, last = asyncio.run(scenario())
    assert start["status"] == 408
    assert b"the body must have come within 0.2 s." in body["body"]
    assert (b"connection", b"close") in start["headers"]
    assert (body["more_body"], last.get("more_body", False)) == (True, False)


def test_a_client_that_waits_to_be_asked_for_its_body_is_refused_at_once(model_dir):
    server = Server(settings(model_dir, limits=Limits(max_upload_mb=0.001)))

    async def scenario():
        headers = [(b"content-length", b"100000"), (b"expect", b"100-continue")]
        call = Call(server, b"", headers=headers)
        await asyncio.wait_for(call.run(), 1)
        return call.sent

    with server:
        assert asyncio.run(scenario())[0]["status"] == 413


def test_a_length_that_is_none_is_refused(server):
    for length in ("-1", "1e9", "99999999999999999999"):
        answer = server.client.post("/v1/align", content=b"x", headers={"content-length": length})
        assert answer.status_code == 413


def test_a_mistake_of_ours_is_told_without_its_innards(server, monkeypatch):
    monkeypatch.setattr(type(server.service.uploads), "decode", lambda *arguments: 1 / 0)
    answer = server.transcribe()
    assert refusal(answer) == (500, "the server made a mistake; its log says which.")
    assert answer.json()["error"]["type"] == "server_error"


def test_each_request_is_one_line_of_the_log_without_what_was_said(server, caplog):
    caplog.set_level(logging.INFO, "unispeech.serving")
    text = server.transcribe().json()["text"]
    server.client.get("/v1/a%0Ab c?secret=1")
    first, second = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"POST /v1/audio/transcriptions 200 \d\.\d{3}s audio=0.50s waited=\S+ ran=\S+", first)
    assert text not in first
    assert re.fullmatch(r"GET /v1/a\\nb%20c 404 \d\.\d{3}s", second)


def test_answers_forbid_what_the_page_does_not_need(server):
    for path in ("/", "/v1/models", "/v1/nothing"):
        headers = server.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?:|\*", policy)
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_its_parts_and_no_others(server):
    assert "text/html" in server.client.get("/").headers["content-type"]
    for name in ("../app.py", "..%2fapp.py", "nothing.js", "%2e%2e", "index.html%00"):
        assert server.client.get(f"/page/{name}").status_code == 404


def test_errors_are_of_one_form():
    body = error_body(422, "two\nlines\x00", code="x", param="y")
    assert body["error"] == {
        "message": "two lines\ufffd",
        "type": "invalid_request_error",
        "param": "y",
        "code": "x",
    }
    assert [error_body(status, "")["error"]["type"] for status in (401, 403, 429, 500, 503)] == [
        "authentication_error",
        "authentication_error",
        "rate_limit_error",
        "server_error",
        "server_error",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/etc/passwd", "passwd"),
        ("C:\\talk\\a.wav", "a.wav"),
        (None, "file"),
        ("///", "file"),
        ("a\r\nb.wav", "a b.wav"),
        ("x" * 100, "x" * 77 + "..."),
    ],
)
def test_names_are_made_fit_for_messages(name, expected):
    assert shown(name) == expected


def test_settings_are_checked():
    with pytest.raises(ValueError, match="`max_seconds` must be positive, but is 0"):
        Limits(max_seconds=0)
    with pytest.raises(ValueError, match="`batch_seconds` must not be negative, but is -1"):
        ModelSettings(model="m", batch_seconds=-1)
    model = ModelSettings(model="folder/name/")
    assert model.shown_name == "name"
    with pytest.raises(ValueError, match=r"`port` must lie in \[0, 65535\], but is 99999"):
        ServerSettings(model=model, port=99999)
    for key in ("", " ", "two words", "söme"):
        with pytest.raises(ValueError, match="`api_key` must be ASCII letters, digits and signs"):
            ServerSettings(model=model, api_key=key)
    assert "secret" not in repr(ServerSettings(model=model, api_key="secret"))


def test_streams_have_places_of_their_own(model_dir):
    service = Service(settings(model_dir, limits=Limits(max_streams=1)))
    with pytest.raises(Refusal, match="the server is starting"), service.stream_place():
        pass
    service.worker.state = "ready"
    with (
        service.stream_place(),
        pytest.raises(Refusal, match="all 1 streams are taken; try again later"),
        service.stream_place(),
    ):
        pass
    assert service.num_streams == 0
