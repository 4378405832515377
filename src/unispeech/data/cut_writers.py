"""What is written of a prepared corpus: cuts of recordings that stay where they are, or shards with them."""

import errno
import io
import json
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TextIO

from unispeech.data.checks import Trainable
from unispeech.data.cuts import CUTS, open_cut_file
from unispeech.data.shards import SHARDED, SHARDS, is_sharded
from unispeech.errors import ManifestError
from unispeech.frames import Seconds

Fields = dict[str, Any]


class CutWriter(ABC):
    """Takes the utterances of a corpus; what it writes appears when all is done.

    What an earlier run wrote stands until then.

    Args:
        target: The file or folder to make.
        rival: What must not be there beside it.

    Raises:
        ManifestError: If `rival` is there.
    """

    def __init__(self, target: Path, *, rival: Path) -> None:
        if rival.is_file() or is_sharded(rival):
            raise ManifestError(
                f"{target.parent}: must not hold {rival.name} beside {target.name}, but holds it from an "
                "earlier run; choose another folder, or remove it."
            )
        self._target = target
        self._unfinished = target.with_name(f".{target.name}.part")
        self._remove_unfinished()
        self._files = ExitStack()

    def __enter__(self) -> Self:
        """Give the writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take away what was not committed."""
        try:
            self.close()
        finally:  # on a full disk, closing is an error, too
            self._remove_unfinished()

    @abstractmethod
    def write(self, trainable: Trainable) -> None:
        """Write an utterance.

        Args:
            trainable: The utterance.
        """

    def close(self) -> None:
        """Write what is still in memory: a full disk shows here, before anything takes its place."""
        self._files.close()

    def commit(self) -> None:
        """Put what was written into its place."""
        self.close()
        if self._target.is_dir():
            old = self._target.with_name(f".{self._target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(self._target, old)
            os.replace(self._unfinished, self._target)
            shutil.rmtree(old)
        else:
            os.replace(self._unfinished, self._target)

    def _remove_unfinished(self) -> None:
        if self._unfinished.is_dir():
            shutil.rmtree(self._unfinished)
        else:
            self._unfinished.unlink(missing_ok=True)


class CutFileWriter(CutWriter):
    """Writes `cuts.jsonl.gz`; recordings stay where they are.

    Args:
        folder: Where the file is to be.
        relative_paths: Whether the paths of recordings start from the folder; else they are absolute.

    Raises:
        ManifestError: If the folder holds shards of an earlier run.
    """

    def __init__(self, folder: Path, *, relative_paths: bool = False) -> None:
        super().__init__(folder / CUTS, rival=folder / SHARDS)
        # Where the folder is reached by a link, the way up leads from the place that the link stands for.
        self._relative_to = os.path.realpath(folder) if relative_paths else None
        self._cuts = self._files.enter_context(open_cut_file(self._unfinished))

    def write(self, trainable: Trainable) -> None:
        """Write an utterance.

        Args:
            trainable: The utterance.
        """
        utterance, info = trainable.utterance, trainable.info
        path = os.path.abspath(utterance.audio)
        recording = _recording(
            str(utterance.audio) if utterance.is_segment else utterance.id,
            source={
                "type": "file",
                "channels": list(range(info.channels)),
                "source": path if self._relative_to is None else os.path.relpath(path, self._relative_to),
            },
            rate=info.sample_rate,
            num_samples=info.num_samples,
            duration=info.duration,
        )
        _write_line(self._cuts, _describe(trainable, recording, start=trainable.start))


class ShardWriter(CutWriter):
    """Writes a folder of shards, which `lhotse.CutSet.from_shar` reads as well.

    The same utterances give the same bytes.

    Args:
        folder: Where the folder of shards is to be.
        max_utterances: Utterances in a shard; None sets no limit.
        max_hours: Hours of audio in a shard, which holds one utterance at least; None sets no limit.

    Raises:
        ValueError: If not exactly one limit is given, or it is not positive.
        ManifestError: If the folder holds cuts of an earlier run.
    """

    # lhotse's writer would sum up to the same files, but it starts a shard by count only, takes a % in the
    # path of the folder for its own, decodes in one thread, keeps all channels, and stamps times.

    def __init__(self, folder: Path, *, max_utterances: int | None, max_hours: float | None) -> None:
        limits = [limit for limit in (max_utterances, max_hours) if limit is not None]
        if len(limits) != 1 or not limits[0] > 0:
            raise ValueError(
                "a shard must have one limit, a positive number of utterances or of hours, "
                f"but has {max_utterances} utterances and {max_hours} hours."
            )
        super().__init__(folder / SHARDS, rival=folder / CUTS)
        self._max_utterances, self._max_hours = max_utterances, max_hours
        self._unfinished.mkdir()
        self._num_shards = 0
        self._num_utterances, self._duration = 0, 0.0

    def write(self, trainable: Trainable) -> None:
        """Write an utterance.

        Args:
            trainable: The utterance, with its packed audio.
        """
        packed, utterance, rate = trainable.packed, trainable.utterance, trainable.info.sample_rate
        assert packed is not None
        if not self._num_shards or self._is_full(trainable.duration):
            self._open_next()
        recording = _recording(
            utterance.id,
            source={"type": SHARDED, "channels": [0], "source": ""},
            rate=rate,
            num_samples=packed.num_samples,
            duration=trainable.duration,
        )
        for suffix, content in ("flac", packed.flac), ("json", (json.dumps(recording) + "\n").encode()):
            member = tarfile.TarInfo(f"{utterance.id}.{suffix}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        _write_line(self._cuts, _describe(trainable, recording, start=0.0))
        self._num_utterances += 1
        self._duration += trainable.duration

    def _is_full(self, duration: Seconds) -> bool:
        """Whether an utterance of this length belongs into the next shard."""
        if self._max_utterances is not None:
            return self._num_utterances >= self._max_utterances
        assert self._max_hours is not None
        return self._num_utterances > 0 and self._duration + duration > self._max_hours * 3600

    def _open_next(self) -> None:
        self._files.close()
        number = f"{self._num_shards:06d}"
        cuts, tar = (
            self._unfinished / name for name in (f"cuts.{number}.jsonl.gz", f"recording.{number}.tar")
        )
        self._cuts = self._files.enter_context(open_cut_file(cuts))
        self._tar = self._files.enter_context(_open_tar(tar))
        self._num_shards += 1
        self._num_utterances, self._duration = 0, 0.0


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Name the folder where the system says only that the disk is full.

    Args:
        folder: What is written to.

    Yields:
        Nothing.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            error.filename = str(folder)
        raise


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and take it away again if what is to be written to it is refused before anything is.

    Args:
        folder: May be there already, and stays then.

    Yields:
        Nothing.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # something lies in it
                folder.rmdir()
        raise


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(path, "w") as tar:
        yield tar


def _recording(name: str, *, source: Fields, rate: int, num_samples: int, duration: Seconds) -> Fields:
    """A recording as lhotse's `Recording.to_dict` would write it."""
    return {
        "id": name,
        "sources": [source],
        "sampling_rate": rate,
        "num_samples": num_samples,
        "duration": duration,
        "channel_ids": source["channels"],
    }


def _describe(trainable: Trainable, recording: Fields, *, start: Seconds) -> Fields:
    """A cut as lhotse's `MonoCut.to_dict` would write it, which takes most of the time of a large corpus."""
    utterance, learnable = trainable.utterance, trainable.learnable
    is_reduced = learnable.text != utterance.text
    custom = _filled(
        phones=learnable.phones, label=learnable.label, orthography=utterance.text if is_reduced else None
    )
    supervision = _filled(
        id=utterance.id,
        recording_id=recording["id"],
        start=0.0,
        duration=trainable.duration,
        channel=0,
        text=learnable.text,
        language=utterance.language,
        speaker=utterance.speaker,
        custom=custom or None,
        alignment=utterance.alignment or None,
    )
    return {
        "id": utterance.id,
        "start": start,
        "duration": trainable.duration,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MonoCut",
    }


def _filled(**fields: object) -> Fields:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _write_line(file: TextIO, fields: Fields) -> None:
    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
