"""The routes that take recordings: transcription, alignment, classification."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel

from unispeech.formats import FORMATS
from unispeech.results import Transcript
from unispeech.serving.answers import (
    Labels,
    Transcription,
    VerboseTranscription,
    to_labels,
    to_transcription,
    to_verbose,
)
from unispeech.serving.forms import (
    AlignmentForm,
    ClassificationForm,
    RecordingForm,
    TranscriptionForm,
    check_granularities,
    check_model,
)
from unispeech.serving.refusals import ErrorBody
from unispeech.serving.service import NOTES, Service, while_there
from unispeech.serving.uploads import Upload
from unispeech.text import Vocabulary

MULTIPART = Form(media_type="multipart/form-data")
TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
ANY_OBJECT = {"application/json": {"schema": {"type": "object"}}}
REFUSALS = {
    400: "The body is not a form.",
    401: "The key is missing or wrong.",
    403: "A page of another site asks.",
    404: "Another model is served.",
    408: "The body came too slowly.",
    413: "The upload is too large or the recording too long.",
    422: "A field is wrong, or the file is not audio, or the text does not fit.",
    429: "All places are taken; come again after Retry-After seconds.",
    503: "The server is starting or stopping.",
}
Errors = dict[int | str, dict[str, Any]]
ERRORS: Errors = {
    status: {"model": ErrorBody, "description": description} for status, description in REFUSALS.items()
}


def speech_routes(service: Service, dependencies: Sequence[Any]) -> APIRouter:
    """Make the routes.

    Args:
        service: What does the work.
        dependencies: What every request has to pass.

    Returns:
        A router.
    """
    router = APIRouter(dependencies=dependencies, tags=["speech"])

    @router.post(
        "/v1/audio/transcriptions",
        response_model=None,
        responses={**ERRORS, 200: {"model": Transcription | VerboseTranscription, **TEXT}},
    )
    async def transcribe(request: Request, form: Annotated[TranscriptionForm, MULTIPART]) -> Response:
        """Write down what is said in a recording, in OpenAI's form."""
        served = service.served
        transcriber = served.for_language(form.language)
        vocabulary = served.recogniser.vocabulary
        check_granularities(form, has_words=vocabulary.word_boundary is not None)

        async def work() -> Response:
            upload = await _receive(service, request, form)
            transcript = await service.do(request, served.transcribe(transcriber, upload.waveform))
            return _transcription(transcript, form, vocabulary)

        return await while_there(request, work())

    @router.post(
        "/v1/align",
        response_model=None,
        responses={**ERRORS, 200: {"content": {**ANY_OBJECT, **TEXT["content"]}}},
    )
    async def align(request: Request, form: Annotated[AlignmentForm, MULTIPART]) -> Response:
        """Find when the phones and words of a known text are said.

        The answer is the JSON document that `unispeech align -f json` writes, or another format.
        """
        served = service.served
        _ = served.recogniser  # refuses where there is none

        async def work() -> Response:
            upload = await _receive(service, request, form)
            task = served.align(upload.waveform, form.text, is_phones=form.phones, wildcard=form.wildcard)
            transcript = replace(await service.do(request, task), audio=upload.name)
            written = FORMATS[form.response_format](transcript)
            is_json = form.response_format == "json"
            return Response(written, media_type="application/json") if is_json else _text(written)

        return await while_there(request, work())

    @router.post("/v1/classify", response_model=None, responses={**ERRORS, 200: {"model": Labels}})
    async def classify(request: Request, form: Annotated[ClassificationForm, MULTIPART]) -> Response:
        """Tell which labels fit a recording; for a server of a classifier."""
        served = service.served
        num_labels = min(form.top_k, len(served.labeller.labels))

        async def work() -> Response:
            upload = await _receive(service, request, form)
            return _json(to_labels(await service.do(request, served.classify(upload.waveform)), num_labels))

        return await while_there(request, work())

    return router


async def _receive(service: Service, request: Request, form: RecordingForm) -> Upload:
    """Check what every form has, and decode the recording."""
    check_model(form, service.settings.model.shown_name)
    upload = await service.uploads.decode(form.file.file, form.file.filename)
    request.scope.setdefault(NOTES, {})["audio"] = f"{upload.duration:.2f}s"
    return upload


def _transcription(transcript: Transcript, form: TranscriptionForm, vocabulary: Vocabulary) -> Response:
    """A transcript in the form that was asked for."""
    if form.response_format == "json":
        return _json(to_transcription(transcript))
    if form.response_format == "verbose_json":
        wanted = form.granularities or ["segment"]
        return _json(to_verbose(transcript, vocabulary, language=form.language, granularities=wanted))
    name = "txt" if form.response_format == "text" else form.response_format
    return _text(FORMATS[name](transcript))


def _json(answer: BaseModel) -> Response:
    """An answer without the fields that were not asked for."""
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _text(written: str) -> Response:
    return Response(written + "\n", media_type="text/plain")
