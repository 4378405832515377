"""Windows of long recordings: what they cover, where they are cut, and that they join to the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_recognisers import PHONES, babble, tiny_recogniser, write_babble
from unispeech import Transcriber
from unispeech.audio import normalise_waveform
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, num_frames
from unispeech.pipelines.recordings import Recording, split_waveform
from unispeech.pipelines.windows import cut_windows, plan_windows, survey_blocks


def pieces(waveform, lengths):
    return [
        piece for piece in np.split(waveform, np.minimum(np.cumsum(lengths), len(waveform))) if len(piece)
    ]


@given(st.integers(0, 900), st.integers(5, 200), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_kept_parts_cover_every_frame_once(num, longest, overlap, seed, is_flat):
    loudness = np.random.default_rng(seed).normal(size=num).astype(np.float32) * (not is_flat)
    windows = plan_windows(loudness, max_frames=longest + 2 * overlap, overlap_frames=overlap)
    kept = [frame for w in windows for frame in range(w.kept_from, w.kept_to)]
    assert kept == list(range(num))
    for w in windows:
        assert w.end_frame - w.start_frame <= longest + 2 * overlap
        assert w.kept_from < w.kept_to
        assert w.start_frame == max(w.kept_from - overlap, 0) or len(windows) == 1
        assert w.end_frame == min(w.kept_to + overlap, num) or len(windows) == 1


def test_seams_lie_in_pauses():
    loudness = np.full(1000, -20.0, np.float32)
    loudness[150:155] = -90  # the closure of a stop
    loudness[160:190] = -60  # a pause
    loudness[330:360] = -60
    windows = plan_windows(loudness, max_frames=260, overlap_frames=30)
    assert 160 <= windows[1].kept_from < 190
    assert 330 <= windows[2].kept_from < 360


def test_nothing_quieter_gives_the_longest_windows():
    windows = plan_windows(np.zeros(500, np.float32), max_frames=120, overlap_frames=10)
    assert [w.kept_from for w in windows] == [0, 100, 200, 300, 400]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 9000),
    st.lists(st.integers(1, 3000), max_size=6),
    st.sampled_from([(10, 5), (3, 7), (4, 4)]),
)
def test_a_survey_in_blocks_is_that_of_the_whole(num_samples, lengths, first):
    waveform = babble(1.0)[:num_samples] + np.float32(0.1)
    (kernel, stride), rest_kernels, rest_strides = first, (3, 2), (2, 2)
    kernels, strides = (kernel, *rest_kernels), (stride, *rest_strides)
    found = survey_blocks(pieces(waveform, lengths), kernels, strides)
    assert found.num_samples == len(waveform)
    assert found.mean == pytest.approx(waveform.mean(), abs=1e-6)
    assert found.variance == pytest.approx(waveform.var(), abs=1e-7)
    assert found.peak == pytest.approx(np.abs(waveform - waveform.mean()).max(), abs=1e-6)
    assert len(found.loudness) == num_frames(len(waveform), kernels, strides)
    if len(waveform) >= kernel:
        rows = np.lib.stride_tricks.sliding_window_view(waveform.astype(float), kernel)[::stride]
        np.testing.assert_allclose(found.window_mean, rows.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(found.window_covariance, np.cov(rows.T, bias=True), atol=1e-9)


def test_loudness_hears_speech_and_no_offset_or_hum():
    waveform = babble(2.0)
    waveform[8000:16000] = 0.2 + 0.1 * np.sin(2 * np.pi * 50 * np.arange(8000) / 16000)
    loudness = survey_blocks([waveform], CONV_KERNEL, CONV_STRIDE).loudness
    assert loudness[26:49].max() < np.median(loudness[:25]) - 10


@given(st.lists(st.integers(1, 4000), max_size=12), st.integers(0, 12))
def test_windows_get_the_samples_that_their_frames_see(lengths, overlap):
    waveform = babble(1.5)
    T = num_frames(len(waveform), CONV_KERNEL, CONV_STRIDE)
    windows = plan_windows(np.zeros(T, np.float32), max_frames=26, overlap_frames=overlap)
    found = list(cut_windows(pieces(waveform, lengths), windows, CONV_KERNEL, CONV_STRIDE))
    assert [window for window, _ in found] == windows
    for window, samples in found:
        expected = waveform[window.start_frame * 320 : (window.end_frame - 1) * 320 + 400]
        assert np.array_equal(samples, expected)


# -- joined to the whole -------------------------------------------------------------------------------------


def near_sighted(**overrides):
    """A recogniser whose frames see nothing but their own samples."""
    model = tiny_recogniser(num_hidden_layers=1, **overrides)
    with torch.no_grad():
        model.unispeech.encoder.pos_conv_embed.conv.parametrizations["weight"].original0.zero_()
        model.unispeech.encoder.layers[0].attention.out_proj.weight.zero_()
    return model


def whole(transcriber, waveform):
    scaled = normalise_waveform(waveform) if transcriber.do_normalize else waveform
    return transcriber.engine.logits([scaled]).log_softmax(dim=-1).numpy()[0]


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_frames_that_see_only_themselves_are_those_of_one_pass(norm, do_normalize):
    model = near_sighted(feat_extract_norm=norm, conv_bias=norm == "layer")
    transcriber = Transcriber(
        model, vocabulary=PHONES, do_normalize=do_normalize, window_seconds=2.0, overlap_seconds=0.2
    )
    waveform = babble(9.0) * np.repeat([0.1, 1.0, 0.5], 48_000).astype(np.float32) + np.float32(0.05)
    blocks = list(transcriber.log_probs(waveform, 16000))
    assert len(blocks) >= 5
    expected = whole(transcriber, waveform)
    found = np.concatenate(blocks)
    np.testing.assert_allclose(found, expected, atol=2e-4)  # logits reach 60
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    one_pass = Transcriber(model, vocabulary=PHONES, do_normalize=do_normalize)
    assert transcriber.transcribe(waveform, 16000).text == one_pass.transcribe(waveform, 16000).text != ""


def test_the_positional_convolution_differs_only_near_seams():
    model = near_sighted(num_conv_pos_embeddings=16)
    with torch.no_grad():
        model.unispeech.encoder.pos_conv_embed.conv.parametrizations["weight"].original0.fill_(0.3)
    transcriber = Transcriber(model, vocabulary=PHONES, window_seconds=2.0, overlap_seconds=0.2)
    waveform = babble(9.0)
    found = np.concatenate(list(transcriber.log_probs(waveform, 16000)))
    # The overlap of 10 frames holds the 8 that the convolution sees on either side.
    np.testing.assert_allclose(found, whole(transcriber, waveform), atol=5e-4)


def test_short_recordings_are_run_whole():
    transcriber = Transcriber(tiny_recogniser(), vocabulary=PHONES, window_seconds=2.0, overlap_seconds=0.2)
    waveform = babble(2.0)
    [found] = transcriber.log_probs(waveform, 16000)
    assert np.array_equal(found, whole(transcriber, waveform))


def test_a_long_file_an_array_and_many_files_agree(tmp_path):
    transcriber = Transcriber(tiny_recogniser(), vocabulary=PHONES, window_seconds=1.5, overlap_seconds=0.3)
    paths = [write_babble(tmp_path / f"{i}.wav", length, i) for i, length in enumerate([4.0, 1.0, 6.2])]
    done = []
    outcomes = dict(transcriber.transcribe_many(paths, on_progress=done.append))
    assert sum(done) == pytest.approx(11.2)
    assert len(done) > 5
    import soundfile

    for path in paths:
        alone = transcriber.transcribe(path)
        assert alone == outcomes[path]
        samples, _ = soundfile.read(path, dtype="float32")
        in_memory = transcriber.transcribe(samples, 16000)
        assert (in_memory.phones, in_memory.duration) == (alone.phones, alone.duration)
        [(_, loaded)] = transcriber.transcribe_recordings([
            Recording(source="x", duration=alone.duration, load=lambda samples=samples: samples)
        ])
        assert loaded.phones == alone.phones
    assert len(outcomes[paths[2]].phones) > 20


def test_long_silence_gives_nothing_and_is_told_as_done():
    transcriber = Transcriber(tiny_recogniser(), vocabulary=PHONES, window_seconds=1.0, overlap_seconds=0.2)
    done = []
    transcript = transcriber.transcribe(np.zeros(80_000, np.float32), 16000, on_progress=done.append)
    assert (transcript.text, transcript.duration, sum(done)) == ("", 5.0, 5.0)


def test_a_long_file_that_breaks_off_stops_no_other(tmp_path):
    transcriber = Transcriber(tiny_recogniser(), vocabulary=PHONES, window_seconds=1.0, overlap_seconds=0.2)
    good = write_babble(tmp_path / "good.wav", 2.0)
    whole_flac = write_babble(tmp_path / "whole.flac", 20.0)
    broken = tmp_path / "broken.flac"
    broken.write_bytes(whole_flac.read_bytes()[:-9000])
    outcomes = dict(transcriber.transcribe_many([broken, good]))
    assert "copy the file again" in str(outcomes[broken])
    assert outcomes[good].phones


def test_a_decoder_of_ones_own():
    class Silent:
        def decode(self, log_probs):
            return []

    transcriber = Transcriber(tiny_recogniser(), vocabulary=PHONES, decoder=Silent())
    assert transcriber.transcribe(babble(1.0), 16000).text == ""


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (dict(window_seconds=0.5), "`window_seconds` must be at least 1, but is 0.5"),
        (dict(overlap_seconds=8.0), r"`overlap_seconds` must lie in .* = \[0, 5\], but is 8.0"),
        (dict(overlap_seconds=-1.0), r"`overlap_seconds` must lie in .* but is -1.0"),
    ],
)
def test_settings_out_of_range(settings_, message):
    with pytest.raises(ValueError, match=message):
        Transcriber(tiny_recogniser(), vocabulary=PHONES, **settings_)


def test_a_waveform_is_split_into_views():
    waveform = babble(25.0)
    parts = list(split_waveform(waveform))
    assert [len(part) for part in parts] == [160_000, 160_000, 80_000]
    assert np.shares_memory(parts[0], waveform)
