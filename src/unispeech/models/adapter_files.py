"""Adapter files: found, read, and held against what they state. They know no model.

The header of an `adapter.<lang>.safetensors` of ours states the language, the vocabulary and the base model.
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unispeech.errors import CheckpointError
from unispeech.phones import nearest
from unispeech.text import Vocabulary

_FILES = ("adapter.{}.safetensors", "adapter.{}.bin")

# What a damaged, foreign or hostile file makes its readers raise.
_UNREADABLE = (
    SafetensorError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter file, read and not yet loaded."""

    path: Path
    """Where it was read from."""
    weights: dict[str, Tensor]
    """Adapter layers and head, under the model's names."""
    language: str | None
    """The language that it states, None in files by others."""
    vocabulary: Vocabulary | None
    """The symbols of its head, None in files by others."""
    base_model: str | None
    """`fingerprint` of the encoder that it was trained on, None in files by others."""


def find_adapter(
    source: str | Path, target_lang: str, *, use_safetensors: bool | None = None, **hub_options: Any
) -> Path:
    """Find the file of a language's adapter.

    Args:
        source: A directory or a Hub id.
        target_lang: The language.
        use_safetensors: True or False for that format only; None prefers it.
        hub_options: What `huggingface_hub.hf_hub_download` takes.

    Returns:
        The file, fetched where `source` is a Hub id.

    Raises:
        CheckpointError: If there is none.
    """
    names = [name.format(target_lang) for name in _FILES]
    if use_safetensors is not None:
        names = names[:1] if use_safetensors else names[1:]
    folder = Path(source) / str(hub_options.get("subfolder", ""))
    if str(source) and folder.is_dir():
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is not None:
            return found
        languages = {path.name.split(".")[1] for path in folder.glob("adapter.*.*")}
        there = f"has those of {', '.join(sorted(languages))}" if languages else "has none"
        raise CheckpointError(
            f"{folder}: must have an adapter of {target_lang!r} ({' or '.join(names)}), "
            f"but {there}{nearest(target_lang, languages)}"
        )
    hub_options.pop("proxies", None)
    for name in names:
        try:
            return Path(hf_hub_download(str(source), name, **hub_options))
        except EntryNotFoundError:
            continue
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise CheckpointError(
                f"`source` must be a directory or a Hub id that has adapters, but is {str(source)!r}."
            ) from error
    raise CheckpointError(f"{source}: must have an adapter of {target_lang!r}, but has none.")


def read_adapter(path: Path, target_lang: str) -> Adapter:
    """Read an adapter file and what it states.

    Args:
        path: `adapter.<lang>.safetensors`, or a `.bin` that torch.save wrote of a dictionary of tensors.
        target_lang: The language that it must have.

    Returns:
        Its weights, on the CPU, and its statements.

    Raises:
        CheckpointError: If it is damaged, would run code, or states another language.
    """
    stated: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stated = file.metadata() or {}
                names = file.keys()
                weights = {name: file.get_tensor(name) for name in names}
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(weights, dict) or not all(
                isinstance(item, Tensor) for item in weights.values()
            ):
                raise ValueError("it holds no dictionary of tensors")
        vocabulary = None
        if "vocabulary" in stated:
            fields = json.loads(stated["vocabulary"])
            vocabulary = Vocabulary(**{
                **fields,
                "symbols": tuple(fields["symbols"]),
                "special": frozenset(fields["special"]),
            })
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: must be an adapter file, but cannot be read ({reason}).") from error
    if stated.get("target_lang", target_lang) != target_lang:
        raise CheckpointError(
            f"{path}: the language must be {target_lang!r}, but is {stated['target_lang']!r}."
        )
    return Adapter(
        path=path,
        weights=weights,
        language=stated.get("target_lang"),
        vocabulary=vocabulary,
        base_model=stated.get("base_model"),
    )


def check_symbols(adapter: Adapter, wanted: Vocabulary | None) -> None:
    """Refuse a head whose symbols are not those that are stated, wanted or listed beside it.

    Args:
        adapter: The adapter; its directory's `vocab.json` counts where that holds several languages.
        wanted: The symbols that the caller asks for; None: any.

    Raises:
        CheckpointError: If the number of symbols or a symbol differs.
    """
    num_classes = len(adapter.weights["lm_head.weight"])
    beside = None
    try:
        nested = json.loads((adapter.path.parent / "vocab.json").read_text(encoding="utf-8"))
        language = adapter.path.name.split(".")[1]
        if isinstance(nested.get(language), dict):
            beside = Vocabulary.load(adapter.path.parent, language=language)
    except (AttributeError, FileNotFoundError, json.JSONDecodeError):
        pass  # no vocabulary of several languages: nothing to compare with
    stated = adapter.vocabulary
    for name, other in (("its own vocabulary", stated), ("vocab.json", beside), ("`vocabulary`", wanted)):
        if other is None:
            continue
        if len(other) != num_classes:
            raise CheckpointError(
                f"{adapter.path}: the head must have a class for each of the {len(other)} symbols of {name}, "
                f"but has {num_classes}."
            )
        if stated is not None and other.symbols != stated.symbols:
            pairs = zip(stated.symbols, other.symbols, strict=True)
            index = next(i for i, (one, another) in enumerate(pairs) if one != another)
            raise CheckpointError(
                f"{adapter.path}: its vocabulary must be that of {name}, but symbol {index} is "
                f"{stated.symbols[index]!r} instead of {other.symbols[index]!r}."
            )
