"""Segments: between silences, within marked stretches, with words and without."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odd_transcripts import transcripts
from tiny_recognisers import LETTERS, PHONES, babble, tiny_recogniser
from unispeech import Aligner, Transcriber
from unispeech.pipelines.segments import gap_between, keep_within, split_at_pauses
from unispeech.results import Phone, Segment, Transcript, Word


def phones_at(*rows):
    return [Phone(phone=name, start=start, end=end, score=score) for name, start, end, score in rows]


PLAIN = Transcript(
    audio="a.wav",
    duration=5.0,
    text="a b c d",
    phones=phones_at(("a", 0.1, 0.2, 0.5), ("b", 0.5, 0.6, 0.7), ("c", 0.95, 1.1, 0.8), ("d", 3.0, 3.5, 0.2)),
)
SPELLED = Transcript(
    audio="",
    duration=5.0,
    text="no one",
    phones=phones_at(
        ("n", 0.1, 0.2, 0.5), ("o", 0.8, 0.9, 0.7),
        ("o", 1.0, 1.1, 0.9), ("n", 1.1, 1.2, 0.9), ("e", 1.2, 1.3, 0.9),
    ),
    words=[Word(word="no", start=0.1, end=0.9, score=0.6), Word(word="one", start=1.0, end=1.3, score=0.9)],
)  # fmt: skip


def test_a_longer_silence_than_that_parts():
    assert split_at_pauses(PLAIN) == [
        Segment(start=0.1, end=0.6, text="a b", score=pytest.approx(0.6)),
        Segment(start=0.95, end=1.1, text="c", score=0.8),
        Segment(start=3.0, end=3.5, text="d", score=0.2),
    ]
    assert [s.text for s in split_at_pauses(PLAIN, 0.34)] == ["a b", "c", "d"]
    assert [s.text for s in split_at_pauses(PLAIN, 0.35)] == ["a b c", "d"]
    assert [s.text for s in split_at_pauses(PLAIN, 5.0)] == ["a b c d"]
    assert [s.text for s in split_at_pauses(PLAIN, 0.0)] == ["a", "b", "c", "d"]


def test_a_word_is_never_parted():
    assert [s.text for s in split_at_pauses(SPELLED)] == ["no one"]
    [no, one] = split_at_pauses(SPELLED, 0.05)
    assert (no.text, no.start, no.end, no.score) == ("no", 0.1, 0.9, pytest.approx(0.6))
    assert (one.text, one.score) == ("one", pytest.approx(0.9))


def test_marked_stretches_keep_what_has_its_middle_in_them():
    kept = keep_within(PLAIN, [(0.0, 0.12), (0.54, 1.0), (1.0, 3.2)])
    assert kept.text == "b c"
    assert [(p.phone, p.start, p.end) for p in kept.phones] == [("b", 0.54, 0.6), ("c", 1.0, 1.1)]
    assert kept.segments == [
        Segment(start=0.54, end=1.0, text="b", score=0.7),
        Segment(start=1.0, end=3.2, text="c", score=0.8),
    ]
    assert (kept.audio, kept.duration, kept.words) == ("a.wav", 5.0, None)


def test_marked_stretches_keep_words():
    kept = keep_within(SPELLED, [(0.95, 2.0)])
    assert (kept.text, [w.word for w in kept.words]) == ("one", ["one"])
    assert [s.text for s in kept.segments] == ["one"]


def test_phones_of_words_stand_apart_as_in_the_text_of_the_whole():
    kept = keep_within(Transcript(**{**vars(SPELLED), "text": "n o o n e"}), [(0.0, 0.95), (0.95, 5.0)])
    assert (kept.text, [s.text for s in kept.segments]) == ("n o o n e", ["n o", "o n e"])


def test_a_stretch_behind_the_recording_is_refused():
    with pytest.raises(
        ValueError,
        match=r"a\.wav: segments must begin within .* \(5\.00 s\), but one begins at 5\.00 s",
    ):
        keep_within(PLAIN, [(0.0, 1.0), (5.0, 6.0)])


def test_what_stands_between():
    assert gap_between(PLAIN) == gap_between(SPELLED) == " "
    assert gap_between(Transcript(audio="", duration=1.0, text="abcd", phones=PLAIN.phones)) == ""


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw is slow on a busy machine
@given(transcripts(), st.floats(0, 1))
def test_segments_hold_everything_in_order(transcript, max_pause):
    segments = split_at_pauses(transcript, max_pause)
    assert bool(segments) == bool(transcript.phones)
    for left, right in pairwise(segments):
        assert right.start - left.end > max_pause - 1e-6
    for phone in transcript.phones:
        assert any(s.start <= phone.start and phone.end <= s.end for s in segments)
    assert all(0 <= s.score <= 1 + 1e-9 for s in segments)


@pytest.mark.parametrize("vocabulary", [PHONES, LETTERS])
def test_a_transcriber_parts_at_its_pause(vocabulary):
    model = tiny_recogniser(vocabulary)
    waveform = babble(4.0)
    waveform[20_000:36_000] = 0
    settings = dict(vocabulary=vocabulary, times="spikes")
    transcript = Transcriber(model, **settings).transcribe(waveform, 16000)
    assert transcript.segments == split_at_pauses(transcript)
    finer = Transcriber(model, **settings, max_pause=0.02).transcribe(waveform, 16000)
    assert len(finer.segments) > len(transcript.segments) >= 1
    assert finer.segments == split_at_pauses(finer, 0.02)


def test_an_alignment_has_segments_too():
    aligner = Aligner(Transcriber(tiny_recogniser(), vocabulary=PHONES))
    found = aligner.align(babble(1.0), "a ɹ | ŋ", is_phones=True, sample_rate=16000)
    assert found.segments == split_at_pauses(found) != []
