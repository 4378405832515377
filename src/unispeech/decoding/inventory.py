"""Inventories: which symbols may come out, and what becomes of the probability of all others.

An inventory is a list of IPA symbols: of a text file, of a PHOIBLE table, or the one that a checkpoint knows
for a language. It is laid upon log-probabilities before they are decoded, whatever decodes them.

Shapes in this file: T frames, N vocabulary, M symbols of the restricted vocabulary.
"""

import csv
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from unispeech.decoding.articulation import nearest_phones
from unispeech.errors import CheckpointError, ManifestError
from unispeech.phones import LOOKALIKES, nearest, normalise, split_tag
from unispeech.text import Vocabulary

Mode = Literal["mask", "map"]
"""What becomes of symbols outside the inventory: they are impossible, or count as the nearest one in it."""

LANGUAGES = "languages.json"
"""File beside a model: what it has heard of every language."""

VERSION = 1
"""Version of that file."""


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """A vocabulary laid upon another one."""

    vocabulary: Vocabulary
    """What comes out: blank, word boundary, inventory; M symbols."""
    targets: tuple[int, ...]
    """For each of the model's N ids, the id that it counts as; -1 where it is impossible."""
    mapping: dict[str, str]
    """Symbol of the model outside the inventory -> the one in it that it counts as; empty for a mask."""
    unreached: tuple[str, ...] = ()
    """Symbols of the inventory that nothing counts as."""

    def apply(self, log_probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Restrict log-probabilities; those of what counts as one symbol are added.

        Args:
            log_probs: (T, N) log-probabilities of the model.

        Returns:
            (T, M) log-probabilities that add up to 1 again, of `vocabulary`.
        """
        targets = np.array(self.targets)
        # Where all that is left has no probability worth the name, the sum is still not 0.
        allowed = np.where(targets >= 0, np.asarray(log_probs, np.float64), -np.inf)
        probs = np.exp(allowed - allowed.max(axis=1, keepdims=True))
        chosen = np.zeros((len(targets), len(self.vocabulary)))
        chosen[np.flatnonzero(targets >= 0), targets[targets >= 0]] = 1.0
        sums = probs @ chosen
        with np.errstate(divide="ignore"):
            restricted: npt.NDArray[np.float64] = np.log(sums / sums.sum(axis=1, keepdims=True))
        return restricted.astype(np.float32)

    def describe(self) -> str:
        """Show the mapping in one line.

        Returns:
            Such as `ɹ -> r, y -> u; nothing counts as q`.
        """
        parts = [", ".join(f"{symbol} -> {target}" for symbol, target in self.mapping.items())]
        if self.unreached:
            parts.append(f"nothing counts as {', '.join(self.unreached)}")
        return "; ".join(part for part in parts if part)


def restrict(
    vocabulary: Vocabulary, inventory: Sequence[str], *, mode: Mode = "mask", language: str | None = None
) -> Restriction:
    """Lay an inventory upon a vocabulary.

    Symbols are compared without language tags, in decomposed form, and with the keyboard's g and : read as
    IPA. Special symbols other than the blank become impossible.

    Args:
        vocabulary: The model's symbols.
        inventory: The symbols that may come out.
        mode: "mask" makes other symbols impossible; "map" counts them as the nearest one by articulatory
            features (panphon), and those without features as impossible.
        language: In a vocabulary that is tagged by language, the only one whose symbols count, if it is one
            of the vocabulary's.

    Returns:
        The restriction.

    Raises:
        ImportError: If symbols are to be mapped and panphon is not installed.
        ValueError: If the inventory is empty, or has a symbol that the model cannot reach: one that it lacks,
            or when mapping one that it lacks and that has no articulatory features.
    """
    wanted = list(dict.fromkeys(map(_comparable, inventory)))
    if not wanted:
        raise ValueError("`inventory` must hold at least one symbol, but is empty.")
    owners: dict[str, list[int]] = {}
    spelling: dict[str, str] = {}
    for index, symbol in enumerate(vocabulary.symbols):
        tag, phone = split_tag(symbol) if vocabulary.languages else (None, symbol)
        is_foreign = language in vocabulary.languages and tag not in {None, language}
        if index in vocabulary.special or index == vocabulary.word_boundary or is_foreign:
            continue
        owners.setdefault(_comparable(phone), []).append(index)
        spelling.setdefault(_comparable(phone), phone)
    missing = [symbol for symbol in wanted if symbol not in owners]
    if missing and mode == "mask":
        raise ValueError(
            f"`inventory` must hold symbols that the model can write, but holds {_listed(missing)}"
            f"{nearest(missing[0], owners).removesuffix('.')}; take them out, or map the model's symbols to "
            "the nearest ones of the inventory (map)."
        )
    outside = [phone for phone in owners if phone not in set(wanted)]
    found = nearest_phones(outside, wanted, required=missing) if mode == "map" else {}
    heads = [vocabulary.blank, *([] if vocabulary.word_boundary is None else [vocabulary.word_boundary])]
    symbols = [vocabulary.symbols[index] for index in heads]
    symbols += [spelling.get(symbol, symbol) for symbol in wanted]
    targets = np.full(len(vocabulary), -1)
    targets[heads] = range(len(heads))
    for phone, indices in owners.items():
        counts_as = phone if phone in set(wanted) else found.get(phone)
        targets[indices] = -1 if counts_as is None else len(heads) + wanted.index(counts_as)
    return Restriction(
        vocabulary=Vocabulary(
            symbols=tuple(symbols),
            blank=0,
            word_boundary=None if vocabulary.word_boundary is None else 1,
            kind=vocabulary.kind,
        ),
        targets=tuple(targets.tolist()),
        mapping={spelling[phone]: target for phone, target in found.items()},
        unreached=tuple(symbol for symbol in missing if symbol not in found.values()),
    )


def read_inventory(path: str | Path, *, language: str | None = None) -> list[str]:
    """Read an inventory from a file.

    Args:
        path: A text file of IPA symbols between whitespace, `#` beginning a comment; or a table of PHOIBLE
            (.csv), of one inventory or of many.
        language: In a table of many, which to take: an `InventoryID`, `ISO6393`, `Glottocode` or
            `LanguageName`. Other files do not need it.

    Returns:
        The symbols, each once; tones of a table are left out, they are no segments.

    Raises:
        ManifestError: If the file has no symbols, is no such table, or has more than one inventory for the
            language.
        OSError: If it cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: text must be UTF-8, but is not ({error.reason}).") from None
    if path.suffix.lower() == ".csv":
        symbols = _read_phoible(path, text, language)
    else:
        symbols = [symbol for line in text.splitlines() for symbol in line.partition("#")[0].split()]
    if not symbols:
        raise ManifestError(f"{path}: inventory must hold at least one symbol, but is empty.")
    return list(dict.fromkeys(symbols))


def collect_inventories(
    utterances: Iterable[tuple[str | None, Sequence[str]]], *, min_count: int = 1
) -> dict[str, list[str]]:
    """Collect what is said in every language, for `write_inventories`.

    Args:
        utterances: Language and symbols of each; without a language they do not count.
        min_count: Occurrences from which on a symbol belongs to a language.

    Returns:
        Language -> its symbols, both in alphabetical order.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for language, symbols in utterances:
        for symbol in symbols if language else ():
            counts[str(language)][symbol] += 1
    return {
        language: [symbol for symbol, count in sorted(counts[language].items()) if count >= min_count]
        for language in sorted(counts)
    }


def write_inventories(directory: str | Path, inventories: Mapping[str, Sequence[str]]) -> None:
    """Write the inventories of a model's languages beside it, as `languages.json`.

    Args:
        directory: The model's directory.
        inventories: Language -> symbols.
    """
    path = Path(directory) / LANGUAGES
    content = {"version": VERSION, "inventories": {name: list(inventories[name]) for name in inventories}}
    beside = path.with_name(f".{LANGUAGES}.part")
    beside.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def model_inventory(directory: str | Path, vocabulary: Vocabulary, language: str) -> list[str]:
    """Find what a model knows of a language: by the tags of its vocabulary, or by its `languages.json`.

    Args:
        directory: The model's directory.
        vocabulary: Its vocabulary.
        language: The language, as the model's training data named it.

    Returns:
        Its symbols, without tags.

    Raises:
        CheckpointError: If `languages.json` is broken.
        ValueError: If the model does not tell its languages apart, or does not know this one.
    """
    known = known_inventories(directory, vocabulary)
    if not known:
        raise ValueError(
            f"`language` must be left out for {directory}, whose {LANGUAGES} is missing, but is {language!r};"
            " give an inventory."
        )
    if language not in known:
        raise ValueError(
            f"`language` must be one of {', '.join(sorted(known))}, "
            f"but is {language!r}{nearest(language, known)}"
        )
    return known[language]


def known_inventories(directory: str | Path, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Find what a model knows of all its languages: by its vocabulary's tags, or by its `languages.json`.

    Args:
        directory: The model's directory.
        vocabulary: Its vocabulary.

    Returns:
        Language -> its symbols, without tags; empty for a model that does not tell its languages apart.

    Raises:
        CheckpointError: If `languages.json` is broken.
    """
    if vocabulary.languages:
        return {
            name: [phone for tag, phone in map(split_tag, vocabulary.symbols) if tag == name]
            for name in vocabulary.languages
        }
    return _read_inventories(Path(directory) / LANGUAGES)


def _read_inventories(path: Path) -> dict[str, list[str]]:
    """The content of a `languages.json`; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["inventories"]
        is_sound = content["version"] == VERSION and all(
            isinstance(symbols, list) and all(isinstance(symbol, str) and symbol for symbol in symbols)
            for symbols in found.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(
            f"{path}: must be an object with version {VERSION} and inventories (language -> symbols), "
            "but is not."
        )
    return {str(language): symbols for language, symbols in found.items()}


def _read_phoible(path: Path, text: str, language: str | None) -> list[str]:
    """The segments of one inventory of a PHOIBLE table."""
    reader = csv.DictReader(text.splitlines())
    if "Phoneme" not in (reader.fieldnames or ()):
        raise ManifestError(f"{path}:1: table must have a column Phoneme, as PHOIBLE's, but has none.")
    rows = [row for row in reader if row.get("Phoneme")]
    names = ("InventoryID", "ISO6393", "Glottocode", "LanguageName")
    if language is not None and any(row.get(name) for row in rows for name in names):
        chosen = [row for row in rows if language in {row.get(name) for name in names}]
        if not chosen:
            known = {row.get(name) or "" for row in rows for name in names}
            raise ManifestError(
                f"{path}: language must be one of the table's, but is {language!r}{nearest(language, known)}"
            )
        rows = chosen
    inventories = {row.get("InventoryID") or "": row.get("LanguageName") or "?" for row in rows}
    if len(inventories) > 1:
        raise ManifestError(
            f"{path}: one inventory must be chosen, but there are {len(inventories)}"
            f"{f' for {language!r}' if language else ''}; give as language one of "
            f"{', '.join(f'{key} ({name})' for key, name in list(inventories.items())[:8])}"
            f"{' and more' if len(inventories) > 8 else ''}."
        )
    # Where a source leaves the choice between two symbols, PHOIBLE writes both: the first one counts.
    return [row["Phoneme"].split("|")[0] for row in rows if row.get("SegmentClass") != "tone"]


def _comparable(symbol: str) -> str:
    """A symbol as it is compared."""
    return unicodedata.normalize("NFD", normalise(symbol, "phones").translate(LOOKALIKES))


def _listed(symbols: Sequence[str]) -> str:
    """Symbols in a message, not too many."""
    return ", ".join(map(repr, symbols[:10])) + (" and more" if len(symbols) > 10 else "")
