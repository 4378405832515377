"""CTM and TSV."""

import csv
import io
import re

import pytest
from hypothesis import given

from odd_transcripts import transcripts
from unispeech.formats import FORMATS
from unispeech.formats.ctm import to_ctm
from unispeech.formats.spans import coarsest, tiers
from unispeech.formats.tsv import to_tsv
from unispeech.results import Phone, Transcript, Word

PHONES = [
    Phone(phone="t͡ʃ", start=0.02251, end=0.0425, score=0.98765),
    Phone(phone='"', start=0.1, end=0.1, score=1.0),
]
WORDS = [Word(word="t͡ʃ ä", start=0.02251, end=0.1, score=0.5)]


def transcript(**fields):
    return Transcript(**{"audio": "dir/my talk.wav", "duration": 1.0, "text": "", "phones": PHONES, **fields})


def test_a_ctm_of_phones():
    assert to_ctm(transcript()) == 'my_talk 1 0.023 0.019 t͡ʃ 0.9877\nmy_talk 1 0.100 0.000 " 1.0000'
    assert FORMATS["ctm"] is to_ctm


def test_a_ctm_of_words():
    assert to_ctm(transcript(words=WORDS)) == "my_talk 1 0.023 0.077 t͡ʃ_ä 0.5000"
    assert to_ctm(transcript(words=[])) == ""


@pytest.mark.parametrize(("audio", "name"), [("", "_"), ("-", "-"), (";;a.wav", "__a"), ("a\nb", "a\ufffdb")])
def test_a_ctm_has_a_name_for_any_recording(audio, name):
    assert to_ctm(transcript(audio=audio)).split()[0] == name


@given(transcripts())
def test_a_ctm_is_read_back_equal(transcript):
    lines = to_ctm(transcript).split("\n") if to_ctm(transcript) else []
    for line, span in zip(lines, coarsest(transcript), strict=True):
        name, channel, start, duration, symbol, score = line.split()
        assert not name.startswith(";;")
        assert channel == "1"
        assert float(start) == pytest.approx(span.start, abs=0.00051)
        assert float(start) + float(duration) == pytest.approx(span.end, abs=0.00051)
        assert float(duration) >= 0.0
        assert symbol == (re.sub(r"\s", "_", span.label) or "_")
        assert float(score) == pytest.approx(span.score, abs=0.00005)


def test_a_tsv():
    assert to_tsv(transcript(words=WORDS)) == (
        "tier\tstart\tend\tlabel\tscore\n"
        "words\t0.0225\t0.1000\tt͡ʃ ä\t0.5000\n"
        "phones\t0.0225\t0.0425\tt͡ʃ\t0.9877\n"
        'phones\t0.1000\t0.1000\t""""\t1.0000'
    )
    assert to_tsv(transcript(phones=[])) == "tier\tstart\tend\tlabel\tscore"
    assert FORMATS["tsv"] is to_tsv


@given(transcripts())
def test_a_tsv_is_read_back_equal(transcript):
    rows = list(csv.DictReader(io.StringIO(to_tsv(transcript)), dialect="excel-tab"))
    spans = [(tier, span) for tier, spans in tiers(transcript).items() for span in spans]
    assert [(row["tier"], row["label"]) for row in rows] == [(tier, span.label) for tier, span in spans]
    for row, (_, span) in zip(rows, spans, strict=True):
        assert float(row["start"]) == pytest.approx(span.start, abs=0.000051)
        assert float(row["end"]) == pytest.approx(span.end, abs=0.000051)
        assert float(row["score"]) == pytest.approx(span.score, abs=0.000051)
