"""Transcript <-> JSON: everything that is known of a recording, times in seconds.

One object per recording: `version` (of this layout), `audio` (the path as given), `duration`, `text`,
`phones` (a list of `phone`, `start`, `end`, `score`), `segments` (a list of `start`, `end`, `text`, `score`)
and, where the vocabulary has word boundaries, `words` (a list of `word`, `start`, `end`, `score`). Where
several transcripts were asked for, `nbest` lists them (`text`, `log_prob`, `score`), and each phone has
`alternatives` (`phone`, `prob`). Seconds and scores are rounded to four decimals: a tenth of a millisecond.
`transcript.schema.json` beside this file is the JSON schema of it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.resources import files
from typing import Any

from unispeech.results import Candidate, Classification, Phone, Reading, Segment, Transcript, Word

VERSION = 1
"""Version of the layout. It rises when what a reader relies on changes; new fields alone leave it."""

NUM_DECIMALS = 4
"""Digits kept of seconds and scores."""


_NUMBERS = {"start", "end", "duration", "score", "prob", "log_prob"}
_TEXTS = {"audio", "text", "phone", "word"}


def to_json(transcript: Transcript) -> str:
    """Write a transcript as one JSON object over several lines, a phone a line.

    Args:
        transcript: What a recording gave.

    Returns:
        The JSON text without a line end; the same document as `to_jsonl`.
    """
    return dump(to_document(transcript, VERSION), is_spread=True)


def to_jsonl(transcript: Transcript) -> str:
    """Write a transcript as one JSON object on one line, for many recordings in one stream.

    Args:
        transcript: What a recording gave.

    Returns:
        The JSON text without a line end.
    """
    return dump(to_document(transcript, VERSION))


def from_json(text: str) -> Transcript:
    """Read back what `to_json` and `to_jsonl` write.

    Args:
        text: One JSON object.

    Returns:
        The transcript, with seconds and scores as they were rounded.

    Raises:
        ValueError: If `text` is not JSON, is of another version, or lacks or misspells a field.
    """
    try:
        document = json.loads(text)
        version = document.pop("version")
        words = document.pop("words", None)
        if version != VERSION:
            raise ValueError(f"`version` must be {VERSION}, but is {version!r}; update unispeech.")
        nbest = document.pop("nbest", None)
        document["nbest"] = None if nbest is None else [Reading(**_known(Reading, row)) for row in nbest]
        document["phones"] = [_phone(phone) for phone in document["phones"]]
        document["segments"] = [Segment(**_known(Segment, row)) for row in document.get("segments", [])]
        document["words"] = None if words is None else [Word(**_known(Word, word)) for word in words]
        return Transcript(**_known(Transcript, document))
    except (TypeError, KeyError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"`text` must be one JSON object as `to_json` writes it, but: {error}.") from error


def schema() -> dict[str, Any]:
    """Read the JSON schema of what `to_json` writes.

    Returns:
        A schema of draft 2020-12.
    """
    path = files("unispeech.formats") / "transcript.schema.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _phone(row: dict[str, Any]) -> Phone:
    others = row.get("alternatives")
    found = None if others is None else [Candidate(**_known(Candidate, other)) for other in others]
    return Phone(**{**_known(Phone, row), "alternatives": found})


def _known(kind: type, document: dict[str, Any]) -> dict[str, Any]:
    """The fields that this version of the package knows; a newer one may have added some."""
    names = {field.name for field in fields(kind)}
    known = {name: value for name, value in document.items() if name in names}
    for name, value in known.items():
        if name in _NUMBERS and value is not None and not _is_finite(value):
            raise TypeError(f"`{name}` must be a finite number, but is {value!r}")
        if name in _TEXTS and not isinstance(value, str):
            raise TypeError(f"`{name}` must be a text, but is {value!r}")
    return known


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def to_document(result: Transcript | Classification, version: int) -> dict[str, Any]:
    """Make plain values of a result.

    Args:
        result: What a recording gave.
        version: Of its layout.

    Returns:
        `version` and the fields by name, at every depth: numbers rounded, those that are None left out.
    """
    return {"version": version, **_plain(asdict(result))}


def _plain(value: Any) -> Any:
    """A value of a result, as a document has it."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return round(value, NUM_DECIMALS) if isinstance(value, float) else value


def dump(document: Mapping[str, object], *, is_spread: bool = False) -> str:
    """Write a document as JSON whose lines end where they are meant to.

    Args:
        document: Plain values by name.
        is_spread: Whether each name, and each item of a list, gets a line.

    Returns:
        The JSON text without a line end.
    """
    if not is_spread:
        return _dumps(document)
    fields = []
    for name, value in document.items():
        if isinstance(value, list) and value:
            rows = ",\n    ".join(_dumps(row) for row in value)
            fields.append(f'  "{name}": [\n    {rows}\n  ]')
        else:
            fields.append(f'  "{name}": {_dumps(value)}')
    return "{\n" + ",\n".join(fields) + "\n}"


def _dumps(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # JSON allows these in a string, but many readers end a line at some of them.
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
