"""What a run learns to write: its vocabulary or its classes, from a directory or from the training cuts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from unispeech.checkpoints.hub import model_files
from unispeech.data.cuts import CutFiles
from unispeech.decoding.inventory import collect_inventories
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary
from unispeech.training.sections import BatchSettings


def build_vocabulary(
    cuts: Sequence[str], units: Literal["phones", "characters"], settings: BatchSettings, init: str | None
) -> Vocabulary:
    """The symbols that a recogniser is to write.

    Args:
        cuts: The labelled training cuts.
        units: What the symbols are.
        settings: Where the vocabulary is, or how it is built.
        init: The model that the run starts from: a directory or a Hub id.

    Returns:
        The vocabulary: loaded, or built from the transcripts of the training cuts.

    Raises:
        ManifestError: If no cut has a transcript.
        CheckpointError: If a directory holds no vocabulary.
        ValueError: If it holds other units than the recipe wants.
    """
    if settings.vocabulary is not None:
        is_init = settings.vocabulary == "init" and init is not None
        place = model_files(init) if is_init and init is not None else settings.vocabulary
        vocabulary = Vocabulary.load(place)
        if vocabulary.kind != units:
            raise ValueError(f"{place}: vocabulary must hold {units}, but holds {vocabulary.kind}.")
        return vocabulary
    transcripts: dict[tuple[str, str], None] = {}
    for supervision in supervisions(cuts):
        custom = supervision.custom or {}
        text = custom.get("phones") if units == "phones" else supervision.text
        if text:
            transcripts[text, supervision.language or "und"] = None
    if not transcripts:
        raise ManifestError(
            f"{cuts[0]}: cuts must have {units}, but have none; prepare them with --units {units}."
        )
    return Vocabulary.build(
        [text for text, _ in transcripts],
        kind=units,
        languages=[language for _, language in transcripts] if settings.tag_languages else None,
    )


def collect_languages(cuts: Sequence[str | Path], vocabulary: Vocabulary) -> dict[str, list[str]]:
    """The phones of each language, for `transcribe --language`.

    Args:
        cuts: The labelled training cuts.
        vocabulary: The symbols that are learned; others do not count.

    Returns:
        Language -> its phones; empty for characters, and for a vocabulary that has them apart by its tags.
    """
    if vocabulary.kind != "phones" or vocabulary.languages:
        return {}
    hidden = {*vocabulary.special, vocabulary.word_boundary}
    written = {symbol for index, symbol in enumerate(vocabulary.symbols) if index not in hidden}
    return collect_inventories(
        (supervision.language, [s for s in vocabulary.segment(text) if s in written])
        for supervision in supervisions(cuts)
        if (text := (supervision.custom or {}).get("phones"))
    )


def build_labels(cuts: Sequence[str | Path]) -> dict[str, int]:
    """The classes of the training cuts, in alphabetical order.

    Args:
        cuts: The training cuts.

    Returns:
        Name -> number.

    Raises:
        ManifestError: If no cut has a label.
    """
    customs = [supervision.custom or {} for supervision in supervisions(cuts)]
    labels: set[str] = {custom["label"] for custom in customs if custom.get("label")}
    if not labels:
        raise ManifestError(
            f"{cuts[0]}: cuts must have a label, but have none; prepare them with --units label."
        )
    return {label: index for index, label in enumerate(sorted(labels))}


def check_times(cuts: Sequence[str]) -> None:
    """Refuse a frame-level start on speech without phone times.

    Args:
        cuts: The training cuts.

    Raises:
        ManifestError: If not one of them has phone times.
    """
    if not any((supervision.alignment or {}).get("phone") for supervision in supervisions(cuts)):
        raise ManifestError(
            f"{cuts[0]}: cuts must have phone times for `objective.frame_updates`, but have none; "
            "set it to 0, or, in fine-tuning, `objective.frame_labels` to uniform."
        )


def supervisions(cuts: Sequence[str | Path]) -> Iterator[Any]:
    """The supervisions of cuts.

    Args:
        cuts: Files or directories.

    Yields:
        One per cut.
    """
    for cut in CutFiles(list(cuts)):
        yield cut.supervisions[0]
