import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

import odd_transcripts
from unispeech.formats import FORMATS
from unispeech.formats.json import from_json, schema, to_json, to_jsonl
from unispeech.results import Candidate, Phone, Reading, Segment, Transcript, Word

TRANSCRIPT = Transcript(
    audio="dir/ä.wav",
    duration=1.23456789,
    text="t͡ʃ a",
    phones=[
        Phone(phone="t͡ʃ", start=0.0225, end=0.0625, score=0.98765432),
        Phone(phone='"', start=0.1, end=0.12, score=1.0),
    ],
    segments=[Segment(start=0.0225, end=0.12, text="t͡ʃ a", score=0.99382716)],
)

WORD = Word(word="t͡ʃa", start=0.0225, end=0.12, score=0.99)
validator = Draft202012Validator(schema())

seconds = st.integers(0, 10**8).map(lambda n: n / 10**4)
scores = st.integers(0, 10**4).map(lambda n: n / 10**4)
names = st.text(st.characters(codec="utf-8"), max_size=5)
others = st.none() | st.lists(st.builds(Candidate, phone=names, prob=scores), max_size=3)
phones = st.lists(
    st.builds(Phone, phone=names, start=seconds, end=seconds, score=scores, alternatives=others), max_size=4
)
readings = st.lists(
    st.builds(Reading, text=names, log_prob=seconds.map(lambda n: -n), score=seconds.map(lambda n: -n)),
    max_size=3,
)
words = st.lists(st.builds(Word, word=names, start=seconds, end=seconds, score=scores), max_size=3)
transcripts = st.builds(
    Transcript,
    audio=names,
    duration=seconds,
    text=names,
    phones=phones,
    words=st.none() | words,
    segments=st.lists(st.builds(Segment, start=seconds, end=seconds, text=names, score=scores), max_size=3),
    nbest=st.none() | readings,
)


def test_json_has_the_documented_fields():
    text = to_json(TRANSCRIPT)
    assert text == (
        '{\n  "version": 1,\n  "audio": "dir/ä.wav",\n'
        '  "duration": 1.2346,\n  "text": "t͡ʃ a",\n  "phones": [\n'
        '    {"phone": "t͡ʃ", "start": 0.0225, "end": 0.0625, "score": 0.9877},\n'
        '    {"phone": "\\"", "start": 0.1, "end": 0.12, "score": 1.0}\n  ],\n'
        '  "segments": [\n    {"start": 0.0225, "end": 0.12, "text": "t͡ʃ a", "score": 0.9938}\n  ]\n}'
    )
    assert json.loads(text) == json.loads(to_jsonl(TRANSCRIPT))
    assert "\n" not in to_jsonl(TRANSCRIPT)


def test_words_are_there_where_the_vocabulary_has_boundaries():
    silent = Transcript(audio="a", duration=1.0, text="", words=[])
    assert json.loads(to_json(silent)) == {
        "version": 1,
        "audio": "a",
        "duration": 1.0,
        "text": "",
        "phones": [],
        "words": [],
        "segments": [],
    }
    spoken = Transcript(
        audio="a", duration=1.0, text="", words=[Word(word="ab", start=0.1, end=0.30000001, score=0.5)]
    )
    assert json.loads(to_json(spoken))["words"] == [{"word": "ab", "start": 0.1, "end": 0.3, "score": 0.5}]


@given(transcripts)
def test_what_is_written_is_read_back_equal(transcript):
    assert from_json(to_json(transcript)) == transcript
    assert from_json(to_jsonl(transcript)) == transcript
    assert len(to_jsonl(transcript).split("\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "audio": "a"}',
        '{"version": 1, "audio": "a", "duration": 1, "text": "", "phones": [{"phon": "a"}]}',
        '{"version": 1, "audio": "a", "duration": "1", "text": "", "phones": []}',
        '{"version": 1, "audio": "a", "duration": NaN, "text": "", "phones": []}',
        '{"version": 1, "audio": "a", "duration": 1, "text": "", "phones": [{"phone": null}]}',
        "[" * 200_000,
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="`text` must be one JSON object as `to_json` writes it"):
        from_json(text)


def test_another_version_is_refused():
    newer = to_json(TRANSCRIPT).replace('"version": 1', '"version": 2')
    with pytest.raises(ValueError, match="`version` must be 1, but is 2; update unispeech"):
        from_json(newer)


def test_fields_of_newer_writers_are_passed_over():
    document = json.loads(to_json(TRANSCRIPT))
    document["phones"][0]["colour"] = document["speaker"] = "red"
    assert from_json(json.dumps(document)) == from_json(to_json(TRANSCRIPT))


def test_documents_from_before_segments_are_read():
    document = json.loads(to_json(TRANSCRIPT))
    del document["segments"]
    validator.validate(document)
    assert from_json(json.dumps(document)).segments == []


@given(odd_transcripts.transcripts())
def test_what_is_written_fits_the_schema(transcript):
    validator.validate(json.loads(to_json(transcript)))


def test_the_schema_is_one_and_names_every_field():
    Draft202012Validator.check_schema(schema())
    phone = replace(TRANSCRIPT.phones[0], alternatives=[Candidate(phone="a", prob=0.5)])
    reading = Reading(text="a", log_prob=-1.5, score=-2.0)
    document = json.loads(to_json(replace(TRANSCRIPT, phones=[phone], words=[WORD], nbest=[reading])))
    assert list(schema()["properties"]) == list(document)
    for rows in ("phones", "words", "nbest"):
        row = document[rows][0]
        assert list(schema()["properties"][rows]["items"]["properties"]) == list(row)


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 2), ("duration", -1), ("text", None), ("phones", [{"phone": "a"}]), ("words", None)],
)
def test_the_schema_refuses_what_is_wrong(field, value):
    document = json.loads(to_json(TRANSCRIPT)) | {field: value}
    with pytest.raises(ValidationError):
        validator.validate(document)


def test_a_score_that_is_no_number_is_refused_rather_than_written():
    broken = Transcript(
        audio="a", duration=1.0, text="", phones=[Phone(phone="a", start=0, end=1, score=math.nan)]
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(broken)


def test_text_is_the_text():
    assert FORMATS["txt"](TRANSCRIPT) == "t͡ʃ a"
    assert FORMATS["json"] is to_json
