"""What a model is to tell apart: the vocabulary or the classes of a corpus, collected or given."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from unispeech.data.checks import Learnable, Units, UntrainableError
from unispeech.data.utterances import UNKNOWN_LANGUAGE
from unispeech.errors import ManifestError
from unispeech.phones import nearest
from unispeech.text import Vocabulary

LABELS = "labels.json"
"""File of the classes: name -> id."""


class Inventory:
    """The symbols or classes of a corpus: collected, or given and held to.

    Args:
        units: What a model is to learn.
        vocabulary: Symbols that are given; None collects them.
        label2id: Classes that are given; None collects them.
        tag_languages: Whether each language has phones of its own.

    Raises:
        ValueError: If `vocabulary` has other units.
    """

    def __init__(
        self,
        units: Units,
        vocabulary: Vocabulary | None = None,
        label2id: Mapping[str, int] | None = None,
        *,
        tag_languages: bool = False,
    ) -> None:
        self._units = units
        self._is_tagged = tag_languages
        self._vocabulary = vocabulary
        self._label2id = label2id
        self._symbols: dict[str, set[str]] = {}
        self._labels: set[str] = set()
        if vocabulary is not None and vocabulary.kind != units:
            raise ValueError(f"`vocabulary` must hold {units}, but holds {vocabulary.kind}.")

    def add(self, learnable: Learnable, language: str | None) -> None:
        """Take in what there is to learn of an utterance.

        Args:
            learnable: What there is to learn.
            language: Language of the utterance.

        Raises:
            UntrainableError: If what is given does not cover it; what is missing is named.
        """
        if self._units == "none":
            return
        if learnable.label is not None:
            if self._label2id is not None and learnable.label not in self._label2id:
                known = nearest(learnable.label, self._label2id)
                raise UntrainableError(
                    "unknown-symbol", f"label must be known, but is {learnable.label!r}{known}"
                )
            self._labels.add(learnable.label)
        elif self._vocabulary is not None:
            try:
                self._vocabulary.encode(learnable.phones or learnable.text or "", language=language)
            except ValueError as error:
                raise UntrainableError("unknown-symbol", str(error)) from None
        else:
            tag = (language or UNKNOWN_LANGUAGE) if self._is_tagged else ""
            self._symbols.setdefault(tag, set()).update(learnable.symbols)

    def save(self, folder: Path) -> None:
        """Write the vocabulary, or the classes.

        Args:
            folder: Where to.
        """
        if self._units == "none":
            return
        if self._units == "label":
            label2id = self._label2id or {label: index for index, label in enumerate(sorted(self._labels))}
            write_labels(label2id, folder)
            return
        vocabulary = self._vocabulary or Vocabulary.build(
            [" ".join(sorted(symbols)) for symbols in self._symbols.values()],
            kind="characters" if self._units == "characters" else "phones",
            languages=list(self._symbols) if self._is_tagged else None,
        )
        vocabulary.save(folder)


def write_labels(label2id: Mapping[str, int], folder: Path) -> None:
    """Write the classes of a classifier.

    Args:
        label2id: Name -> id.
        folder: Where `labels.json` is to be.
    """
    beside = folder / f".{LABELS}.part"
    beside.write_text(json.dumps(dict(label2id), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, folder / LABELS)


def read_labels(folder: str | Path) -> dict[str, int]:
    """Read the classes that `prepare_corpus` or `write_labels` wrote.

    Args:
        folder: Where `labels.json` is.

    Returns:
        Name -> id; the ids are 0 to their number less 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ManifestError: If it does not number classes from 0.
    """
    path = Path(folder) / LABELS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make it with unispeech prepare --units label.")
    try:
        label2id = json.loads(path.read_text(encoding="utf-8"))
        is_sound = isinstance(label2id, dict) and sorted(label2id.values()) == list(range(len(label2id)))
    except (ValueError, TypeError):
        is_sound = False
    if not is_sound or not label2id:
        raise ManifestError(f"{path}: must be a JSON object of classes numbered from 0, but is not.")
    return {str(label): int(index) for label, index in label2id.items()}
