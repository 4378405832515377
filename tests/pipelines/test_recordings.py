import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_recognisers import write_babble
from unispeech.audio import load_audio
from unispeech.errors import ManifestError
from unispeech.pipelines.recordings import (
    MAX_PADDING,
    NUM_AHEAD,
    Recording,
    batches_by_length,
    open_recording,
    read_stream,
    run_in_batches,
)


@given(st.lists(st.floats(0.01, 100)), st.floats(0.1, 200))
def test_batches_hold_everything_once_and_keep_to_their_size(durations, batch_seconds):
    batches = batches_by_length(durations, batch_seconds)
    assert sorted(index for batch in batches for index in batch) == list(range(len(durations)))
    for batch in batches:
        longest = max(durations[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_seconds
        assert longest - min(durations[index] for index in batch) <= MAX_PADDING
    flat = [durations[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)


def test_batches_are_filled():
    assert batches_by_length([1, 4.9, 1, 4.6, 1], 10.0) == [[1, 3], [0, 2, 4]]
    assert batches_by_length([1, 5, 1, 4, 1], 8.0) == [[1], [3], [0, 2, 4]]
    assert batches_by_length([1, 1, 1], 2.0) == [[0, 1], [2]]
    assert batches_by_length([], 8.0) == []


def test_a_recording_is_read_when_it_is_needed(tmp_path):
    path = write_babble(tmp_path / "a.wav", 0.5)
    recording = open_recording(str(path))
    assert (recording.source, recording.duration) == (str(path), 0.5)
    assert np.array_equal(recording.load(), load_audio(path))


def test_a_stream_is_read_whole(tmp_path):
    path = write_babble(tmp_path / "a.flac", 0.5)
    recording = read_stream(io.BytesIO(path.read_bytes()))
    assert (recording.source, recording.duration) == ("-", 0.5)
    assert np.array_equal(recording.load(), load_audio(path))


@pytest.mark.parametrize("content", [b"", b"no sound"])
def test_a_stream_that_is_no_audio_is_refused_by_name(content):
    with pytest.raises(ManifestError, match=r"^-: must (be|hold) audio"):
        read_stream(io.BytesIO(content))


def recording(name, duration, error=None):
    def load():
        if error is not None:
            raise error
        return np.full(round(duration * 16000), duration, np.float32)

    return Recording(source=name, duration=duration, load=load)


def test_a_recording_that_cannot_be_read_stops_no_other():
    failure = OSError("gone")
    recordings = [recording("a", 1.0), recording("b", 2.0, failure), recording("c", 1.5)]
    outcomes = run_in_batches(recordings, lambda batch: lambda: [row[0] for row in batch], batch_seconds=10.0)
    assert {r.source: outcome for r, outcome in outcomes} == {"a": 1.0, "b": failure, "c": 1.5}


def test_batches_are_started_ahead_and_come_in_order():
    events = []

    def start(batch):
        events.append(f"start {len(batch[0])}")
        return lambda: events.append(f"finish {len(batch[0])}") or ["done"]

    recordings = [recording("c", 5.0), recording("b", 10.0, ValueError("x")), recording("a", 15.0)]
    outcomes = run_in_batches(recordings, start, batch_seconds=1.0, num_ahead=lambda: 2)
    assert [r.source for r, _ in outcomes] == ["a", "b", "c"]
    assert [event.split()[0] for event in events] == ["start", "start", "finish", "finish"]


def test_nothing_is_processed_where_nothing_can_be_read():
    outcomes = list(run_in_batches([recording("a", 1.0, ValueError("x"))], pytest.fail, batch_seconds=1.0))
    assert [r.source for r, _ in outcomes] == ["a"]


def test_our_own_mistakes_go_through():
    with pytest.raises(ZeroDivisionError):
        list(run_in_batches([recording("a", 1.0)], lambda batch: 1 // 0, batch_seconds=1.0))
    with pytest.raises(KeyError):
        list(run_in_batches([recording("a", 1.0, KeyError("k"))], len, batch_seconds=1.0))


def test_recordings_are_taken_ahead_in_bounded_numbers():
    taken = []
    stream = (taken.append(i) or recording(i, 0.01) for i in range(NUM_AHEAD + 10))
    next(run_in_batches(stream, lambda batch: lambda: batch, batch_seconds=1.0))
    assert len(taken) == NUM_AHEAD
