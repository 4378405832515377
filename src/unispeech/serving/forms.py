"""What clients send: the fields of each request, and what is said of those that are wrong."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from unispeech.phones import nearest
from unispeech.serving.answers import Granularity
from unispeech.serving.refusals import Refusal, shown

LONGEST_TEXT = 200_000
"""Most characters of a text to align: hours of speech."""


class RecordingForm(BaseModel):
    """What every request with a recording has."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[UploadFile, Field(description="A recording of any kind, rate and number of channels.")]
    model: Annotated[
        str | None, Field(description="The model's name as /v1/models gives it, or nothing.")
    ] = None


class TranscriptionForm(RecordingForm):
    """A recording to write down, as OpenAI's clients send it."""

    language: Annotated[
        str | None, Field(description="Only symbols of this language; one of those of /v1/models.")
    ] = None
    response_format: Annotated[
        Literal["json", "verbose_json", "text", "srt", "vtt"], Field(description="What to answer.")
    ] = "json"
    granularities: Annotated[
        list[Granularity],
        Field(
            alias="timestamp_granularities[]",
            description="Which times verbose_json shall have; segments by default.",
        ),
    ] = []
    temperature: Annotated[float, Field(ge=0, le=0, description="0: nothing is drawn at random.")] = 0.0
    prompt: Annotated[str, Field(max_length=0, description="Not taken.")] = ""
    stream: Annotated[Literal["false"], Field(description="Streams go to /v1/stream.")] = "false"
    chunking_strategy: Annotated[Literal["auto"], Field(description="Long recordings are always cut.")] = (
        "auto"
    )
    include: Annotated[
        list[str], Field(alias="include[]", max_length=0, description="Not taken: scores always come along.")
    ] = []


class AlignmentForm(RecordingForm):
    """A recording and what is said in it."""

    text: Annotated[
        str,
        Field(min_length=1, max_length=LONGEST_TEXT, description="What is said; * stands for anything else."),
    ]
    phones: Annotated[
        bool, Field(description="The text is phones separated by spaces, with | between words or without.")
    ] = False
    wildcard: Annotated[
        bool, Field(description="What cannot be spelled, such as numbers, becomes a wildcard.")
    ] = False
    response_format: Annotated[
        Literal["json", "txt", "srt", "vtt", "ctm", "tsv", "TextGrid"], Field(description="What to answer.")
    ] = "json"


class ClassificationForm(RecordingForm):
    """A recording to classify."""

    top_k: Annotated[int, Field(ge=1, le=1000, description="How many labels to give at most.")] = 5


FORMS: dict[str, type[RecordingForm]] = {
    "/v1/audio/transcriptions": TranscriptionForm,
    "/v1/align": AlignmentForm,
    "/v1/classify": ClassificationForm,
}
"""Path -> its form."""

REASONS = {
    "temperature": "must be 0, the most probable symbols are always taken",
    "prompt": "must be left out, the model hears sound only",
    "stream": "must be false, sound in parts is taken by the WebSocket /v1/stream",
    "include[]": "must be left out, scores come with verbose_json",
}
"""What to say of fields that OpenAI's models take and ours cannot."""


def check_model(form: RecordingForm, name: str) -> None:
    """Refuse a request for a model that is not here.

    Args:
        form: The request.
        name: The model that is.

    Raises:
        Refusal: If it names another one.
    """
    if form.model is not None and form.model != name:
        message = f"`model` must be {name}, the one that is served here, but is {shown(form.model)}."
        raise Refusal(404, message, code="model_not_found", param="model")


def check_granularities(form: TranscriptionForm, *, has_words: bool) -> None:
    """Refuse times that the answer cannot have.

    Args:
        form: The request.
        has_words: Whether the model writes words.

    Raises:
        Refusal: If the answer is not verbose_json, or words are asked of a model that writes none.
    """
    name = "timestamp_granularities[]"
    if form.granularities and form.response_format != "verbose_json":
        message = (
            f"`response_format` must be verbose_json where `{name}` is given, but is {form.response_format}."
        )
        raise Refusal(422, message, code="invalid_field", param="response_format")
    if "word" in form.granularities and not has_words:
        message = f"`{name}` must be segment or phone, the model writes no words, but is word."
        raise Refusal(422, message, code="invalid_field", param=name)


def explain(errors: Sequence[Mapping[str, Any]], path: str) -> Refusal:
    """Say in one line what is wrong with the fields of a request.

    Args:
        errors: What pydantic found, at least one.
        path: Of the request; tells which fields there are.

    Returns:
        The refusal, about the first.
    """
    error = errors[0]
    place = [str(part) for part in error["loc"] if part != "body"]
    field, kind = (place or ["body"])[0], error["type"]
    value = error.get("input")
    but = f", but is {shown(value)!r}." if isinstance(value, str) else "."
    if kind == "missing":
        message = f"`{field}` must be given, but is missing."
    elif kind == "extra_forbidden":
        known = [found.alias or name for name, found in FORMS[path].model_fields.items()]
        message = f"there is no field `{shown(field)}`, only {', '.join(known)}{nearest(field, known)}"
    elif field in REASONS:
        message = f"`{field}` {REASONS[field]}{but}"
    elif kind in {"literal_error", "enum"}:
        message = f"`{field}` must be one of {error['ctx']['expected']}{but}"
    else:
        message = f"`{field}` is wrong: {str(error['msg'])[:1].lower()}{str(error['msg'])[1:]}{but}"
    return Refusal(422, message, code="invalid_field", param=shown(field))
