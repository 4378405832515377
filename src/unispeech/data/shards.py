"""Shards: the recordings of many utterances in a few tar files, as lhotse's Shar lays them out.

A folder of shards holds `cuts.000000.jsonl.gz` and `recording.000000.tar`, and so on. A tar holds for each
cut, in their order, its audio (`ID.flac`) and what is known of it (`ID.json`). The headers are read once and
the audio passed over; from then on each recording is read by itself, at its place in the tar.
"""

import io
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import soundfile

from unispeech.audio import LOUDEST, load_audio
from unispeech.errors import ManifestError
from unispeech.frames import Seconds

SHARDS = "shar"
"""Folder of the shards in a prepared folder: lhotse takes every file in it for a part of the data."""

SHARDED = "shar"
"""Type of the source of a recording that lies in a shard."""

_PEAK = 2.0
"""Decoders of lossy formats go a little over full scale; what goes further is no audio in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Two files that belong together."""

    cuts: Path
    """One cut a line."""
    recordings: Path
    """Their recordings in the same order."""


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Where the recordings of a shard lie."""

    names: npt.NDArray[np.uint32]
    """(N,) checksums of the ids."""
    places: npt.NDArray[np.int64]
    """(N, 2) first byte and number of bytes of the audio in the tar; 0 bytes where a cut has none."""

    def __len__(self) -> int:
        """The number of recordings N."""
        return len(self.names)

    def is_at(self, number: int, name: str) -> bool:
        """Whether a recording is that of a cut.

        Args:
            number: Place in the shard, from 0.
            name: Id of the cut.

        Returns:
            False where it is another one's.
        """
        return bool(self.names[number] == _checksum(name))


def is_sharded(folder: Path) -> bool:
    """Tell a folder of shards.

    Args:
        folder: Any folder.

    Returns:
        Whether it holds numbered files of cuts.
    """
    return next(folder.glob("cuts.*.jsonl*"), None) is not None


def find_shards(folder: Path) -> list[Shard]:
    """List the shards of a folder.

    Args:
        folder: Written by `unispeech prepare --shards` or by lhotse.

    Returns:
        The shards in the order of their numbers.

    Raises:
        ManifestError: If one of the two files of a shard is missing, or the recordings are compressed.
    """
    cuts = {path.name.split(".")[1]: path for path in folder.glob("cuts.*.jsonl*")}
    tars = {path.name.split(".")[1]: path for path in folder.glob("recording.*.tar*")}
    for number in sorted(cuts.keys() ^ tars.keys()):
        here = cuts.get(number) or tars[number]
        missing = f"recording.{number}.tar" if number in cuts else f"cuts.{number}.jsonl.gz"
        raise ManifestError(
            f"{folder / missing}: must lie beside {here.name}, but does not; copy it there, or remove "
            f"{here.name} to do without the shard."
        )
    for path in tars.values():
        if path.suffix != ".tar":
            raise ManifestError(
                f"{path}: recordings must lie in a tar that is not compressed, but are in {path.suffix}; "
                "unpack it to .tar."
            )
    return [Shard(cuts=cuts[number], recordings=tars[number]) for number in sorted(cuts)]


def read_index(path: Path) -> ShardIndex:
    """Read where the recordings of a shard lie, from the headers alone.

    Args:
        path: The tar.

    Returns:
        The places in order.

    Raises:
        ManifestError: If it is no tar, or is cut off.
        FileNotFoundError: If there is no such file.
    """
    names, places = [], []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # The archive would keep every header in memory.
                tar.members.clear()  # type: ignore[attr-defined]
                name, _, suffix = member.name.rpartition(".")
                if member.isfile() and suffix not in {"json", "nometa"}:
                    names.append(_checksum(name))
                    places.append((member.offset_data, member.size))
            file.seek(tar.offset)
            # An archive ends in two blocks of zeros; one that was cut off between two files lacks them.
            is_whole = file.read(512) == bytes(512)
    except tarfile.TarError as error:
        raise ManifestError(_torn(path, str(error))) from None
    if not is_whole:
        raise ManifestError(_torn(path, "it has no end"))
    return ShardIndex(
        names=np.array(names, dtype=np.uint32), places=np.array(places, dtype=np.int64).reshape(-1, 2)
    )


def _torn(path: Path, reason: str) -> str:
    return f"{path}: must be a whole tar, but is not ({reason}); copy it again, or prepare the corpus again."


def _checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def place_of(path: Path, index: ShardIndex, number: int) -> str:
    """Write where a recording lies, in the form that `read_sharded` takes.

    Args:
        path: The tar.
        index: Its index.
        number: Which recording, from 0.

    Returns:
        `path:first byte:number of bytes`.
    """
    start, size = index.places[number]
    return f"{path}:{start}:{size}"


def read_sharded(place: str) -> io.BytesIO:
    """Read one recording out of a shard, and nothing else of it.

    Args:
        place: From `place_of`.

    Returns:
        The encoded audio.

    Raises:
        FileNotFoundError: If there is no such tar.
        ManifestError: If the tar ends before the recording does.
    """
    name, start, size = place.rsplit(":", 2)
    with open(name, "rb") as file:
        file.seek(int(start))
        content = file.read(int(size))
    if len(content) != int(size):
        raise ManifestError(
            _torn(Path(name), f"{len(content)} of the {size} bytes from {start} on are there")
        )
    return io.BytesIO(content)


def read_samples(
    file: str | Path | io.BytesIO, start: Seconds = 0.0, duration: Seconds | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a stretch of a recording, and no more of it where the format allows.

    Args:
        file: What soundfile reads.
        start: Where the stretch begins.
        duration: Its length; None reads to the end.

    Returns:
        (S,) samples, channels averaged, at the recording's own rate, and the rate. Fewer than asked for where
        the recording ends before.

    Raises:
        soundfile.LibsndfileError: If soundfile does not read it.
        ManifestError: If samples are not finite.
    """
    # A name that is not UTF-8 would not reach libsndfile as text.
    with soundfile.SoundFile(file if isinstance(file, io.BytesIO) else os.fsencode(file)) as audio:
        rate = int(audio.samplerate)
        audio.seek(min(round(start * rate), audio.frames))
        num_samples = -1 if duration is None else round(duration * rate)
        samples = audio.read(num_samples, dtype="float32", always_2d=True).mean(axis=1)
    if not np.isfinite(samples).all():
        name = "recording" if isinstance(file, io.BytesIO) else file
        raise ManifestError(
            f"{name}: samples must be finite, but are not; write the file again as 16-bit PCM."
        )
    return samples, rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A recording, or a stretch of one, as it goes into a shard."""

    flac: bytes
    """One channel of 16 bits, encoded."""
    num_samples: int
    """Its length at its own rate."""


def pack(path: Path, rate: int, start: Seconds = 0.0, duration: Seconds | None = None) -> Packed:
    """Encode a recording, or a stretch of it, for a shard.

    Args:
        path: Any audio file.
        rate: Its samples per second, which are kept.
        start: Where the stretch begins.
        duration: Its length; None takes the whole recording.

    Returns:
        The audio. Samples just over full scale, as lossy formats have them, are cut to it.

    Raises:
        FileNotFoundError: If there is no such file.
        ManifestError: If it is not audio, is damaged, its samples do not lie in [-1, 1], or flac has no such
            rate.
    """
    if duration is None:
        samples = load_audio(path, sample_rate=rate)
    else:
        try:
            samples, rate = read_samples(path, start, duration)
        except soundfile.LibsndfileError:
            # Containers that only PyAV reads, and everything that is wrong with a file, are load_audio's.
            first = round(start * rate)
            samples = load_audio(path, sample_rate=rate)[first : first + round(duration * rate)]
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _PEAK:
        raise ManifestError(
            f"{path}: samples must lie in [-1, 1] to be stored with 16 bits, but reach "
            f"{min(peak, LOUDEST):.3g}; write the file again as 16-bit PCM."
        )
    file = io.BytesIO()
    # The scale at which 16-bit recordings come out as they went in.
    whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    try:
        soundfile.write(file, whole, rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise ManifestError(
            f"{path}: sample rate must be one that flac has, but is {rate} Hz ({error}); resample the file."
        ) from None
    return Packed(flac=file.getvalue(), num_samples=len(whole))


def check_name(name: str) -> None:
    """Hold the id of an utterance to what can be the name of a file in a shard.

    Args:
        name: The id.

    Raises:
        ManifestError: If it would be read back as another one.
    """
    path = PurePosixPath(f"{name}.flac")
    if str(path.parent / path.stem) != name or "\0" in name:
        raise ManifestError(
            f"id must be usable as the name of a file in a shard, but is {name!r}; rename the utterance."
        )
