"""Cuts -> tensors: what a model is trained on in one forward pass.

Shapes in this file: B batch, S samples, T frames, L target length.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import soundfile
import soxr
import torch
from lhotse import MonoCut
from torch import Tensor
from torch.utils.data import Dataset

from unispeech.audio import Waveform, load_audio, normalise_waveform
from unispeech.data.augmentation import Augmentation, augment, change_speed
from unispeech.data.sampling import DrawnBatch
from unispeech.data.shards import SHARDED, read_samples, read_sharded
from unispeech.errors import ManifestError
from unispeech.frames import CONV_KERNEL, CONV_STRIDE, SAMPLE_RATE, Seconds, frame_to_seconds, num_frames
from unispeech.objectives import IGNORED_LABEL
from unispeech.phones import nearest
from unispeech.text import Vocabulary

_TOLERANCE: Seconds = 0.1


class Batch(TypedDict):
    """What a model is trained on in one forward pass."""

    input_values: Tensor
    """(B, S) float32 waveforms, zeros behind their ends."""
    attention_mask: Tensor
    """(B, S) int64, 1 where there is audio, 0 on padding."""
    num_samples: Tensor
    """(B,) int64 lengths of the waveforms."""
    ids: list[str]
    """Ids of the B utterances."""
    labels: NotRequired[Tensor]
    """(B, L) int64 symbols for CTC, or (B,) int64 classes; -100 on padding and where there is no target."""
    frame_labels: NotRequired[Tensor]
    """(B, T) int64 symbol of each frame, the blank where nothing is spoken, -100 on padding and where times
    are not known. There only where an utterance of the batch has known times."""


def padding_fraction(batch: Batch) -> float:
    """Share of a batch's samples that are padding, in [0, 1).

    Args:
        batch: Any batch.

    Returns:
        The share.
    """
    return 1.0 - float(batch["num_samples"].sum()) / batch["input_values"].numel()


class CutBatches(Dataset[dict[str, Any]]):
    """Reads batches of cuts as tensors: the item of a `DrawnBatch` is a `Batch`.

    Without `vocabulary` and `label2id` batches have no targets.

    Args:
        vocabulary: Symbols of a CTC head: the phones, or the text where it holds characters, are the labels.
        label2id: Classes of a classifier; the labels of the cuts are the labels.
        allow_unlabelled: Whether utterances without a target are read, with -100 for labels.
        has_targets: Whether targets are read at all; else all labels are -100.
        augmentation: How the waveforms are changed after they are read; None leaves them as they are.
        do_normalize: Whether each waveform gets zero mean and unit variance over its own samples.
        kernels: Kernel sizes of the feature encoder, `config.conv_kernel`.
        strides: Strides of the feature encoder, `config.conv_stride`.

    Raises:
        ValueError: If both `vocabulary` and `label2id` are given.
    """

    def __init__(
        self,
        *,
        vocabulary: Vocabulary | None = None,
        label2id: Mapping[str, int] | None = None,
        allow_unlabelled: bool = False,
        has_targets: bool = True,
        augmentation: Augmentation | None = None,
        do_normalize: bool = True,
        kernels: Sequence[int] = CONV_KERNEL,
        strides: Sequence[int] = CONV_STRIDE,
    ) -> None:
        if vocabulary is not None and label2id is not None:
            raise ValueError("`vocabulary` and `label2id` must not be given together; what shall be learnt?")
        self._vocabulary = vocabulary
        self._label2id = label2id
        self._allow_unlabelled = allow_unlabelled
        self._has_targets = has_targets
        self._augmentation = augmentation
        self._do_normalize = do_normalize
        self._kernels = tuple(kernels)
        self._strides = tuple(strides)
        self._phone_ids: dict[tuple[str, str | None], int] = {}

    def __getitem__(self, drawn: DrawnBatch) -> dict[str, Any]:
        """Read a batch.

        Args:
            drawn: The utterances.

        Returns:
            A `Batch` of those that can be read, and under "unreadable" pairs of id and reason of those that
            cannot. Where none can, there is nothing else but "unreadable".
        """
        read: list[tuple[MonoCut, Waveform]] = []
        unreadable: list[tuple[str, str]] = []
        for index, cut in enumerate(drawn.cuts):
            try:
                waveform = change_speed(load_cut(cut), drawn.speed)
            except (OSError, ManifestError) as error:
                unreadable.append((cut.id, str(error)))
                continue
            if self._augmentation is not None:
                waveform = augment(waveform, self._augmentation, drawn.generator(index))
            read.append((cut, waveform))
        # Other sample rates and inexact headers leave a few samples of difference.
        limit = min((len(waveform) for _, waveform in read), default=0) if drawn.is_cropped else None
        # Before padding: padding is no part of the utterance.
        read = [(cut, self._normalise(waveform[:limit])) for cut, waveform in read]
        return {**(self._collate(read, drawn.speed) if read else {}), "unreadable": unreadable}

    def _normalise(self, waveform: Waveform) -> Waveform:
        return normalise_waveform(waveform) if self._do_normalize else waveform

    def target_ids(self, cut: MonoCut) -> list[int]:
        """What is to be learnt of an utterance.

        Args:
            cut: The utterance.

        Returns:
            Symbols for CTC, or one class; empty where nothing is to be learnt.

        Raises:
            ValueError: If it has no target though it must, or the vocabulary or the classes lack it.
        """
        target = self.target(cut)
        if not target:
            return []
        if self._vocabulary is not None:
            return self._vocabulary.encode(target, language=cut.supervisions[0].language)
        assert self._label2id is not None
        if target not in self._label2id:
            raise ValueError(
                f"label must be one of the classes, but is {target!r}{nearest(target, self._label2id)}"
            )
        return [self._label2id[target]]

    def target(self, cut: MonoCut) -> str | None:
        """What is to be learnt of an utterance, as it is written.

        Args:
            cut: The utterance.

        Returns:
            Phones, a text or a label; None or empty where nothing is to be learnt.

        Raises:
            ValueError: If it has no target though it must.
        """
        if not self._has_targets:
            return None
        name, target = self._own_target(cut)
        if name and not target and not self._allow_unlabelled:
            raise ValueError(f"cut must have {name}, but has none; prepare the corpus with the same units.")
        return target

    def _own_target(self, cut: MonoCut) -> tuple[str, str | None]:
        """What a target is called, and the cut's own."""
        supervision = cut.supervisions[0]
        custom = supervision.custom or {}
        if self._vocabulary is not None:
            is_phones = self._vocabulary.kind == "phones"
            return ("phones", custom.get("phones")) if is_phones else ("a text", supervision.text)
        return ("a label", custom.get("label")) if self._label2id is not None else ("", None)

    def _collate(self, read: Sequence[tuple[MonoCut, Waveform]], speed: float) -> Batch:
        num_samples = torch.tensor([len(waveform) for _, waveform in read])
        input_values = torch.zeros(len(read), int(num_samples.max()))
        for row, (_, waveform) in zip(input_values, read, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        attention_mask = (torch.arange(input_values.shape[1]) < num_samples[:, None]).long()
        cuts = [cut for cut, _ in read]
        batch = Batch(
            input_values=input_values,
            attention_mask=attention_mask,
            num_samples=num_samples,
            ids=[cut.id for cut in cuts],
        )
        if self._vocabulary is not None:
            batch["labels"] = pad_labels([self.target_ids(cut) for cut in cuts])
            if self._has_targets and any(_phone_alignment(cut) for cut in cuts):
                batch["frame_labels"] = self._frame_labels(cuts, num_samples, speed)
        elif self._label2id is not None:
            classes = [self.target_ids(cut) or [IGNORED_LABEL] for cut in cuts]
            batch["labels"] = torch.tensor(classes).squeeze(1)
        return batch

    def _frame_labels(self, cuts: Sequence[MonoCut], num_samples: Tensor, speed: float) -> Tensor:
        """(B, T) symbol of the phone whose interval holds the centre of the frame."""
        assert self._vocabulary is not None
        lengths = num_frames(num_samples, self._kernels, self._strides)
        labels = torch.full((len(cuts), int(lengths.max())), IGNORED_LABEL)
        for row, cut, length in zip(labels, cuts, lengths.tolist(), strict=True):
            items = sorted(_phone_alignment(cut), key=lambda item: item.start)
            if not items or not length:
                continue
            first, second = (frame_to_seconds(frame, self._kernels, self._strides) for frame in (0, 1))
            centres = speed * (first + (second - first) * np.arange(length))
            starts = np.array([item.start for item in items])
            index = np.searchsorted(starts, centres, side="right") - 1
            ends = np.array([item.start + item.duration for item in items])
            ids = np.array([self._phone_id(item.symbol, cut.supervisions[0].language) for item in items])
            is_spoken = (index >= 0) & (centres < ends[index])
            row[:length] = torch.from_numpy(np.where(is_spoken, ids[index], self._vocabulary.blank))
        return labels

    def _phone_id(self, phone: str, language: str | None) -> int:
        """The symbol of an aligned phone; -100 where the vocabulary has none or writes it as several."""
        key = (phone, language)
        if key not in self._phone_ids:
            assert self._vocabulary is not None
            try:
                ids = self._vocabulary.encode(phone, language=language)
            except ValueError:
                ids = []
            self._phone_ids[key] = ids[0] if len(ids) == 1 else IGNORED_LABEL
        return self._phone_ids[key]


def load_cut(cut: MonoCut) -> Waveform:
    """Read the audio of a cut; of a segment no more than the segment is decoded where the format allows.

    Args:
        cut: A cut of a recording that is a file, or lies in a shard.

    Returns:
        (S,) float32 samples at 16 kHz.

    Raises:
        FileNotFoundError: If there is no such file.
        ManifestError: If it is not audio, or not as long any more as the cut says.
    """
    recording = cut.recording
    source = recording.sources[0]
    path = source.source
    if source.type == SHARDED:
        waveform = _load_sharded(path, cut)
    else:
        is_whole = cut.start == 0 and abs(cut.duration - recording.duration) < 1e-3
        waveform = load_audio(path) if is_whole else _load_segment(path, cut.start, cut.duration)
    duration = len(waveform) / SAMPLE_RATE
    # What is longer than the plan believes breaks its promise about memory.
    if abs(duration - cut.duration) > _TOLERANCE:
        raise ManifestError(
            f"{path}: utterance must last {cut.duration:.3f} s as in the cuts, but lasts {duration:.3f} s; "
            "prepare the corpus again, with --check-audio where the file is as it was."
        )
    return waveform


def _load_segment(path: str, start: Seconds, duration: Seconds) -> Waveform:
    try:
        return _resample(*read_samples(path, start, duration))
    except soundfile.LibsndfileError:
        # Containers that only PyAV reads, and everything that is wrong with a file, are load_audio's.
        first = round(start * SAMPLE_RATE)
        return load_audio(path)[first : first + round(duration * SAMPLE_RATE)]


def _load_sharded(place: str, cut: MonoCut) -> Waveform:
    try:
        return _resample(*read_samples(read_sharded(place), cut.start, cut.duration))
    except (soundfile.LibsndfileError, ManifestError) as error:
        raise ManifestError(f"{place}: audio of {cut.id} cannot be read: {error}") from None


def _resample(samples: Waveform, rate: int) -> Waveform:
    if rate != SAMPLE_RATE and samples.size:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return np.asarray(samples, dtype=np.float32)


def pad_labels(rows: Sequence[Sequence[int]]) -> Tensor:
    """Put label sequences into a rectangle.

    Args:
        rows: Labels of each utterance; empty where there are none.

    Returns:
        (B, L) int64, L at least 1, -100 behind each sequence.
    """
    labels = torch.full((len(rows), max(1, *map(len, rows))), IGNORED_LABEL)
    for padded, row in zip(labels, rows, strict=True):
        padded[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return labels


def _phone_alignment(cut: MonoCut) -> list[Any]:
    """The timed phones of a cut, relative to its start; empty where times are not known."""
    return list((cut.supervisions[0].alignment or {}).get("phone", ()))
