"""Audio in: every form of file to mono float32 at 16 kHz, and one line for everything that is wrong."""

import json
import struct
import sys
import wave

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unispeech.audio import AudioInfo, audio_info, check_waveform, load_audio, normalise_waveform, read_blocks
from unispeech.errors import ManifestError


def tone(seconds=0.5, rate=16_000, hertz=440):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples, rate=16_000, **form):
    soundfile.write(path, samples, rate, **form)
    return path


def write_av(path, codec, samples, rate):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if len(samples) == 1 else "stereo")
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def cut(path, share, into):
    content = path.read_bytes()
    into.write_bytes(content[: int(len(content) * share)])
    return into


def loudest_hertz(waveform, rate=16_000):
    return np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform)


def forms():
    return {
        "wav": {},
        "flac": {},
        "ogg": {"subtype": "VORBIS"},
        "opus": {"format": "OGG", "subtype": "OPUS"},
        "mp3": {},
        "aiff": {},
        "w64": {},
    }


@pytest.mark.parametrize("suffix", forms())
def test_every_form_gives_the_tone(tmp_path, suffix):
    path = write(tmp_path / f"tone.{suffix}", tone(), **forms()[suffix])
    waveform = load_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == (8000,)
    assert loudest_hertz(waveform) == pytest.approx(440, abs=2)
    assert audio_info(path) == AudioInfo(duration=0.5, sample_rate=16_000, channels=1, num_samples=8000)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_16_khz(tmp_path, rate):
    path = write(tmp_path / "tone.wav", tone(rate=rate), rate)
    waveform = load_audio(path)
    assert abs(len(waveform) - 8000) <= 1
    assert loudest_hertz(waveform) == pytest.approx(440, abs=2)
    assert np.abs(waveform).max() == pytest.approx(0.3, abs=0.02)
    assert audio_info(path).sample_rate == rate


def test_resampling_leaves_nothing_above_half_the_rate(tmp_path):
    path = write(tmp_path / "high.wav", tone(rate=48_000, hertz=12_000), 48_000)
    assert np.abs(load_audio(path)[500:-500]).max() < 1e-3


def test_another_target_rate(tmp_path):
    assert load_audio(write(tmp_path / "tone.wav", tone()), sample_rate=8000).shape == (4000,)


def test_channels_are_averaged(tmp_path):
    left, right = tone(), np.zeros(8000, np.float32)
    path = write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), left / 2, atol=1e-7)
    assert audio_info(path).channels == 2


def test_pcm_is_scaled_to_one(tmp_path):
    path = write(tmp_path / "loud.wav", np.array([0, 16_384, -32_768], dtype=np.int16))
    assert load_audio(path).tolist() == [0.0, 0.5, -1.0]


def test_a_single_sample_is_audio(tmp_path):
    assert load_audio(write(tmp_path / "click.wav", np.ones(1, np.float32))).shape == (1,)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"), [("m4a", "aac", 44_100), ("mp4", "aac", 48_000), ("webm", "libopus", 48_000)]
)
def test_containers_are_read_with_pyav(tmp_path, suffix, codec, rate):
    path = write_av(tmp_path / f"tone.{suffix}", codec, np.stack([tone(1.0, rate)] * 2), rate)
    waveform = load_audio(path)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(16_000, abs=1600)
    assert loudest_hertz(waveform[2000:14_000]) == pytest.approx(440, abs=2)
    about = audio_info(path)
    assert (about.sample_rate, about.channels) == (rate, 2)
    assert about.duration == pytest.approx(1.0, abs=0.1)
    assert about.num_samples == pytest.approx(rate, abs=0.1 * rate)


def test_a_stream_without_a_length_is_measured(tmp_path, monkeypatch):
    path = write_av(tmp_path / "tone.m4a", "aac", tone(1.0)[None], 16_000)
    monkeypatch.setattr("unispeech.audio._promised_duration", lambda *_: 0.0)
    assert audio_info(path).duration == pytest.approx(1.0, abs=0.1)


def test_containers_without_pyav_name_the_extra(tmp_path, monkeypatch):
    path = write_av(tmp_path / "tone.m4a", "aac", tone()[None], 16_000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ManifestError, match=r"tone\.m4a: .* need PyAV; .* 'unispeech\[audio\]'"):
        load_audio(path)


def test_a_broken_container_is_refused(tmp_path):
    whole = write_av(tmp_path / "whole.m4a", "aac", tone()[None], 16_000)
    with pytest.raises(ManifestError, match=r"half\.m4a: cannot be read as mov \(.*\); copy it again"):
        load_audio(cut(whole, 0.5, tmp_path / "half.m4a"))


def test_a_container_cut_behind_its_header_is_refused(tmp_path):
    whole = write_av(tmp_path / "whole.webm", "libopus", tone(2.0, 48_000)[None], 48_000)
    with pytest.raises(ManifestError, match=r"half\.webm: holds .* s of the .* s that its header promises"):
        load_audio(cut(whole, 0.5, tmp_path / "half.webm"))


def test_a_container_that_breaks_off_in_a_frame_is_refused(tmp_path):
    whole = write_av(tmp_path / "whole.aac", "aac", tone()[None], 16_000)
    content = whole.read_bytes()
    (tmp_path / "half.aac").write_bytes(content[: len(content) // 2] + b"\xff\xf1\x50")
    with pytest.raises(ManifestError, match=r"half\.aac: cannot be decoded to its end \(.*\); copy the file"):
        load_audio(tmp_path / "half.aac")


def test_a_film_without_sound_is_refused(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(ManifestError, match=r"silent\.mp4: must hold sound, but has no stream of it\."):
        load_audio(path)


def test_a_container_without_samples_is_refused(tmp_path, monkeypatch):
    path = write_av(tmp_path / "tone.m4a", "aac", tone()[None], 16_000)
    monkeypatch.setattr("unispeech.audio._planar_blocks", lambda *_: [])
    with pytest.raises(ManifestError, match=r"tone\.m4a: must hold audio, but has no samples"):
        load_audio(path)


readers = pytest.mark.parametrize("read", [load_audio, audio_info])


@readers
def test_a_missing_file(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav: there is no such file; check the path"):
        read(tmp_path / "gone.wav")


@readers
def test_a_directory(tmp_path, read):
    with pytest.raises(IsADirectoryError, match=r"must be an audio file, but is a directory"):
        read(tmp_path)


@readers
def test_an_empty_file(tmp_path, read):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ManifestError, match=r"empty\.wav: must hold audio, but is empty \(0 bytes\)"):
        read(tmp_path / "empty.wav")


@readers
def test_a_header_without_samples(tmp_path, read):
    path = write(tmp_path / "header.wav", np.zeros(0, np.float32))
    with pytest.raises(ManifestError, match=r"header\.wav: must hold audio, but has no samples"):
        read(path)


@readers
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"Call me Ishmael.\n" * 50, "is text"),
        ("Nazywam się Łucja.\n".encode() * 50, "is text"),
        (b"#EXTM3U\nhttp://127.0.0.1:9/secret.ts\n", "is text"),
        (bytes(range(256)) * 4, "has no known header"),
    ],
)
def test_what_is_not_audio(tmp_path, read, content, found):
    path = tmp_path / "notes.wav"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=rf"notes\.wav: must be audio \(.*\), but {found}; convert it"):
        read(path)


@readers
@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_a_truncated_recording_says_what_is_missing(tmp_path, read, suffix):
    whole = write(tmp_path / f"whole.{suffix}", tone(3.0))
    broken = cut(whole, 0.4, tmp_path / f"broken.{suffix}")
    line = rf"broken\.{suffix}: holds 1\.20 s of the 3\.00 s that its header promises; copy the file again\."
    with pytest.raises(ManifestError, match=line):
        read(broken)


@readers
@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize("share", [0.6, 0.99])
def test_a_truncated_ogg_is_refused(tmp_path, read, suffix, share):
    whole = write(tmp_path / f"whole.{suffix}", tone(3.0), **forms()[suffix])
    with pytest.raises(ManifestError, match=r": ends in the middle of an Ogg page; copy the file again"):
        read(cut(whole, share, tmp_path / f"broken.{suffix}"))


@readers
def test_an_ogg_cut_inside_a_page_header_is_refused(tmp_path, read):
    whole = write(tmp_path / "whole.ogg", tone(3.0))
    content = whole.read_bytes()
    (tmp_path / "broken.ogg").write_bytes(content[: content.rfind(b"OggS") + 20])
    with pytest.raises(ManifestError, match=r"ends in the middle of an Ogg page"):
        read(tmp_path / "broken.ogg")


@readers
def test_a_truncated_mp3_is_refused(tmp_path, read):
    whole = write(tmp_path / "whole.mp3", np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32))
    with pytest.raises(ManifestError, match=r"broken\.mp3: holds \d+ of the \d+ bytes that its header"):
        read(cut(whole, 0.7, tmp_path / "broken.mp3"))


@pytest.mark.parametrize("suffix", ["ogg", "opus", "flac", "mp3"])
def test_recordings_one_behind_the_other_are_refused(tmp_path, suffix):
    whole = write(tmp_path / f"whole.{suffix}", tone(2.0), **forms().get(suffix, {}))
    content = whole.read_bytes()
    double = tmp_path / f"double.{suffix}"
    double.write_bytes(content + content)
    assert len(load_audio(whole)) > 0
    with pytest.raises(ManifestError, match=r"double\..*: must hold one recording, but others stand behind"):
        load_audio(double)


ID3 = b"ID3\4\0\0" + bytes([0, 0, 0x40, 0]) + bytes(0x40 << 7)
"""A tag of 8,192 bytes behind its ten; its length stands in four bytes of seven bits."""


@pytest.mark.parametrize("tail", [ID3, b"TAG" + bytes(125), b"APETAGEX" + bytes(9000)])
def test_tags_behind_an_mp3_are_no_second_recording(tmp_path, tail):
    whole = write(tmp_path / "whole.mp3", tone(2.0))
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(ID3 + whole.read_bytes() + tail)
    assert len(load_audio(tagged)) == len(load_audio(whole))


def test_a_second_mp3_behind_its_tag_is_refused(tmp_path):
    whole = write(tmp_path / "whole.mp3", tone(4.0)).read_bytes()
    double = tmp_path / "double.mp3"
    double.write_bytes(ID3 + whole + ID3 + whole)
    with pytest.raises(ManifestError, match="others stand behind"):
        load_audio(double)


def test_a_truncated_flac_is_refused(tmp_path):
    whole = write(tmp_path / "whole.flac", np.random.default_rng(0).normal(0, 0.1, 48_000))
    line = r"broken\.flac: holds less than the 3\.00 s that its header promises \(.*\); copy the file again"
    with pytest.raises(ManifestError, match=line):
        load_audio(cut(whole, 0.5, tmp_path / "broken.flac"))


def without_length(path, target):
    """What encoders write to a pipe: 36 bits of zeros where the header has the number of samples."""
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("seconds", [0.3, 20.0, 23.7])
def test_a_flac_from_a_pipe_does_not_know_its_length(tmp_path, seconds, rate):
    whole = write(tmp_path / "whole.flac", tone(seconds, rate), rate)
    piped = without_length(whole, tmp_path / "piped.flac")
    assert np.array_equal(load_audio(piped), load_audio(whole))
    assert audio_info(piped) == audio_info(whole)


def test_a_flac_from_a_pipe_that_is_damaged_is_refused(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * 16_000)
    piped = without_length(write(tmp_path / "whole.flac", noise), tmp_path / "piped.flac")
    content = bytearray(piped.read_bytes())
    content[len(content) // 2 :][:20] = bytes(20)
    piped.write_bytes(content[: len(content) // 2] + bytes(5_000) + content[len(content) // 2 + 5_000 :])
    with pytest.raises(ManifestError, match=r"piped\.flac: must be readable behind \d+\.00 s, but is not"):
        load_audio(piped)


@readers
def test_a_wav_cut_right_behind_its_header_is_refused(tmp_path, read):
    content = write(tmp_path / "whole.wav", tone()).read_bytes()
    (tmp_path / "broken.wav").write_bytes(content[:44])
    with pytest.raises(ManifestError, match=r"broken\.wav: holds 0 of the 15998 bytes that its header"):
        read(tmp_path / "broken.wav")


def with_data_size(content, size):
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_does_not_know_its_length(tmp_path, size):
    path = tmp_path / "piped.wav"
    path.write_bytes(with_data_size(write(tmp_path / "whole.wav", tone()).read_bytes(), size))
    assert len(load_audio(path)) == 8000


def test_a_long_wav_tells_its_length_elsewhere(tmp_path):
    whole = write(tmp_path / "long.wav", tone(3.0), format="RF64")
    assert len(load_audio(whole)) == 48_000
    content = whole.read_bytes()
    if content[:4] != b"RF64":  # libsndfile falls back to RIFF below 4 GB
        riff, body = content[:12], content[12:]
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, len(content) + 28, 96_000, 48_000, 0)
        content = b"RF64\xff\xff\xff\xff" + riff[8:] + sizes + with_data_size(body, 0xFFFFFFFF)
        whole.write_bytes(content)
        assert len(load_audio(whole)) == 48_000
    with pytest.raises(ManifestError, match=r"holds 1\.\d\d s of the 3\.00 s that its header promises"):
        load_audio(cut(whole, 0.5, tmp_path / "broken.wav"))


def test_chunks_around_the_sound_are_stepped_over(tmp_path):
    path = tmp_path / "tagged.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 100)
    content = path.read_bytes()
    odd = b"LIST" + struct.pack("<I", 5) + b"INFO!\0"  # an odd chunk is padded to an even length
    path.write_bytes(content[:12] + odd + content[12:] + odd)
    assert load_audio(path).shape == (100,)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ManifestError, match=r"of the 0\.01 s that its header promises"):
        load_audio(path)


@given(
    content=st.binary(min_size=1, max_size=300),
    magic=st.sampled_from([b"RIFF", b"FORM", b"OggS", b"ID3", b"\xff\xfb", b""]),
)
@example(content=b"\0" * 20, magic=b"RIFF")
@example(content=b"\0", magic=b"FORM")
@example(content=b"ID3\4\0", magic=b"")
@example(content=b"Xing", magic=b"\xff\xfb")
@settings(max_examples=150, deadline=None)
def test_rubbish_is_refused_in_one_line(tmp_path_factory, content, magic):
    path = tmp_path_factory.mktemp("rubbish") / "rubbish.wav"
    path.write_bytes(magic + content)
    for read in (load_audio, audio_info):
        try:
            read(path)
        except ManifestError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
    samples = tone()
    samples[[5, 9]] = value
    path = write(tmp_path / "broken.wav", samples, subtype="FLOAT")
    with pytest.raises(ManifestError, match=r"broken\.wav: samples must be finite, but 2 of 8000 are NaN or"):
        load_audio(path)


def test_an_array_is_taken_as_it_is():
    samples = tone()
    assert check_waveform(samples, sample_rate=16_000) is samples
    for dtype in (np.float64, np.float16):
        checked = check_waveform(samples.astype(dtype), sample_rate=16_000)
        assert checked.dtype == np.float32
        np.testing.assert_allclose(checked, samples, atol=1e-3)
    assert check_waveform([0.0, 0.5], sample_rate=16_000).tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((1, 8000), r"drop the channel axis: waveform\[0\]"),
        ((8000, 1), r"drop the channel axis: waveform\[:, 0\]"),
        ((2, 8000), r"average the channels: waveform\.mean\(axis=0\)"),
        ((8000, 2), r"average the channels: waveform\.mean\(axis=1\)"),
        ((1, 2, 8000), "pass the samples of one utterance"),
        ((), "pass the samples of one utterance"),
    ],
)
def test_shapes_other_than_one_utterance(shape, advice):
    with pytest.raises(ValueError, match=rf"`waveform` must have shape \(S,\), but has \(.*\); {advice}\."):
        check_waveform(np.zeros(shape, np.float32), sample_rate=16_000)


def test_a_wrong_rate():
    line = r"talk\.mp3: sample rate must be 16000 Hz, but is 44100; load it with unispeech\.audio\.load_audio"
    with pytest.raises(ValueError, match=line):
        check_waveform(tone(), sample_rate=44_100, name="talk.mp3")


@pytest.mark.parametrize(
    ("dtype", "line"),
    [
        (np.int16, r"holds int16; divide it by 32768\."),
        (np.int32, r"holds int32; divide it by 2147483648\."),
        (np.uint8, r"holds uint8\."),
        (bool, r"holds bool\."),
        (complex, r"holds complex128\."),
    ],
)
def test_samples_that_are_not_floats(dtype, line):
    with pytest.raises(TypeError, match=rf"`waveform` must hold floats in \[-1, 1\], but {line}"):
        check_waveform(np.zeros(10, dtype), sample_rate=16_000)


def test_no_samples():
    with pytest.raises(ValueError, match=r"`waveform` must hold at least one sample, but is empty\."):
        check_waveform(np.zeros(0, np.float32), sample_rate=16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_arrays_that_are_not_finite(value):
    samples = tone().astype(np.float64)
    samples[3] = value
    with pytest.raises(
        ValueError, match=r"talk\.wav: waveform must be finite, but 1 of 8000 samples are NaN"
    ):
        check_waveform(samples, sample_rate=16_000, name="talk.wav")


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
@settings(deadline=None)
def test_normalised_waveforms_have_mean_zero_and_variance_below_one(samples):
    normal = normalise_waveform(np.array(samples, dtype=np.float32))
    assert normal.dtype == np.float32
    assert np.isfinite(normal).all()
    assert abs(normal.mean(dtype=np.float64)) < 1e-3
    assert normal.var() < 1.001


def test_normalising_by_hand():
    # Mean 2, variance 4.
    waveform = np.array([0.0, 4.0, 0.0, 4.0], dtype=np.float32)
    np.testing.assert_allclose(normalise_waveform(waveform), [-1, 1, -1, 1], atol=1e-6)
    assert normalise_waveform(np.ones(5, np.float32)).tolist() == [0.0] * 5


@pytest.mark.shared_data
def test_every_tenth_shared_recording_is_as_long_as_its_manifest_says(shared_dir):
    folder = shared_dir / "data" / "speech"
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()][::10]
    assert len(entries) > 1000
    for entry in entries:
        assert audio_info(folder / entry["audio"]).duration == pytest.approx(entry["duration"], abs=0.1)
    for entry in entries[::40]:
        assert len(load_audio(folder / entry["audio"])) == pytest.approx(16_000 * entry["duration"], abs=1600)


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 16_000), ("flac", 44_100), ("ogg", 8000)])
def test_blocks_are_the_recording(tmp_path, suffix, rate):
    samples = np.random.default_rng(0).normal(size=(25 * rate + 7, 2)) * 0.1
    path = write(tmp_path / f"a.{suffix}", samples, rate)
    blocks = list(read_blocks(path))
    assert len(blocks) >= 3
    assert max(map(len, blocks)) <= 11 * 16_000
    whole, _ = soundfile.read(path, dtype="float32")
    expected = whole.mean(axis=1)
    if rate != 16_000:
        expected = soxr.resample(expected, rate, 16_000)
    assert np.array_equal(np.concatenate(blocks), expected)
    assert np.array_equal(load_audio(path), expected)


def test_blocks_of_a_container_are_the_recording(tmp_path):
    path = write_av(tmp_path / "a.m4a", "aac", tone(3.5, 44_100)[None], 44_100)
    blocks = list(read_blocks(path))
    assert len(blocks) >= 3
    assert max(map(len, blocks)) < 20_000
    assert np.array_equal(np.concatenate(blocks), load_audio(path))


def test_a_file_that_breaks_off_gives_its_blocks_and_then_the_error(tmp_path):
    whole = write(tmp_path / "a.flac", np.random.default_rng(0).normal(size=30 * 16_000) * 0.1)
    blocks = read_blocks(cut(whole, 0.9, tmp_path / "cut.flac"))
    assert len(next(blocks)) == 160_000
    with pytest.raises(ManifestError, match=r"cut\.flac: holds less than the 30\.00 s"):
        list(blocks)
