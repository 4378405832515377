"""How a request is refused: a status, one line, and OpenAI's error form."""

from collections.abc import Mapping
from typing import Literal

from fastapi import HTTPException
from pydantic import BaseModel

from unispeech.formats.spans import clean

ErrorType = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    """One line that says what to do."""
    type: ErrorType
    """Whose mistake it is."""
    param: str | None = None
    """The field of the request that is wrong; null where it is none of them."""
    code: str | None = None
    """A word for programs, such as `audio_too_long`."""


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail
    """What went wrong."""


class Refusal(HTTPException):
    """Ends a request with an error.

    Args:
        status: HTTP status.
        message: One line that names the thing and the fix.
        code: A word for programs.
        param: The field of the request that is wrong, if it is one.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code
        self.param = param


def busy(message: str, *, retry_seconds: int = 1) -> Refusal:
    """Say that there is no place now.

    Args:
        message: One line.
        retry_seconds: When to come again.
    """
    return Refusal(429, message, code="busy", headers={"Retry-After": str(retry_seconds)})


def unavailable(state: str) -> Refusal:
    """Say that the server is not serving.

    Args:
        state: "starting" or "stopping".
    """
    message = f"the server is {state}; try again in a moment."
    return Refusal(503, message, code=state, headers={"Retry-After": "5"})


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, object]:
    """Write an error in OpenAI's form.

    Args:
        status: HTTP status.
        message: What to say; line ends and control characters are taken out.
        code: A word for programs.
        param: The field of the request that is wrong.
    """
    kind: ErrorType = "invalid_request_error"
    if status >= 500:
        kind = "server_error"
    elif status == 429:
        kind = "rate_limit_error"
    elif status in {401, 403}:
        kind = "authentication_error"
    line = clean(" ".join(message.split()))
    return ErrorBody(error=ErrorDetail(message=line, type=kind, param=param, code=code)).model_dump()


def shown(name: str | None, *, longest: int = 80) -> str:
    """Make a name that a client gives fit for messages: its last part, in one line, not long.

    Args:
        name: Such as the file name of an upload.
        longest: Most characters.

    Returns:
        The name; `file` where there is none.
    """
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    last = clean(" ".join(last.split()))
    return (last if len(last) <= longest else last[: longest - 3] + "...") or "file"
