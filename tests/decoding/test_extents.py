from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding.alignment import WILDCARD, align
from unispeech.decoding.extents import extents
from unispeech.decoding.extents_acoustics import POINTS, Acoustics, measure, measure_blocks
from unispeech.decoding.greedy import TokenSpan, greedy

RATE = 16_000
BLANK = 0


def place(frame: float) -> float:
    """The centre of a frame, in seconds."""
    return (frame * 320 + 200) / RATE


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def speech(segments, num_symbols=6, *, seed=0):
    """Peaky log-probabilities and tones of (token or None for silence, frames), and the true times.

    A phone is named in one frame in its middle; in its other frames blank wins, and what is left over still
    tells it a little, on top of a preference for some symbols that has nothing to do with the sound.
    """
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.full(length, -1 if token is None else token) for token, length in segments])
    logits = rng.normal(size=(len(labels), num_symbols)) * 0.3 + np.linspace(0, 3, num_symbols)
    said = labels >= 0
    logits[np.flatnonzero(said), labels[said]] += 5.0
    logits[:, BLANK] = np.where(said, 12.0, 16.0)
    ends = np.cumsum([length for _, length in segments])
    for (token, length), end in zip(segments, ends, strict=True):
        if token is not None:
            logits[end - length // 2 - 1, [BLANK, token]] = -5.0, 15.0
    # The boundary between frames t - 1 and t is in the middle between their centres.
    bounds = np.concatenate([
        [0],
        [round((place(end - 0.5)) * RATE) for end in ends[:-1]],
        [ends[-1] * 320 + 80],
    ])
    wave = [
        rng.normal(size=b - a) * 0.001
        + (0 if token is None else 0.3 * np.sin(2 * np.pi * (300 + 500 * token) * np.arange(b - a) / RATE))
        for (token, _), (a, b) in zip(segments, pairwise(bounds), strict=True)
    ]
    times = [
        (a / RATE, b / RATE)
        for (token, _), (a, b) in zip(segments, pairwise(bounds), strict=True)
        if token is not None
    ]
    return log_softmax(logits).astype(np.float32), np.concatenate(wave).astype(np.float32), times


SEGMENTS = [(None, 12), (1, 4), (2, 7), (3, 5), (None, 15), (3, 6), (4, 3), (5, 9), (None, 10)]
TOKENS = [token for token, _ in SEGMENTS if token is not None]


def error(found, true):
    return np.abs(np.array(found) - np.array(true)).max()


@pytest.mark.parametrize("has_sound", [False, True])
def test_phones_get_their_durations_and_pauses_stay_silent(has_sound):
    log_probs, waveform, times = speech(SEGMENTS)
    spans = align(log_probs, TOKENS, BLANK)
    assert all(span.end_frame - span.start_frame == 1 for span in spans)
    acoustics = measure(waveform, len(log_probs)) if has_sound else None
    found = extents(spans, log_probs, BLANK, acoustics=acoustics)
    assert error(found, times) < (0.006 if has_sound else 0.031)
    spikes = [(place(span.start_frame - 0.5), place(span.end_frame - 0.5)) for span in spans]
    assert error(spikes, times) > 0.05
    # The pause between the two equal phones is explicit.
    assert found[3][0] - found[2][1] == pytest.approx(0.3, abs=0.03)


def test_a_transcription_gets_extents_too():
    log_probs, waveform, times = speech(SEGMENTS, seed=1)
    spans = greedy(log_probs, BLANK)
    assert [span.token for span in spans] == TOKENS
    assert error(extents(spans, log_probs, BLANK, acoustics=measure(waveform, len(log_probs))), times) < 0.006


def test_the_sound_moves_boundaries_within_a_frame():
    log_probs, waveform, times = speech(SEGMENTS, seed=2)
    waveform = np.roll(waveform, 160)  # 10 ms later
    found = extents(
        align(log_probs, TOKENS, BLANK), log_probs, BLANK, acoustics=measure(waveform, len(log_probs))
    )
    later = np.array(found) - np.array(times)
    assert 0.002 < later.mean() < 0.012


def test_a_wildcard_keeps_off_what_is_known():
    log_probs, waveform, times = speech(SEGMENTS, seed=3)
    spans = align(log_probs, [*TOKENS[:3], WILDCARD, *TOKENS[5:]], BLANK)
    found = extents(spans, log_probs, BLANK, acoustics=measure(waveform, len(log_probs)))
    assert error([found[i] for i in (0, 1, 2, 4)], [times[i] for i in (0, 1, 2, 5)]) < 0.006
    assert error([found[3]], [(times[3][0], times[4][1])]) < 0.006


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans(), st.floats(0.1, 30))
def test_times_are_in_order_and_within_the_recording(seed, num_frames, has_sound, spread):
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(size=(num_frames, 4)) * spread).astype(np.float32)
    log_probs[rng.random(log_probs.shape) < 0.1] = -np.inf
    spans = greedy(log_probs, BLANK)
    waveform = rng.normal(size=num_frames * 320 + 80).astype(np.float32) * rng.integers(0, 2)
    acoustics = measure(waveform, num_frames) if has_sound else None
    found = extents(spans, log_probs, BLANK, acoustics=acoustics)
    assert len(found) == len(spans)
    assert all(start >= 0 for start, _ in found[:1])
    assert all(end - start >= 0.0099 for start, end in found)
    assert all(left[1] <= right[0] for left, right in pairwise(found))
    assert all(end <= len(waveform) / RATE for _, end in found[-1:])
    for span, (start, end) in zip(spans, found, strict=True):
        assert start < place(span.start_frame) < end or start < place(span.end_frame - 1) < end


def test_no_spans_have_no_extents():
    assert extents([], np.zeros((0, 3), np.float32), BLANK) == []


def test_acoustics_of_another_recording_are_refused():
    log_probs, waveform, _ = speech(SEGMENTS)
    with pytest.raises(ValueError, match="`acoustics` must have 284 points for 71 frames, but have 280"):
        extents([TokenSpan(1, 3, 4, 0.5)], log_probs, BLANK, acoustics=measure(waveform, 70))


# -- acoustics -----------------------------------------------------------------------------------------------


def test_levels_and_changes_lie_where_the_sound_does():
    waveform = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 0.001
    waveform[16_000:] *= 100
    acoustics = measure(waveform, 99)
    assert isinstance(acoustics, Acoustics)
    assert acoustics.levels.shape == (396,)
    assert acoustics.levels[210:].mean() - acoustics.levels[:190].mean() == pytest.approx(40, abs=1)
    # The beginning of point p is (p / 4 - 0.5) frames behind the centre of frame 0.
    assert place(acoustics.changes.argmax() / POINTS - 0.5) == pytest.approx(1.0, abs=0.003)
    assert acoustics.changes.mean() == pytest.approx(1.0)


def test_blocks_of_a_long_recording_leave_no_seam(monkeypatch):
    waveform = np.random.default_rng(1).normal(size=32_000).astype(np.float32)
    whole = measure(waveform, 99)
    monkeypatch.setattr("unispeech.decoding.extents_acoustics.CHUNK", 7)
    for blocks in ([waveform], np.split(waveform, [1, 2, 300, 301, 7000, 31_999])):
        parts = measure_blocks(blocks, 99, float(np.square(waveform).mean()))
        assert np.allclose(whole.levels, parts.levels)
        assert np.allclose(whole.changes, parts.changes)


def test_silence_has_no_changes():
    acoustics = measure(np.zeros(32_000, np.float32), 99)
    assert (acoustics.changes == 0).all()
    assert measure(np.zeros(10, np.float32), 0).levels.shape == (0,)
