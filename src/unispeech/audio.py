"""Any audio file -> mono float32 at 16 kHz.

soundfile reads wav, flac, ogg, opus, mp3 and more; PyAV, an extra, reads m4a, mp4 and webm. Everything that
is wrong with a file is found here and said in one line that names it. Shape in this file: S samples.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from unispeech.audio_headers import find_truncation, holds_several
from unispeech.errors import ManifestError
from unispeech.frames import SAMPLE_RATE, Seconds

Waveform = npt.NDArray[np.float32]

BLOCK_SECONDS = 10
"""Length of the blocks in which long files are read."""

CONTAINERS = {
    (4, b"ftyp"): "mov",
    (0, b"\x1a\x45\xdf\xa3"): "matroska",
    (0, b"\x30\x26\xb2\x75"): "asf",
    (0, b"#!AMR"): "amr",
    (0, b"\xff\xf1"): "aac",
    (0, b"\xff\xf9"): "aac",
}
"""Where and what the first bytes of the files are that PyAV reads, and its name for the format.

The format is never left to be guessed: a guess would follow playlists, which are text, to other files and
hosts.
"""


_UNREADABLE = (soundfile.LibsndfileError, TypeError)
"""How soundfile refuses a file; the second: the name ends in .raw, and it wants to be told the rate."""

UNKNOWN = 2**62
"""So many samples and more libsndfile tells of files that state no length, as encoders write to a pipe."""
SEEK_FAILED = 39
"""What libsndfile says at the end of such a file, having read all of it."""

LOUDEST = 2.0**32
"""Floats that hold unscaled integers are let through; beyond them the sums of squares overflow."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What the header of an audio file says."""

    duration: Seconds
    """Length of the recording."""
    sample_rate: int
    """Samples per second in the file, before any resampling."""
    channels: int
    """Number of channels in the file."""
    num_samples: int
    """Samples per channel at the file's own rate."""


def load_audio(path: str | Path, *, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Read a recording, average its channels and resample it.

    Args:
        path: Audio file of any rate and number of channels.
        sample_rate: Samples per second of the result.

    Returns:
        (S,) float32 samples, in [-1, 1] unless the file itself goes beyond.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ManifestError: If the file is empty, truncated, not audio, or holds samples that are not finite.
    """
    return np.concatenate(list(read_blocks(path, sample_rate=sample_rate)))


def read_blocks(path: str | Path, *, sample_rate: int = SAMPLE_RATE) -> Iterator[Waveform]:
    """Read a recording block by block, so that its length does not matter; as `load_audio` in all else.

    Args:
        path: Audio file of any rate and number of channels.
        sample_rate: Samples per second of the result.

    Yields:
        (S_i,) float32 samples, not empty, at most some seconds; end to end they are what `load_audio` gives.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ManifestError: If the file is empty, truncated, not audio, or holds samples that are not finite or a
            second recording; what is wrong behind the start is found when it is reached.
    """
    container = _check_file(Path(path))
    decoded = _decode_container(path, container) if container else _decode(path)
    resampler: soxr.ResampleStream | None = None
    has_samples = False
    for samples, rate in decoded:
        _check_samples(path, samples)
        waveform = samples.mean(axis=1)
        if rate != sample_rate:
            resampler = resampler or soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
            waveform = resampler.resample_chunk(waveform)
        if waveform.size:
            has_samples = True
            yield waveform
    if resampler is not None:
        waveform = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        if waveform.size:
            has_samples = True
            yield waveform
    if not has_samples:
        raise _no_samples(path)


def audio_info(path: str | Path) -> AudioInfo:
    """Read the length and the form of a recording from its header, without decoding it if that states both.

    Args:
        path: Audio file.

    Returns:
        What the header says; m4a, mp4 and webm are exact to one packet only.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ManifestError: If the file is empty, truncated as far as its header tells, or not audio.
    """
    container = _check_file(Path(path))
    if container:
        return _container_info(path, container)
    try:
        header = soundfile.info(os.fsencode(path))
    except _UNREADABLE as error:
        raise _not_audio(Path(path)) from error
    num_samples = header.frames
    if num_samples >= UNKNOWN:
        num_samples = sum(len(samples) for samples, _ in _decode(path))
    _check_length(path, num_samples, header.samplerate)
    if not num_samples:
        raise _no_samples(path)
    return AudioInfo(
        duration=num_samples / header.samplerate,
        sample_rate=header.samplerate,
        channels=header.channels,
        num_samples=num_samples,
    )


def check_waveform(waveform: npt.ArrayLike, *, sample_rate: int, name: str = "waveform") -> Waveform:
    """Check samples that a caller gives as an array.

    Nothing is repaired in silence: channels are not averaged, rates not converted, integers not scaled.

    Args:
        waveform: (S,) floating-point samples.
        sample_rate: The rate at which the caller says they were taken, in Hz; 16000 is accepted.
        name: What to call the array in messages: a parameter's name, or the file it came from.

    Returns:
        (S,) float32 samples; the same memory where `waveform` is float32 already.

    Raises:
        TypeError: If the samples are not floating-point numbers.
        ValueError: If the rate is not 16000 Hz, the shape is not (S,), or samples are missing or not finite.
    """
    subject = f"`{name}`" if name.isidentifier() else f"{name}: waveform"
    if sample_rate != SAMPLE_RATE:
        raise ValueError(
            f"{name}: sample rate must be {SAMPLE_RATE} Hz, but is {sample_rate}; "
            "load it with unispeech.audio.load_audio, which resamples."
        )
    samples = np.asarray(waveform)
    if not np.issubdtype(samples.dtype, np.floating):
        fix = (
            f"; divide it by {2.0 ** (samples.dtype.itemsize * 8 - 1):.0f}"
            if samples.dtype.kind == "i"
            else ""
        )
        raise TypeError(f"{subject} must hold floats in [-1, 1], but holds {samples.dtype}{fix}.")
    if samples.ndim != 1:
        raise ValueError(
            f"{subject} must have shape (S,), but has {samples.shape}; {_shape_advice(samples.shape)}."
        )
    if not samples.size:
        raise ValueError(f"{subject} must hold at least one sample, but is empty.")
    with np.errstate(over="ignore"):
        samples = samples.astype(np.float32, copy=False)
    bad = samples.size - int(np.isfinite(samples).sum())
    if bad:
        raise ValueError(
            f"{subject} must be finite, but {bad} of {samples.size} samples are NaN or infinite."
        )
    return samples


def normalise_waveform(waveform: Waveform) -> Waveform:
    """Shift and scale an utterance to zero mean and unit variance, as models with `do_normalize` take it.

    Do this before padding: padding is no part of the utterance.

    Args:
        waveform: (S,) samples of one utterance.

    Returns:
        (S,) float32; silence stays silence.

    Source:
        wav2vec 2.0's recipe (arXiv:2006.11477); the 1e-7 is that of `transformers.Wav2Vec2FeatureExtractor`.
    """
    centred = waveform - waveform.mean()
    return np.asarray(centred / np.sqrt(waveform.var() + 1e-7), dtype=np.float32)


def _shape_advice(shape: tuple[int, ...]) -> str:
    """How to make (S,) of another shape."""
    if len(shape) != 2:
        return "pass the samples of one utterance"
    if 1 in shape:
        return f"drop the channel axis: waveform[{'0' if shape[0] == 1 else ':, 0'}]"
    return f"average the channels: waveform.mean(axis={0 if shape[0] < shape[1] else 1})"


def _check_file(path: Path) -> str | None:
    """Refuse what is no file or empty; give PyAV's format name where soundfile cannot help."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: must be an audio file, but is a directory.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; check the path.")
    if not path.is_file():
        raise ManifestError(
            f"{path}: must be a file, but is a pipe or a device; save the audio to a file first, or pipe it "
            "into `unispeech transcribe -`."
        )
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ManifestError(f"{path}: must hold audio, but is empty (0 bytes); record or copy it again.")
    for (offset, magic), container in CONTAINERS.items():
        if head[offset : offset + len(magic)] == magic:
            return container
    return None


def _not_audio(path: Path) -> ManifestError:
    """What to say of a file that nothing can read."""
    with path.open("rb") as file:
        head = file.read(512)
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" or byte > 127 for byte in head)
    found = "is text" if printable == len(head) else "has no known header"
    return ManifestError(
        f"{path}: must be audio (wav, flac, ogg, opus, mp3, m4a, webm), but {found}; convert it to wav."
    )


def _no_samples(path: str | Path) -> ManifestError:
    """What to say of a file that is a header and nothing else."""
    return ManifestError(f"{path}: must hold audio, but has no samples; record or copy it again.")


def _check_length(path: str | Path, num_samples: int, rate: int) -> None:
    """Refuse a file that is shorter than its header promises."""
    missing = find_truncation(Path(path), num_samples / rate)
    if missing:
        raise ManifestError(f"{path}: {missing}; copy the file again.")


def _check_samples(path: str | Path, samples: npt.NDArray[np.float32]) -> None:
    """Refuse what no microphone gives."""
    bad = samples.size - int(np.isfinite(samples).sum())
    if bad:
        raise ManifestError(
            f"{path}: samples must be finite, but {bad} of {samples.size} are NaN or infinite; "
            "write the file again as 16-bit PCM."
        )
    if samples.size and np.abs(samples).max() > LOUDEST:
        raise ManifestError(
            f"{path}: samples must lie in [-1, 1], but reach {np.abs(samples).max():.3g}; "
            "write the file again as 16-bit PCM."
        )


def _decode(path: str | Path) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Read by soundfile.

    Yields:
        Blocks of (S_i, channels) samples, with their rate.
    """
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except _UNREADABLE as error:
        raise _not_audio(Path(path)) from error
    num_samples = 0
    with file:
        rate, promised = file.samplerate, file.frames
        # The header of a broken file may name any rate and any number of channels.
        block = max(1, min(BLOCK_SECONDS * rate, 2**24 // file.channels))
        while True:
            try:
                if promised >= UNKNOWN:
                    samples = _read_unknown(file, block)
                else:
                    samples = file.read(block, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = error.error_string.removeprefix("Error : ").rstrip(".")
                what = f"holds less than the {promised / rate:.2f} s that its header promises"
                if promised >= UNKNOWN:
                    what = f"must be readable behind {num_samples / rate:.2f} s, but is not"
                raise ManifestError(f"{path}: {what} ({reason}); copy the file again.") from error
            if not len(samples):
                break
            num_samples += len(samples)
            yield samples, rate
    _check_length(path, num_samples, rate)
    if holds_several(Path(path)):
        raise ManifestError(
            f"{path}: must hold one recording, but others stand behind its first {num_samples / rate:.2f} s; "
            "write it as one, for instance with `ffmpeg -i FILE FILE.wav`."
        )


def _read_unknown(file: soundfile.SoundFile, block: int) -> npt.NDArray[np.float32]:
    """Read a block of a file that states no length: libsndfile then fails behind the end, having read."""
    samples = np.full((block, file.channels), np.nan, np.float32)
    try:
        return samples[: len(file.read(out=samples))]
    except soundfile.LibsndfileError as error:
        if error.code != SEEK_FAILED:
            raise
        return samples[: int(np.isfinite(samples[:, 0]).sum())]


def _open_container(path: str | Path, container: str) -> Any:
    """A PyAV container whose first stream of sound can be decoded."""
    try:
        import av
    except ImportError as error:
        raise ManifestError(
            f"{path}: m4a, mp4, webm, wma, amr and aac files need PyAV; install it with: "
            "pip install 'unispeech[audio]'."
        ) from error
    try:
        opened = av.open(str(path), format=container)
    except av.FFmpegError as error:
        raise ManifestError(
            f"{path}: cannot be read as {container} ({error.strerror}); copy it again or convert it to wav."
        ) from error
    if not opened.streams.audio:
        opened.close()
        raise ManifestError(f"{path}: must hold sound, but has no stream of it.")
    return opened


def _decode_container(path: str | Path, container: str) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Read by PyAV.

    Yields:
        Blocks of (S_i, channels) samples, with their rate.
    """
    with _open_container(path, container) as opened:
        import av

        stream = opened.streams.audio[0]
        num_samples = 0
        try:
            for block in _planar_blocks(opened, stream):
                num_samples += block.shape[1]
                yield block.T, int(stream.rate)
        except av.FFmpegError as error:
            raise ManifestError(
                f"{path}: cannot be decoded to its end ({error.strerror}); copy the file again."
            ) from error
        if not num_samples:
            raise _no_samples(path)
        held, promised = num_samples / int(stream.rate), _promised_duration(opened, stream)
        # Encoders pad the start and the end by less than a tenth of a second.
        if held < promised - 0.1:
            raise ManifestError(
                f"{path}: holds {held:.2f} s of the {promised:.2f} s that its header promises; "
                "copy the file again."
            )


def _planar_blocks(opened: Any, stream: Any) -> Iterator[npt.NDArray[np.float32]]:
    """Decode a stream, whatever form its codec gives.

    Yields:
        (channels, S_i) samples.
    """
    import av

    resampler = av.AudioResampler(format="fltp")
    # Frames hold some hundredths of a second: too little to be worked on one by one.
    held: list[npt.NDArray[np.float32]] = []
    for frame in chain(opened.decode(stream), [None]):  # None gives what the resampler still holds
        held += [np.asarray(block.to_ndarray(), np.float32) for block in resampler.resample(frame)]
        if held and (frame is None or sum(block.shape[1] for block in held) >= stream.rate):
            yield np.concatenate(held, axis=1)
            held = []


def _promised_duration(opened: Any, stream: Any) -> Seconds:
    """The length of a stream as its container states it; 0 where it does not."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # The length of the whole file is that of its longest stream.
    return float(opened.duration or 0) / 1e6 if len(opened.streams) == 1 else 0.0


def _container_info(path: str | Path, container: str) -> AudioInfo:
    """What a container's header says of its first stream of sound."""
    with _open_container(path, container) as opened:
        stream = opened.streams.audio[0]
        duration = _promised_duration(opened, stream)
        rate, channels = int(stream.rate), int(stream.channels)
    if not duration:
        num_samples = 0
        for samples, _ in _decode_container(path, container):
            num_samples += len(samples)
        duration = num_samples / rate
    return AudioInfo(
        duration=duration, sample_rate=rate, channels=channels, num_samples=round(duration * rate)
    )
