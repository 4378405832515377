import html
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from itertools import pairwise

import pytest
import srt
import webvtt
from hypothesis import given

from odd_transcripts import transcripts
from unispeech.formats import FORMATS
from unispeech.formats.srt import to_srt
from unispeech.formats.subtitles import clock, cues
from unispeech.formats.vtt import to_vtt
from unispeech.results import Phone, Segment, Transcript, Word


def spoken(times, words=None, text=None, duration=100.0):
    phones = [
        Phone(phone=chr(ord("a") + i % 26), start=start, end=end, score=1.0)
        for i, (start, end) in enumerate(times)
    ]
    text = " ".join(phone.phone for phone in phones) if text is None else text
    return Transcript(audio="a.wav", duration=duration, text=text, phones=phones, words=words)


# -- cues ----------------------------------------------------------------------------------------------------


def test_a_pause_ends_a_cue():
    found = cues(spoken([(0.0, 0.1), (0.4, 0.5), (0.81, 0.9)]))
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in found] == [(0, 500, "a b"), (810, 900, "c")]


def test_a_cue_is_neither_too_long_nor_too_wide():
    slow = cues(spoken([(i * 0.5, i * 0.5 + 0.5) for i in range(20)]))
    assert [cue.end_ms - cue.start_ms for cue in slow] == [6000, 4000]
    fast = cues(spoken([(i * 0.05, i * 0.05 + 0.05) for i in range(60)]))
    assert [len(cue.text) for cue in fast] == [83, 35]
    assert " ".join(cue.text for cue in fast) == spoken([(0.0, 0.1)] * 60).text


def test_words_are_shown_where_there_are_any():
    words = [
        Word(word="ab", start=0.0, end=0.2, score=1.0),
        Word(word="c", start=0.3, end=0.4, score=1.0),
        Word(word="d" * 100, start=0.4, end=9.0, score=1.0),
    ]
    found = cues(spoken([(0.0, 0.1), (0.1, 0.2), (0.3, 0.4)], words=words))
    assert [cue.text for cue in found] == ["ab c", "d" * 100]


def test_characters_without_word_boundaries_are_joined():
    assert [cue.text for cue in cues(spoken([(0.0, 0.1), (0.1, 0.2)], text="ab"))] == ["ab"]
    assert [cue.text for cue in cues(spoken([(0.0, 0.1), (0.1, 0.2)], text="a b"))] == ["a b"]


def test_segments_part_cues_wherever_they_do():
    heard = spoken([(0.0, 0.1), (0.1, 0.2), (5.0, 5.1), (5.2, 5.3)])
    halves = [
        Segment(start=0.0, end=0.1, text="a", score=1.0),
        Segment(start=0.1, end=6.0, text="", score=1.0),
    ]
    assert [cue.text for cue in cues(replace(heard, segments=halves))] == ["a", "b c d"]
    blank = replace(heard, segments=halves, phones=[heard.phones[0], replace(heard.phones[1], phone=" ")])
    assert [cue.text for cue in cues(blank)] == ["a"]


def test_silence_has_no_cues():
    assert cues(spoken([])) == []
    assert to_srt(spoken([])) == ""
    assert to_vtt(spoken([])) == "WEBVTT"


@given(transcripts())
def test_cues_are_lines_apart_from_each_other(transcript):
    found = cues(transcript)
    assert all(0 <= cue.start_ms < cue.end_ms for cue in found)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(found))
    assert all(cue.text == " ".join(cue.text.split()) != "" for cue in found)
    assert all(len(cue.text.splitlines()) == 1 for cue in found)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "00:00:00,000"), (3_723_004, "01:02:03,004"), (360_000_000, "100:00:00,000")],
)
def test_a_clock(milliseconds, text):
    assert clock(milliseconds, point=",") == text


# -- SRT -----------------------------------------------------------------------------------------------------


def test_an_srt_file():
    assert to_srt(spoken([(0.0, 0.1), (1.0005, 1.0005)])) == (
        "1\n00:00:00,000 --> 00:00:00,100\na\n\n2\n00:00:01,000 --> 00:00:01,001\nb"
    )
    assert FORMATS["srt"] is to_srt


@given(transcripts())
def test_srt_is_read_back_equal(transcript):
    found = list(srt.parse(to_srt(transcript) + "\n"))
    assert [(cue.start, cue.end, cue.content) for cue in found] == [
        (timedelta(milliseconds=cue.start_ms), timedelta(milliseconds=cue.end_ms), cue.text)
        for cue in cues(transcript)
    ]
    assert [cue.index for cue in found] == list(range(1, len(found) + 1))


# -- VTT -----------------------------------------------------------------------------------------------------


def test_a_vtt_file():
    times = [(0.0, 0.1)]
    phones = [Phone(phone='<&>"', start=0.0, end=0.1, score=1.0)]
    assert to_vtt(spoken(times)) == "WEBVTT\n\n00:00:00.000 --> 00:00:00.100\na"
    odd = Transcript(audio="", duration=1.0, text="", phones=phones)
    assert to_vtt(odd).splitlines()[-1] == '&lt;&amp;&gt;"'
    assert FORMATS["vtt"] is to_vtt


def milliseconds(timestamp):
    hours, minutes, seconds, rest = timestamp.to_tuple()
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


@given(transcripts())
def test_vtt_is_read_back_equal(transcript):
    found = webvtt.from_buffer(StringIO(to_vtt(transcript) + "\n"))
    assert [
        (milliseconds(cue.start_time), milliseconds(cue.end_time), html.unescape(cue.raw_text))
        for cue in found
    ] == [(cue.start_ms, cue.end_ms, cue.text) for cue in cues(transcript)]
