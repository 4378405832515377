"""The probability of speech by silero-vad, and windows that are cut where nobody speaks."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tiny_recognisers import PHONES, babble, tiny_recogniser
from unispeech import Transcriber
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, num_frames
from unispeech.pipelines import voice
from unispeech.pipelines.voice import Voice, open_network
from unispeech.pipelines.windows import plan_windows, survey_blocks

RECORDINGS = Path(__file__).parents[2] / "examples/recordings"
needs_silero = pytest.mark.skipif(
    find_spec("silero_vad") is None or find_spec("onnxruntime") is None,
    reason="the extra vad is not installed",
)


def listen(blocks):
    heard = Voice(open_network())
    samples = np.concatenate(list(heard.listen(blocks)))
    return heard.frames(num_frames(len(samples), CONV_KERNEL, CONV_STRIDE), CONV_KERNEL, CONV_STRIDE)


@pytest.fixture(scope="module")
def talk():
    """Two sentences with two seconds between them in which something louder than speech rumbles."""
    read = (soundfile.read(path, dtype="float32")[0] for path in sorted(RECORDINGS.glob("*.flac"))[:2])
    first, second = (np.trim_zeros(samples) for samples in read)
    noise = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    rumble = np.convolve(noise, np.ones(8, np.float32), mode="same") * np.float32(0.05)
    return np.concatenate([first, rumble, second]), len(first) // 320, (len(first) + 32_000) // 320


@needs_silero
def test_speech_is_told_from_other_sound(talk):
    samples, start, end = talk
    probs = listen([samples])
    assert np.median(probs[start:end]) < 0.3
    assert np.median(probs[:start]) > 0.9
    assert np.median(probs[end:]) > 0.9


@needs_silero
@pytest.mark.parametrize("size", [1, 511, 513, 16_000])
def test_blocks_of_any_size_give_the_same(talk, size):
    samples = talk[0][:2000] if size == 1 else talk[0][:30_000]
    blocks = np.split(samples, range(size, len(samples), size))
    assert np.array_equal(listen(blocks), listen([samples]))


@needs_silero
@pytest.mark.parametrize("num_samples", [400, 512, 513, 1023, 1024])
def test_every_frame_has_a_probability(num_samples):
    assert len(listen([babble(1.0)[:num_samples]])) == num_frames(num_samples, CONV_KERNEL, CONV_STRIDE)


@needs_silero
def test_seams_lie_where_nobody_speaks_though_it_is_loud(talk):
    samples, start, end = talk
    transcriber = Transcriber(
        tiny_recogniser(), vocabulary=PHONES, window_seconds=6.5, overlap_seconds=0.0, vad="silero"
    )
    survey = transcriber.emitter.survey([samples])
    at = plan_windows(survey.activity, max_frames=transcriber.emitter.max_frames, overlap_frames=0)
    by_loudness = plan_windows(survey.loudness, max_frames=transcriber.emitter.max_frames, overlap_frames=0)
    assert any(start <= window.kept_to < end for window in at)
    assert not any(start <= window.kept_to < end for window in by_loudness)


@needs_silero
def test_a_long_recording_is_transcribed(talk):
    transcriber = Transcriber(
        tiny_recogniser(), vocabulary=PHONES, window_seconds=2.0, overlap_seconds=0.2, vad="silero"
    )
    blocks = list(transcriber.log_probs(talk[0], 16_000))
    assert len(blocks) > 3
    assert sum(map(len, blocks)) == num_frames(len(talk[0]), CONV_KERNEL, CONV_STRIDE)


def test_without_it_loudness_decides():
    survey = survey_blocks([babble(1.0)], CONV_KERNEL, CONV_STRIDE)
    assert survey.speech is None
    assert survey.activity is survey.loudness


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(voice, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"vad silero needs silero-vad.*pip install 'unispeech\[vad\]'\.$"):
        Transcriber(tiny_recogniser(), vocabulary=PHONES, vad="silero")


def test_another_vad_is_refused():
    with pytest.raises(ValueError, match="`vad` must be one of energy, silero, but is 'webrtc'"):
        Transcriber(tiny_recogniser(), vocabulary=PHONES, vad="webrtc")
