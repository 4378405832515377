"""Vocabularies in Hugging Face's layout: the files of a wav2vec 2.0 processor, without transformers.

The layout has grown over the years: special tokens stand in `tokenizer_config.json`, in
`special_tokens_map.json`, or in neither and are the tokenizer's defaults; tokens that a tokenizer adds stand
in `added_tokens.json` or in `added_tokens_decoder`; multilingual models nest one vocabulary per language. All
of these are read.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from unispeech.errors import CheckpointError
from unispeech.frames import SAMPLE_RATE
from unispeech.phones import WORD_BOUNDARY, Kind, nearest

DEFAULT_TOKENS = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""What the tokenizers take where their files name no token."""

Json = dict[str, Any]


class TokenizerFields(TypedDict):
    """What the files say: the fields of `unispeech.text.Vocabulary`."""

    symbols: tuple[str, ...]
    blank: int
    kind: Kind
    word_boundary: int | None
    unknown: int | None
    special: frozenset[int]


def read_tokenizer(folder: Path, language: str | None = None) -> TokenizerFields:
    """Read the vocabulary of a model directory.

    Args:
        folder: A model directory.
        language: Which part of a nested vocabulary to take; None takes the tokenizer's `target_lang`.

    Returns:
        The fields of a vocabulary.

    Raises:
        CheckpointError: If there is no vocabulary, or it is broken, ambiguous or without a blank.
    """
    path = folder / "vocab.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no vocab.json; copy the one that the head was trained with there, or write one "
            "with Vocabulary.save."
        )
    settings = {
        **_read_json(folder / "special_tokens_map.json"),
        **_read_json(folder / "tokenizer_config.json"),
    }
    settings |= settings.get("model_specific_special_tokens") or {}
    ids = _choose_language(path, _read_json(path), language, settings.get("target_lang"))
    hidden = _append_added(folder, ids, settings)
    if sorted(ids.values()) != list(range(len(ids))):
        raise CheckpointError(f"{path}: ids must run from 0 to {len(ids) - 1}, but are {_span(ids)}.")
    names = {name: _content(settings.get(name, default)) for name, default in DEFAULT_TOKENS.items()}
    blank = ids.get(names["pad_token"])
    if blank is None:
        name = names["pad_token"]
        raise CheckpointError(f"{path}: must hold the `pad_token` {name!r} as the CTC blank, but lacks it.")
    # A bar is the boundary even where a phone tokenizer declares none: no phone is written with it.
    boundary = ids.get(_content(settings.get("word_delimiter_token")) or WORD_BOUNDARY)
    special = {ids[name] for name in (*names.values(), *hidden) if name in ids} - {boundary}
    return TokenizerFields(
        symbols=tuple(sorted(ids, key=ids.__getitem__)),
        blank=blank,
        kind=_kind(settings, [symbol for symbol, index in ids.items() if index not in special]),
        word_boundary=boundary,
        unknown=ids.get(names["unk_token"]),
        special=frozenset(special),
    )


def write_tokenizer(
    folder: Path, fields: TokenizerFields, *, do_normalize: bool, return_attention_mask: bool
) -> None:
    """Write the files from which `transformers.Wav2Vec2Processor` loads; each beside first, then renamed.

    Args:
        folder: Created where it does not exist.
        fields: The vocabulary.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance.
        return_attention_mask: Whether batches for the model carry an attention mask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extractor = {
        "do_normalize": do_normalize,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": return_attention_mask,
        "sampling_rate": SAMPLE_RATE,
    }
    processor = {"processor_class": "Wav2Vec2Processor"}
    special = _special_tokens(fields)
    tokenizer = {**_tokenizer_class(fields), **special, **processor}
    present = {name: token for name, token in special.items() if token is not None}
    _write_json(folder / "vocab.json", {symbol: index for index, symbol in enumerate(fields["symbols"])})
    _write_json(folder / "special_tokens_map.json", present)
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "preprocessor_config.json", {**extractor, **processor})
    _write_json(folder / "processor_config.json", {**processor, "feature_extractor": extractor})


def read_do_normalize(folder: Path) -> bool:
    """Whether the model of a directory takes waveforms of zero mean and unit variance.

    Args:
        folder: A model directory with `processor_config.json` or the older `preprocessor_config.json`.

    Returns:
        The feature extractor's `do_normalize`; True, its default, where nothing is said.

    Raises:
        CheckpointError: If the files are broken, or the model takes another sample rate than 16 kHz.
    """
    older = _read_json(folder / "preprocessor_config.json")
    newer = _read_json(folder / "processor_config.json").get("feature_extractor") or {}
    settings = {**older, **newer}
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise CheckpointError(f"{folder}: `sampling_rate` must be {SAMPLE_RATE}, but is {rate}.")
    do_normalize = settings.get("do_normalize", True)
    if not isinstance(do_normalize, bool):
        # The text "false" is true to Python: to guess would be to prepare every waveform wrongly.
        path = folder / ("processor_config.json" if "do_normalize" in newer else "preprocessor_config.json")
        raise CheckpointError(
            f"{path}: `do_normalize` must be true or false, but is {json.dumps(do_normalize)}."
        )
    return do_normalize


def _tokenizer_class(fields: TokenizerFields) -> Json:
    """The class of the tokenizer and its settings."""
    boundary = fields["word_boundary"]
    shared = {
        "word_delimiter_token": None if boundary is None else fields["symbols"][boundary],
        "clean_up_tokenization_spaces": False,
    }
    if fields["kind"] == "characters":
        return {"tokenizer_class": "Wav2Vec2CTCTokenizer", "do_lower_case": False, **shared}
    # Only this class writes phones of several letters apart; with do_phonemize off it never calls espeak.
    return {
        "tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer",
        "do_phonemize": False,
        "phone_delimiter_token": " ",
        **shared,
    }


def _special_tokens(fields: TokenizerFields) -> Json:
    """The special tokens under transformers' names; null where absent, else a default would be appended."""
    symbols, unknown = fields["symbols"], fields["unknown"]
    others = [symbols[index] for index in sorted(fields["special"] - {fields["blank"], unknown})]
    tokens: Json = {
        "pad_token": symbols[fields["blank"]],
        "unk_token": None if unknown is None else symbols[unknown],
    }
    for name in ("bos_token", "eos_token"):
        token = DEFAULT_TOKENS[name]
        tokens[name] = token if token in others else None
        others = [other for other in others if other != token]
    return {**tokens, "additional_special_tokens": others} if others else tokens


def _choose_language(path: Path, found: Json, language: str | None, target: str | None) -> dict[str, int]:
    """The flat symbol -> id table of a vocabulary that may be nested by language."""
    nested = [name for name, value in found.items() if isinstance(value, dict)]
    if nested:
        chosen = language or target
        if chosen not in nested:
            raise CheckpointError(
                f"{path}: `language` must be one of {', '.join(sorted(nested)[:20])}, "
                f"but is {chosen!r}{nearest(str(chosen), nested)}"
            )
        found = found[chosen]
    elif language is not None:
        raise CheckpointError(
            f"{path}: `language` must be None for a vocabulary without languages, but is {language!r}."
        )
    for symbol, index in found.items():
        if not isinstance(index, int) or isinstance(index, bool):
            raise CheckpointError(f"{path}: ids must be integers, but {symbol!r} has {index!r}.")
    return dict(found)


def _append_added(folder: Path, ids: dict[str, int], settings: Json) -> list[str]:
    """Append what the tokenizer adds behind `vocab.json` and the head has room for; list what is special."""
    decoder = settings.get("added_tokens_decoder") or {}
    added = {_content(token): int(index) for index, token in decoder.items()}
    special = [_content(token) for token in decoder.values() if token.get("special")]
    for token, index in _read_json(folder / "added_tokens.json").items():
        if token not in ids:
            added[token] = index
            special.append(token)
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = settings.get(name) or []
        special += map(_content, listed.values() if isinstance(listed, Mapping) else listed)
    # Tokenizers add <s> and </s> whether or not the head has outputs for them; only the head knows.
    num_outputs = _read_json(folder / "config.json").get("vocab_size", 0)
    for token, index in sorted(added.items(), key=lambda item: item[1]):
        if token not in ids and index == len(ids) < num_outputs:
            ids[token] = index
    return special


def _kind(settings: Json, symbols: list[str]) -> Kind:
    """Phones or characters, from the tokenizer's class, its settings, or as a last resort the symbols."""
    name = settings.get("tokenizer_class")
    if name:
        return "phones" if "Phoneme" in name else "characters"
    if "do_phonemize" in settings or "phone_delimiter_token" in settings:
        return "phones"
    # Old character models name no class, but have settings; a bare vocab.json has nothing but its symbols.
    is_bare = not settings
    return "phones" if is_bare and any(len(symbol) > 1 for symbol in symbols) else "characters"


def _content(token: str | Mapping[str, Any] | None) -> str:
    """The text of a token that is written as a string or as an object with settings; empty for none."""
    return str(token["content"]) if isinstance(token, Mapping) else token or ""


def _span(ids: Mapping[str, int]) -> str:
    """What is wrong with ids: the first one that is missing, else the first that occurs twice."""
    values = list(ids.values())
    missing = next((index for index in range(len(values)) if index not in values), None)
    return f"without {missing}" if missing is not None else "doubled"


def _read_json(path: Path) -> Json:
    """An object from a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: must be JSON in UTF-8, but cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, but holds a {type(found).__name__}.")
    return found


def _write_json(path: Path, content: Json) -> None:
    """Write beside, then rename, so that a full disk leaves the old file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
