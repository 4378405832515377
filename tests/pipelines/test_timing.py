"""How long phones last in what `transcribe` writes: of short recordings, of long ones, in sections."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_recognisers import LETTERS, PHONES, babble, tiny_recogniser, write_babble
from unispeech import Transcriber
from unispeech.decoding.decoder import GreedyDecoder, decode_blocks
from unispeech.decoding.extents import extents
from unispeech.decoding.extents_acoustics import measure
from unispeech.decoding.greedy import greedy
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, frame_to_seconds, num_frames
from unispeech.pipelines.timing import Sound, TimingDecoder


@pytest.fixture(scope="module")
def model():
    return tiny_recogniser()


def transcriber(model, **settings):
    return Transcriber(model, vocabulary=PHONES, **settings)


def times_of(transcript):
    return [(phone.start, phone.end) for phone in transcript.phones]


def times_at_once(transcriber, waveform):
    """The extents by one look at the whole recording."""
    log_probs = np.concatenate(list(transcriber.log_probs(waveform, 16000)))
    spans = greedy(log_probs, PHONES.blank)
    found = extents(spans, log_probs, PHONES.blank, acoustics=measure(waveform, len(log_probs)))
    return [time for time, span in zip(found, spans, strict=True) if span.token not in PHONES.special]


@pytest.mark.parametrize("seconds", [1.0, 7.0])
def test_phones_last_as_their_extents_say_whether_windows_are_needed_or_not(model, seconds):
    waveform = babble(seconds)
    heard = transcriber(model, window_seconds=2.0, overlap_seconds=0.2)
    found = times_of(heard.transcribe(waveform, 16000))
    assert len(found) > 5
    assert found == [pytest.approx(times) for times in times_at_once(heard, waveform)]


def test_spikes_can_be_asked_for(model):
    waveform = babble(7.0)
    settings = dict(window_seconds=2.0, overlap_seconds=0.2)
    spikes = transcriber(model, times="spikes", **settings).transcribe(waveform, 16000)
    extents_ = transcriber(model, **settings).transcribe(waveform, 16000)
    assert extents_.text == spikes.text
    assert times_of(extents_) != times_of(spikes)
    assert all(round((end - start) / 0.02, 6).is_integer() for start, end in times_of(spikes)[1:])
    assert max(end - start for start, end in times_of(extents_)) > 0.05


def test_one_file_many_files_and_samples_have_the_same_times(tmp_path, model):
    paths = [write_babble(tmp_path / f"{i}.wav", length, i) for i, length in enumerate([0.8, 1.0, 3.3])]
    heard = transcriber(model, window_seconds=2.0, overlap_seconds=0.2)
    outcomes = dict(heard.transcribe_many(paths))
    for path in paths:
        assert times_of(outcomes[path]) == times_of(heard.transcribe(path)) != []


def test_sections_of_a_long_recording_have_times_in_order(model, monkeypatch):
    waveform = babble(12.0)
    heard = transcriber(model, window_seconds=1.0, overlap_seconds=0.2)
    whole = times_of(heard.transcribe(waveform, 16000))
    monkeypatch.setitem(decode_blocks.__kwdefaults__, "section_frames", 100)
    most = 0
    take = Sound.take

    def watched(sound, num):
        nonlocal most
        most = max(most, sum(map(len, sound._pieces)))
        return take(sound, num)

    monkeypatch.setattr(Sound, "take", watched)
    parts = times_of(heard.transcribe(waveform, 16000))
    assert all(left[1] <= right[0] for left, right in pairwise(parts))
    assert parts[-1][1] <= 12.0
    assert len(parts) == len(whole)
    # Each section finds its own idea of what is usual, so some boundaries lie elsewhere.
    assert np.mean(np.abs(np.array(parts) - np.array(whole)) < 0.0051) > 0.5
    # Blocks of ten seconds, and what a section left over.
    assert most <= 13 * 16_000


def test_words_begin_and_end_with_their_symbols():
    recogniser = Transcriber(tiny_recogniser(LETTERS), vocabulary=LETTERS)
    transcript = recogniser.transcribe(babble(3.0), 16000)
    places = iter(transcript.phones)
    for word in transcript.words:
        letters = [next(places) for _ in word.word]
        assert (word.start, word.end) == (letters[0].start, letters[-1].end)


def test_nothing_ends_behind_the_recording(model):
    num_samples = num_frames(16_000) * 320 + 80
    transcript = transcriber(model).transcribe(babble(1.0)[:num_samples], 16000)
    assert transcript.phones[-1].end <= num_samples / 16_000


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 4000), st.integers(0, 300))
def test_sound_gives_the_samples_that_frames_see(sections, size, rest):
    waveform = np.arange((sum(sections) - 1) * 320 + 400 + rest, dtype=np.float32)
    sound, first, heard = Sound(CONV_KERNEL, CONV_STRIDE), 0, 0
    for num in sections:
        while heard < (first + num - 1) * 320 + 400:
            sound.hear(waveform[heard : heard + size])
            heard += len(waveform[heard : heard + size])
        assert np.array_equal(sound.take(num), waveform[first * 320 : (first + num - 1) * 320 + 400])
        first += num


def test_sound_lets_its_blocks_by():
    blocks = [np.zeros(5, np.float32), np.ones(7, np.float32)]
    sound = Sound((2,), (2,))
    assert list(map(len, sound.listen(blocks))) == [5, 7]
    assert list(sound.take(4)) == [0] * 5 + [1] * 3


def test_sections_count_their_times_from_the_start():
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.full(5, 0.05), size=60) + 1e-9).astype(np.float32)
    log_probs = np.minimum(log_probs, 0.0)
    sound = Sound(CONV_KERNEL, CONV_STRIDE)
    sound.hear(rng.normal(size=60 * 320 + 80).astype(np.float32))
    timing = TimingDecoder(GreedyDecoder(0), 0, sound)
    spans = timing.decode(log_probs[:25])
    assert timing.decode(np.log(np.eye(5, dtype=np.float32)[[0] * 5] + 1e-30)) == []
    late = timing.decode(log_probs[30:])
    assert len(timing.times) == len(spans) + len(late)
    for first, section, times in ((0, spans, timing.times), (30, late, timing.times[len(spans) :])):
        for span, (start, end) in zip(section, times, strict=False):
            assert start < frame_to_seconds(first + span.end_frame - 1)
            assert end > frame_to_seconds(first + span.start_frame)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(times="spike"), "`times` must be one of extents, spikes, but is 'spike'"),
        (dict(max_pause=-0.1), "`max_pause` must not be negative, but is -0.1"),
    ],
)
def test_settings_out_of_range(model, settings, message):
    with pytest.raises(ValueError, match=message):
        transcriber(model, **settings)
