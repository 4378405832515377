import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from pympi import Eaf

from odd_transcripts import transcripts
from unispeech.formats import FORMATS
from unispeech.formats.eaf import to_eaf
from unispeech.formats.spans import lay_out, tiers
from unispeech.results import Phone, Transcript, Word

# The children of the root in the order in which the schema of EAF 3.0 has them.
ORDER = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
ATTRIBUTES = {
    "HEADER": ({"TIME_UNITS"}, {"MEDIA_FILE"}),
    "MEDIA_DESCRIPTOR": ({"MEDIA_URL", "MIME_TYPE"}, {"RELATIVE_MEDIA_URL"}),
    "PROPERTY": (set(), {"NAME"}),
    "TIME_ORDER": (set(), set()),
    "TIME_SLOT": ({"TIME_SLOT_ID"}, {"TIME_VALUE"}),
    "TIER": ({"TIER_ID", "LINGUISTIC_TYPE_REF"}, set()),
    "ANNOTATION": (set(), set()),
    "ALIGNABLE_ANNOTATION": ({"ANNOTATION_ID", "TIME_SLOT_REF1", "TIME_SLOT_REF2"}, set()),
    "ANNOTATION_VALUE": (set(), set()),
    "LINGUISTIC_TYPE": ({"LINGUISTIC_TYPE_ID"}, {"TIME_ALIGNABLE", "GRAPHIC_REFERENCES"}),
    "CONSTRAINT": ({"STEREOTYPE"}, {"DESCRIPTION"}),
}
PHONES = [
    Phone(phone="a<&>", start=0.1, end=0.2, score=1.0),
    Phone(phone='"', start=0.2, end=0.2, score=1.0),
]


def spoken(**fields):
    return Transcript(**{"audio": "dir/my talk.wav", "duration": 1.0, "text": "", "phones": PHONES, **fields})


def check(text):
    """Hold a document to the structure of EAF 3.0, as far as we use it."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert {"AUTHOR", "DATE", "VERSION"} <= set(root.attrib)
    assert root.attrib["FORMAT"] == "3.0"
    places = [ORDER.index(child.tag) for child in root]
    assert places == sorted(places)
    assert {"HEADER", "TIME_ORDER"} <= {child.tag for child in root}
    for element in root.iter():
        if element is not root:
            required, optional = ATTRIBUTES[element.tag]
            assert required <= set(element.attrib) <= required | optional, element.tag
    slots = [slot.attrib for slot in root.iter("TIME_SLOT")]
    times = [int(slot["TIME_VALUE"]) for slot in slots]
    assert times == sorted(times)
    assert all(time >= 0 for time in times)
    names = [slot["TIME_SLOT_ID"] for slot in slots]
    annotations = [annotation.attrib for annotation in root.iter("ALIGNABLE_ANNOTATION")]
    ids = [*names, *(annotation["ANNOTATION_ID"] for annotation in annotations)]
    assert len(set(ids)) == len(ids)
    used = [a[f"TIME_SLOT_REF{i}"] for a in annotations for i in (1, 2)]
    assert sorted(used) == sorted(names)
    types = {kind.attrib["LINGUISTIC_TYPE_ID"] for kind in root.iter("LINGUISTIC_TYPE")}
    assert {tier.attrib["LINGUISTIC_TYPE_REF"] for tier in root.iter("TIER")} <= types
    return root


def test_an_eaf_file():
    root = check(to_eaf(spoken(words=[Word(word="ab", start=0.1, end=0.2, score=1.0)])))
    assert [tier.attrib["TIER_ID"] for tier in root.iter("TIER")] == ["words", "phones"]
    assert [value.text for value in root.iter("ANNOTATION_VALUE")] == ["ab", "a<&>", '"']
    [media] = root.iter("MEDIA_DESCRIPTOR")
    assert media.attrib == {
        "MEDIA_URL": (Path.cwd() / "dir/my talk.wav").as_uri(),
        "MIME_TYPE": "audio/x-wav",
        "RELATIVE_MEDIA_URL": "./my talk.wav",
    }
    assert root.find("HEADER/PROPERTY").text == "3"
    assert FORMATS["eaf"] is to_eaf


@pytest.mark.parametrize(
    ("audio", "kind"), [("a.flac", "audio/"), ("a.mp3", "audio/mpeg"), ("a.xyzzy", "audio/*")]
)
def test_the_kind_of_the_recording_is_told(audio, kind):
    [media] = check(to_eaf(spoken(audio=audio))).iter("MEDIA_DESCRIPTOR")
    assert media.attrib["MIME_TYPE"].startswith(kind)


@pytest.mark.parametrize("audio", ["", "-"])
def test_what_came_from_no_file_links_none(audio):
    assert list(check(to_eaf(spoken(audio=audio))).iter("MEDIA_DESCRIPTOR")) == []


def test_silence_has_an_empty_tier():
    root = check(to_eaf(spoken(phones=[])))
    [tier] = root.iter("TIER")
    assert len(tier) == 0


@settings(max_examples=40)
@given(transcripts())
def test_any_transcript_has_the_structure(transcript):
    check(to_eaf(transcript))


@settings(max_examples=40)
@given(transcript=transcripts())
def test_pympi_reads_back_equal(tmp_path_factory, transcript):
    path = tmp_path_factory.mktemp("pympi") / "a.eaf"
    path.write_text(to_eaf(transcript) + "\n", encoding="utf-8", newline="")
    found = Eaf(str(path))
    assert set(found.get_tier_names()) == set(tiers(transcript))
    for name, spans in tiers(transcript).items():
        times = lay_out(spans, ticks_per_second=1000, duration=transcript.duration)
        assert sorted(row[:2] for row in found.get_annotation_data_for_tier(name)) == times
        values = {row[0]: row[2] for row in found.get_annotation_data_for_tier(name)}
        assert [values[start] for start, _ in times] == [span.label for span in spans]
