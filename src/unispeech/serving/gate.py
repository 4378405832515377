"""What every request passes on its way in and out: who may ask, how much is taken, and the log."""

import asyncio
import hmac
import logging
from contextlib import suppress
from time import perf_counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unispeech.serving.refusals import Refusal, error_body, shown, unavailable
from unispeech.serving.service import NOTES, Service

log = logging.getLogger("unispeech.serving")

OPEN_PATHS = ("/", "/health", "/page/", "/favicon.ico")
"""What is answered without a key: the page and the health, which tell nothing."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}

DRAIN_SECONDS = 5.0
"""How long a refused client may go on sending: cut off at once, it would not read why."""


class Gate:
    """Lets requests in, or refuses them before their body is read.

    Args:
        app: The application behind.
        service: Whose limits and places count.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Args:
            scope: Of ASGI.
            receive: Of ASGI.
            send: Of ASGI.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self._check_origin(scope)
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
                return
            if not is_open(scope["path"]):
                check_key(self.service, Headers(scope=scope).get("authorization"))
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            body = _Body(self.service, scope, receive, send)
            try:
                body.check_length()
                with self.service.place():
                    await self.app(scope, body.receive, body.send)
            except Refusal as refusal:
                await answer(refusal)(scope, body.receive, body.send)
            except asyncio.CancelledError:
                # The server stops, has waited for as long as it may, and ends what still runs.
                if not self.service.is_stopping or body.is_answered:
                    raise
                await answer(unavailable("stopping"))(scope, receive, send)
        except Refusal as refusal:
            if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": 1008, "reason": str(refusal.detail)[:120]})
            else:
                await answer(refusal)(scope, receive, send)

    def _check_origin(self, scope: Scope) -> None:
        """Refuse pages of other sites, which browsers would let ask in their reader's name."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or {"*", origin} & set(self.service.settings.allowed_origins):
            return
        try:
            host = urlsplit(origin).netloc
        except ValueError:
            host = ""
        if not host or host != headers.get("host"):
            message = f"pages of {shown(origin)} may not ask here; the server can allow it (--allow-origin)."
            raise Refusal(403, message, code="wrong_origin")


class _Body:
    """The body of one request on its way in, and the answer on its way out."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.limits = service.limits
        self.headers = Headers(scope=scope)
        self._receive, self._send = receive, send
        self._deadline = asyncio.get_running_loop().time() + self.limits.upload_seconds
        self._num_bytes = 0
        self._is_whole = False
        self.is_answered = False
        """Whether the answer has begun."""

    def check_length(self) -> None:
        """Refuse a body that says that it is too large."""
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receive the next part of the body, and after the last what follows."""
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            seconds = f"{self.limits.upload_seconds:g} s"
            raise Refusal(408, f"the body must have come within {seconds}.", code="too_slow") from error
        self._num_bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._num_bytes > self.limits.max_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; where the body is not wholly read, let the client come to the end."""
        self.is_answered = True
        if not self._is_whole and message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
        if not self._is_whole and message["type"] == "http.response.body" and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        """Throw away what still comes, for a while."""
        if self._num_bytes == 0 and "expect" in self.headers:
            return  # such a client waits to be asked for its body
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while (await self._receive()).get("more_body", False):
                    pass

    def _too_large(self) -> Refusal:
        megabytes = f"{self.limits.max_upload_mb:g} MB"
        message = f"the body must have at most {megabytes}; send a compressed recording, or parts of it."
        return Refusal(413, message, code="upload_too_large")


class Watch:
    """Logs, counts and dresses every answer; stands outside of the gate.

    Args:
        app: The application behind.
        service: Whose counters count.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Args:
            scope: Of ASGI.
            receive: Of ASGI.
            send: Of ASGI.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] in {"websocket.accept", "websocket.close"}:
                status = 101 if message["type"] == "websocket.accept" else message.get("code", 1000)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = perf_counter() - start
            self.service.meters.count_request(_route(scope), status, seconds)
            notes = "".join(f" {name}={value}" for name, value in scope.get(NOTES, {}).items())
            method = scope.get("method", "WEBSOCKET")
            log.info("%s %s %d %.3fs%s", method, _logged(scope["path"]), status, seconds, notes)


def answer(refusal: HTTPException) -> JSONResponse:
    """Write a refusal as a response.

    Args:
        refusal: Ours, or one of the framework's.
    """
    code, param = getattr(refusal, "code", None), getattr(refusal, "param", None)
    body = error_body(refusal.status_code, str(refusal.detail), code=code, param=param)
    return JSONResponse(body, refusal.status_code, dict(refusal.headers or {}))


def is_open(path: str) -> bool:
    """Whether a path is answered without a key.

    Args:
        path: Of the request.
    """
    return path in OPEN_PATHS or path.startswith("/page/")


def check_key(service: Service, authorization: str | None) -> None:
    """Refuse who does not know the key.

    Args:
        service: Whose key it is.
        authorization: The header, `Bearer KEY`; None where it is missing.

    Raises:
        Refusal: If a key is asked for and this is not it.
    """
    key = service.settings.api_key
    if key is None:
        return
    scheme, _, given = (authorization or "").partition(" ")
    # As bytes, since strings that are not ASCII are not compared in constant time.
    is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())
    if scheme.lower() != "bearer" or not is_right:
        message = "the key is wrong." if given else "a key must be sent, as `Authorization: Bearer KEY`."
        headers = {"WWW-Authenticate": "Bearer"}
        raise Refusal(401, message, code="invalid_api_key", headers=headers)


def _route(scope: Scope) -> str:
    """The route's path; there are only so many, while requests may have any."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"


def _logged(path: str) -> str:
    """A path of a request, in one line and not long."""
    printable = path.encode("unicode_escape").decode("ascii").replace(" ", "%20")
    return printable if len(printable) <= 100 else printable[:97] + "..."
