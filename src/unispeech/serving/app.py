"""The application: the API, the page, and how errors are answered."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from unispeech.serving.forms import explain
from unispeech.serving.gate import Gate, Watch, answer
from unispeech.serving.pages import page_routes
from unispeech.serving.refusals import Refusal, shown
from unispeech.serving.service import Service
from unispeech.serving.speech import ERRORS, Errors, speech_routes
from unispeech.serving.streams import stream_routes

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
"""Kinds of bodies that hold fields."""


class Health(BaseModel):
    """How the server is."""

    status: Literal["ready", "starting", "stopping"]
    """`ready` where requests are taken."""


class Model(BaseModel):
    """The model that is served."""

    id: str
    """Its name."""
    object: Literal["model"] = "model"
    """That it is a model."""
    created: int
    """When its files were made, in seconds since 1970."""
    owned_by: str = "unispeech"
    """Who serves it."""
    kind: Literal["phones", "characters", "labels"]
    """What it writes; `labels` for a classifier."""
    symbols: list[str]
    """The phones, characters or labels."""
    languages: list[str]
    """Languages whose inventories it knows."""
    has_words: bool
    """Whether it writes words."""
    max_seconds: float
    """Longest recording that is taken."""
    max_upload_mb: float
    """Largest upload that is taken, in millions of bytes."""


class ModelList(BaseModel):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    """That it is a list."""
    data: list[Model]
    """The models."""


def create_app(service: Service) -> FastAPI:
    """Assemble the application.

    Args:
        service: What runs behind it, from the application's start to its end.

    Returns:
        An ASGI application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # The usual pages about the API load scripts from other hosts.
    app = FastAPI(
        title="unispeech", version=version("unispeech"), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    # The last that is added is the first that a request meets.
    app.add_middleware(Gate, service=service)
    if service.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
        )
    app.add_middleware(Watch, service=service)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    dependencies = [Security(HTTPBearer(auto_error=False))] if service.settings.api_key else []
    app.include_router(speech_routes(service, dependencies))
    app.include_router(state_routes(service, dependencies))
    app.include_router(stream_routes(service))
    app.include_router(page_routes())
    return app


def state_routes(service: Service, dependencies: Sequence[Any]) -> APIRouter:
    """Make the routes that tell about the server.

    Args:
        service: What they tell about.
        dependencies: What requests have to pass, but those for the health.

    Returns:
        A router.
    """
    router = APIRouter(tags=["server"])
    errors: Errors = {status: ERRORS[status] for status in (401, 403, 503)}

    @router.get("/v1/models", responses=errors, dependencies=dependencies)
    async def models() -> ModelList:
        """List the model that is served."""
        return ModelList(data=[_model(service)])

    @router.get("/v1/models/{name:path}", responses={**errors, 404: ERRORS[404]}, dependencies=dependencies)
    async def model(name: str) -> Model:
        """Describe the model that is served."""
        found = _model(service)
        if name != found.id:
            message = f"`name` must be {found.id}, the one model that is served here."
            raise Refusal(404, message, code="model_not_found", param="name")
        return found

    @router.get("/health", responses={403: ERRORS[403], 503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Tell whether requests are taken: 200 if so, 503 while the server starts or stops."""
        response.status_code = 200 if service.state == "ready" else 503
        return Health(status=service.state)

    @router.get("/metrics", response_model=None, dependencies=dependencies, responses=errors)
    async def metrics() -> Response:
        """Give the counters for Prometheus."""
        return Response(service.meters.page(), media_type="text/plain; version=0.0.4")

    return router


def _model(service: Service) -> Model:
    """What there is to know of the model."""
    served, limits = service.served, service.limits
    classifier = served.classifier
    vocabulary = None if classifier is not None else served.recogniser.vocabulary
    hidden = set() if vocabulary is None else {*vocabulary.special, vocabulary.word_boundary}
    return Model(
        id=service.settings.model.shown_name,
        created=served.created,
        kind="labels" if vocabulary is None else vocabulary.kind,
        symbols=[s for i, s in enumerate(vocabulary.symbols) if i not in hidden]
        if vocabulary is not None
        else list(classifier.labels if classifier is not None else []),
        languages=served.languages,
        has_words=vocabulary is not None and vocabulary.word_boundary is not None,
        max_seconds=limits.max_seconds,
        max_upload_mb=limits.max_upload_mb,
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with an error that is meant for the client."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and not isinstance(error, Refusal):
        path = shown(request.url.path, longest=40)
        message = f"there is nothing at {path}; /openapi.json lists what there is."
        return answer(Refusal(404, message, code="no_route"))
    return answer(error)


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer to a form with wrong fields."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind not in FORM_TYPES:
        found = kind if re.fullmatch(r"[!-~]{1,80}", kind) else "of no known kind"
        message = f"the body must be a form (multipart/form-data), but is {found}."
        return answer(Refusal(400, message, code="no_form"))
    return answer(explain(error.errors(), request.url.path))


async def _broken(request: Request, error: Exception) -> Response:
    """Answer where the mistake is ours; the log gets the traceback."""
    return answer(Refusal(500, "the server made a mistake; its log says which.", code="internal"))
