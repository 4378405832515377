"""From a corpus to cuts: what can be trained on as lhotse cuts, the rest listed with its reasons.

A cut is one utterance: a `MonoCut` with one supervision. `supervision.text` is the transcript,
`supervision.custom["phones"]` the phones separated by spaces, `supervision.custom["label"]` the class.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from unispeech.audio import AudioInfo
from unispeech.data.checks import (
    BROKEN,
    Phonemise,
    Reason,
    Rejection,
    Trainable,
    Units,
    UntrainableError,
    check_length,
    learnable_of,
    pack_audio,
    read_header,
    rejection_of_line,
    span_of,
)
from unispeech.data.cut_writers import CutFileWriter, CutWriter, ShardWriter, made_folder, naming_full_disk
from unispeech.data.inventory import Inventory
from unispeech.data.readers import Format, read_corpus
from unispeech.data.selection import Condition, Selection
from unispeech.data.shards import Packed
from unispeech.data.utterances import UNKNOWN_LANGUAGE, BadLine, Utterance
from unispeech.errors import ManifestError
from unispeech.frames import Seconds
from unispeech.text import Vocabulary

REJECTED = "rejected.jsonl"
"""File of the lines that cannot be trained on, one `Rejection` per line."""

_CHUNK = 256
_CHUNK_PACKED = 32
"""Utterances at a time: of those that go into shards the audio is in memory."""

Header = tuple[AudioInfo, Packed | None] | UntrainableError
"""What is known of a recording, with its audio where it goes into a shard, or why it cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to make of a corpus."""

    units: Units = "phones"
    """What a model is to learn."""
    format: Format | None = None
    """How the corpus is laid out; None recognises it."""
    language: str | None = None
    """Language of the utterances that state none."""
    part: str | None = None
    """The part of the corpus to take; None takes all."""
    dictionary: Path | None = None
    """What the numbers of a fairseq table's labels stand for; None takes the file beside them."""
    recordings: Path | None = None
    """Where the recordings of a fairseq table lie; None believes the table."""
    where: tuple[Condition, ...] = ()
    """Which utterances to take: of the conditions on one field one must hold (all, where they are `!=`)."""
    word_boundaries: bool = False
    """Whether phones keep `|` between words."""
    as_written: bool = False
    """Whether phones stay as the corpus writes them; else ARPAbet becomes IPA."""
    tag_languages: bool = False
    """Whether each language has phones of its own in the vocabulary; else all languages share them."""
    max_seconds: Seconds | None = None
    """Longest utterance to keep; None sets no limit."""
    check_audio: bool = False
    """Decode every recording instead of reading its header only."""
    relative_paths: bool = False
    """Write the paths of recordings relative to the folder of the cuts."""
    shard_utterances: int | None = None
    """Write the audio, too, into shards of so many utterances."""
    shard_hours: float | None = None
    """Write the audio, too, into shards of so many hours."""

    @property
    def is_sharded(self) -> bool:
        """Whether the audio is written as well."""
        return self.shard_utterances is not None or self.shard_hours is not None

    def open_writer(self, folder: Path) -> CutWriter:
        """Open what takes the utterances.

        Args:
            folder: Where to write.

        Returns:
            A writer of cuts or of shards.

        Raises:
            ManifestError: If the folder holds what was written in the other way.
            ValueError: If the size of shards makes no sense, or the paths in shards are to be relative.
        """
        if not self.is_sharded:
            return CutFileWriter(folder, relative_paths=self.relative_paths)
        if self.relative_paths:
            raise ValueError("`relative_paths` must not be given with shards; they hold no paths.")
        return ShardWriter(folder, max_utterances=self.shard_utterances, max_hours=self.shard_hours)


@dataclass
class Amount:
    """Number and length of some utterances."""

    num_utterances: int = 0
    """How many."""
    duration: Seconds = 0.0
    """How long all together, as far as it is known."""

    def add(self, duration: Seconds) -> None:
        """Count one more utterance."""
        self.num_utterances += 1
        self.duration += duration


@dataclass
class CorpusReport:
    """What became of the lines of a corpus; every line is counted once."""

    num_lines: int = 0
    """Lines read (files of a folder)."""
    num_left_out: int = 0
    """Utterances that were not asked for by `part` and `where`."""
    kept: dict[str, Amount] = field(default_factory=dict)
    """What can be trained on, by language."""
    rejected: dict[tuple[str, Reason], Amount] = field(default_factory=dict)
    """What cannot, by language and reason."""
    num_restated: int = 0
    """Kept recordings whose stated duration is off by more than 0.1 s; their own length was taken."""

    @property
    def num_kept(self) -> int:
        """Utterances in the cuts."""
        return sum(amount.num_utterances for amount in self.kept.values())

    @property
    def num_rejected(self) -> int:
        """Lines in the list of rejections."""
        return sum(amount.num_utterances for amount in self.rejected.values())

    @property
    def num_broken(self) -> int:
        """Rejected lines that point to a broken corpus: unreadable lines, missing or unreadable audio."""
        return sum(a.num_utterances for (_, reason), a in self.rejected.items() if reason in BROKEN)


def prepare_corpus(
    source: Path,
    output: Path,
    preparation: Preparation,
    *,
    phonemise: Phonemise | None = None,
    vocabulary: Vocabulary | None = None,
    label2id: Mapping[str, int] | None = None,
    on_progress: Callable[[CorpusReport], None] | None = None,
) -> CorpusReport:
    """Write cuts, rejections and the vocabulary (or the classes) of a corpus into a folder.

    Every line of the corpus is kept, rejected with its reason, or left out because it was not asked for.
    The files appear when all is done; those of an earlier run stand until then.

    Args:
        source: Manifest file or folder of the corpus.
        output: Folder to write to; made where it does not exist.
        preparation: What to make of it.
        phonemise: Makes phones of text where the corpus gives none; None rejects such utterances.
        vocabulary: Symbols of a model that is there already; None collects them from this corpus.
        label2id: Classes of a model that is there already; None collects them from this corpus.
        on_progress: Called now and then with the count so far.

    Returns:
        The count of everything.

    Raises:
        ManifestError: If the corpus cannot be used as a whole, or nothing of it can be trained on.
        ValueError: If a condition names a field that the corpus lacks, `vocabulary` has other units, or
            `output` is the folder of the corpus and no format is named.
        FileNotFoundError: If `source` does not exist.
    """
    if preparation.format is None and source.is_dir() and output.is_dir() and source.samefile(output):
        raise ValueError(
            f"`output` must be another folder than the corpus, but is {output}; "
            "another time the cuts in it would be taken for the corpus."
        )
    inventory = Inventory(preparation.units, vocabulary, label2id, tag_languages=preparation.tag_languages)
    selection = Selection(preparation.part, preparation.where, preparation.language)
    report = CorpusReport()
    rejected = output / f".{REJECTED}.part"
    with made_folder(output), naming_full_disk(output), ExitStack() as stack:
        writer = stack.enter_context(preparation.open_writer(output))
        stack.callback(rejected.unlink, missing_ok=True)
        with (
            ThreadPoolExecutor(8) as pool,
            rejected.open("w", encoding="utf-8", errors="backslashreplace") as rejected_file,
        ):
            for outcomes in _judge(source, preparation, selection, inventory, phonemise, report, pool):
                for outcome in outcomes:
                    if isinstance(outcome, Rejection):
                        rejected_file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
                    else:
                        writer.write(outcome)
                if on_progress:
                    on_progress(report)
        if not report.num_lines:
            raise ManifestError(f"{source}: must hold utterances, but holds none.")
        selection.check_found(source)
        writer.close()
        os.replace(rejected, output / REJECTED)
        if not report.num_kept:
            raise ManifestError(
                f"{source}: something must be left to train on, but all {report.num_rejected} lines were "
                f"rejected; {output / REJECTED} says why."
            )
        inventory.save(output)
        writer.commit()
    return report


def _judge(
    source: Path,
    preparation: Preparation,
    selection: Selection,
    inventory: Inventory,
    phonemise: Phonemise | None,
    report: CorpusReport,
    pool: Executor,
) -> Iterator[list[Trainable | Rejection]]:
    """Judge the lines of a corpus in their order.

    Yields:
        What became of some lines; those left out are only counted.
    """
    first_seen: dict[str, str] = {}
    items = read_corpus(
        source,
        format=preparation.format,
        part=preparation.part,
        dictionary=preparation.dictionary,
        recordings=preparation.recordings,
    )
    size = _CHUNK_PACKED if preparation.is_sharded else _CHUNK
    while chunk := list(itertools.islice(items, size)):
        report.num_lines += len(chunk)
        asked: list[Utterance | Rejection] = []
        for item in chunk:
            if isinstance(item, BadLine):
                asked.append(rejection_of_line(item))
            elif selection.takes(item):
                utterance = replace(item, language=item.language or preparation.language)
                first = first_seen.setdefault(utterance.id, utterance.source)
                duplicate = UntrainableError("duplicate-id", f"id must be unique, but {first} has it too.")
                asked.append(utterance if first == utterance.source else _reject(utterance, duplicate))
            else:
                report.num_left_out += 1
        headers = pool.map(
            partial(_open, preparation=preparation),
            [entry for entry in asked if isinstance(entry, Utterance)],
        )
        outcomes: list[Trainable | Rejection] = []
        for entry in asked:
            if isinstance(entry, Utterance):
                outcomes.append(_check(entry, next(headers), preparation, inventory, phonemise))
            else:
                outcomes.append(entry)
            _count(outcomes[-1], report)
        yield outcomes


def _open(utterance: Utterance, preparation: Preparation) -> Header:
    """Read what is to be known of a recording, and its audio where that goes into a shard."""
    is_sharded = preparation.is_sharded
    # A whole recording is decoded to be packed anyway.
    decode = preparation.check_audio and not (is_sharded and not utterance.is_segment)
    info = read_header(utterance, decode=decode)
    if isinstance(info, UntrainableError):
        return info
    return pack_audio(utterance, info, max_seconds=preparation.max_seconds) if is_sharded else (info, None)


def _check(
    utterance: Utterance,
    header: Header,
    preparation: Preparation,
    inventory: Inventory,
    phonemise: Phonemise | None,
) -> Trainable | Rejection:
    """Hold one utterance to every condition; the first that fails is the reason."""
    duration = utterance.duration or 0.0
    try:
        if isinstance(header, UntrainableError):
            raise header
        info, packed = header
        start, duration = span_of(utterance, info)
        learnable = learnable_of(
            utterance,
            preparation.units,
            phonemise=phonemise,
            word_boundaries=preparation.word_boundaries,
            as_written=preparation.as_written,
        )
        check_length(learnable.symbols, duration, max_seconds=preparation.max_seconds)
        inventory.add(learnable, utterance.language)
    except UntrainableError as error:
        return _reject(utterance, error, duration)
    return Trainable(
        utterance=utterance, learnable=learnable, info=info, start=start, duration=duration, packed=packed
    )


def _reject(utterance: Utterance, error: UntrainableError, duration: Seconds = 0.0) -> Rejection:
    return Rejection(
        id=utterance.id,
        source=utterance.source,
        reason=error.reason,
        detail=str(error),
        audio=str(utterance.audio),
        language=utterance.language,
        duration=round(duration, 6),
    )


def _count(outcome: Trainable | Rejection, report: CorpusReport) -> None:
    if isinstance(outcome, Rejection):
        key = (outcome.language or UNKNOWN_LANGUAGE, outcome.reason)
        report.rejected.setdefault(key, Amount()).add(outcome.duration)
        return
    utterance = outcome.utterance
    report.kept.setdefault(utterance.language or UNKNOWN_LANGUAGE, Amount()).add(outcome.duration)
    stated = utterance.duration
    if stated is not None and not utterance.is_segment and abs(stated - outcome.duration) > 0.1:
        report.num_restated += 1
