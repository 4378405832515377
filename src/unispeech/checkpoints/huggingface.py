"""Hugging Face directories and Hub ids: loaded strictly, saved beside their place and renamed.

Reading the files (safetensors, shards, `.bin` without arbitrary unpickling, weight-norm keys of either age)
is transformers' work; what is missing, unexpected or of another shape becomes one line here.
"""

import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging as transformers_logging

from unispeech.checkpoints.files import WEIGHTS
from unispeech.checkpoints.hub import is_hub_id, is_on_hub
from unispeech.configuration import UniSpeechConfig
from unispeech.decoding.calibration import CALIBRATION
from unispeech.errors import CheckpointError
from unispeech.models import (
    UniSpeechForCTC,
    UniSpeechForPreTraining,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
    UniSpeechPreTrainedModel,
)
from unispeech.models.adapters import check_vocabulary
from unispeech.phones import nearest
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

logger = logging.getLogger(__name__)

Head = Literal["auto", "ctc", "classification", "pretraining", "base"]

_CLASSES: dict[str, type[UniSpeechPreTrainedModel]] = {
    "ctc": UniSpeechForCTC,
    "classification": UniSpeechForSequenceClassification,
    "pretraining": UniSpeechForPreTraining,
    "base": UniSpeechModel,
}

_KINDS = {
    "lm_head.": ("fine-tuned", "UniSpeechForCTC"),
    "projector.": ("classification", "UniSpeechForSequenceClassification"),
    "classifier.": ("classification", "UniSpeechForSequenceClassification"),
    "quantizer.": ("pre-trained", "UniSpeechForPreTraining"),
    "project_q.": ("pre-trained", "UniSpeechForPreTraining"),
}
"""Start of a weight's name -> the kind of checkpoint that has it, and the class to load it as."""

_VERBS = {
    "UniSpeechForCTC": "run it with `unispeech transcribe`",
    "UniSpeechForSequenceClassification": "run it with `unispeech classify`",
    "UniSpeechForPreTraining": "make a recogniser of it with `unispeech finetune`",
}
"""Class -> what the command line does with its checkpoints."""

_OF_MODEL = ("config.json", "generation_config.json", CALIBRATION)

_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")

_UNLOADABLE = (
    OSError, EOFError, RuntimeError, SafetensorError, ValueError, TypeError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What transformers raises for broken files, and for a config.json with values of other kinds."""

_HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


def load_model(
    source: str | Path, *, head: Head = "auto", allow_missing: bool = False, **kwargs: Any
) -> UniSpeechPreTrainedModel:
    """Load a model with every weight, or say in one line which ones do not fit.

    Args:
        source: A model directory, or a Hub id such as "microsoft/unispeech-large-1500h-cv"; where there is a
            folder "a", "a/b" is no Hub id.
        head: Which class to load; "auto" takes the one that the configuration names.
        allow_missing: Whether weights that the checkpoint lacks, or has in another shape, may start afresh.
        kwargs: What `from_pretrained` takes: `revision`, `dtype`, `attn_implementation`, `target_lang`,
            fields of the configuration, ...

    Returns:
        The model in evaluation mode. Weights that the class has no place for are left out with a warning.

    Raises:
        ValueError: If `head` is unknown.
        FileNotFoundError: If a path is not there.
        CheckpointError: If `source` has no configuration or no weights, is of another model family, cannot
            be read or reached, or misses weights.
    """
    if head not in ("auto", *_CLASSES):
        raise ValueError(
            f"`head` must be one of auto, {', '.join(_CLASSES)}, but is {head!r}{nearest(head, _CLASSES)}"
        )
    _check_directory(source, str(kwargs.get("subfolder", "")))
    if not Path(source).is_dir() and not kwargs.get("local_files_only"):
        place = {key: kwargs[key] for key in ("subfolder", "revision", "token", "cache_dir") if key in kwargs}
        kwargs["local_files_only"] = not is_on_hub(source, **place)
    try:
        model_class = _class_for(source, head, {key: kwargs[key] for key in _HUB_OPTIONS if key in kwargs})
        with _quietly():
            loaded = model_class.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
    except CheckpointError:
        raise
    except StrictDataclassError as error:
        raise CheckpointError(f"{source}: config.json: {' '.join(str(error).split())}") from error
    except _UNLOADABLE as error:
        raise CheckpointError(f"{source}: cannot be loaded: {_first_line(error)}") from error
    model: UniSpeechPreTrainedModel = loaded[0]
    report = describe_mismatch(loaded[1], model_class.__name__)
    is_incomplete = bool(loaded[1]["missing_keys"] or loaded[1]["mismatched_keys"])
    if is_incomplete and not allow_missing:
        raise CheckpointError(f"{source}: {report}")
    # Whoever names the class knows that the weights of another head stay behind.
    if report and (is_incomplete or head == "auto"):
        logger.warning("%s: %s", source, report)
    return model


def describe_mismatch(info: dict[str, Any], class_name: str) -> str:
    """Say in one line how a checkpoint's weights differ from a model's.

    Args:
        info: `missing_keys`, `unexpected_keys` and `mismatched_keys` (name, shape in the file, shape in the
            model).
        class_name: The class that was loaded.

    Returns:
        What is missing, what has another shape, what has no place, and how to load the checkpoint instead;
        "" where all fit.
    """
    parts = []
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    shapes = [
        f"{name} {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]
    ]
    for what, names in (("missing", missing), ("mismatched", sorted(shapes)), ("unexpected", unexpected)):
        if names:
            parts.append(f"{what} {len(names)} weight{'s' if len(names) > 1 else ''} ({_listed(names)})")
    if not parts:
        return ""
    kind, proper = next(
        (found for start, found in _KINDS.items() if any(name.startswith(start) for name in unexpected)),
        ("", class_name),
    )
    if proper != class_name and (missing or shapes):
        return (
            f"{', '.join(parts)}; this looks like a {kind} checkpoint, load it as {proper} or "
            f"{_VERBS[proper]}."
        )
    if proper != class_name:
        return f"{', '.join(parts)}; they belong to a {kind} checkpoint, load it as {proper}."
    if missing or shapes:
        advice = "copy or save the checkpoint again, or let them start afresh by allow_missing=True in Python"
        return f"{', '.join(parts)}; {advice}."
    return f"{', '.join(parts)}; they are left out."


def save_model(
    model: PreTrainedModel,
    directory: str | Path,
    vocabulary: Vocabulary | None = None,
    *,
    do_normalize: bool | None = None,
    weights: Mapping[str, Tensor] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> None:
    """Write a model directory beside its place and put it there when it is whole.

    A failure on the way, a full disk for one, leaves an older checkpoint at the same place as it was. Other
    files of an older directory (a model card, adapters, the vocabulary where none is given) are kept.

    Args:
        model: One of our models.
        directory: Where it goes; its parents are created.
        vocabulary: Symbols of a CTC head, written in Hugging Face's layout.
        do_normalize: Whether the model takes waveforms of zero mean and unit variance. None keeps what the
            directory says, and means True for a new one.
        weights: What is written instead of the model's own weights, where other processes hold a part of
            those; None writes its own.
        write_more: Called with the new directory before it takes its place, for files that must change
            together with the model, such as the state of its training.

    Raises:
        ValueError: If `directory` holds the working directory.
        CheckpointError: If the vocabulary does not fit the head.
        OSError: If writing fails; the message names the path.
    """
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{directory}: must be a folder for the model, but is a file; name another.")
    if vocabulary is not None:
        check_vocabulary(vocabulary, model)
    if Path.cwd().resolve().is_relative_to(target):
        raise ValueError(
            f"`directory` must not hold the working directory, but is {str(directory)!r}; name a new one."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    _remove(fresh)
    try:
        fresh.mkdir()
        with _quietly():
            model.save_pretrained(fresh, state_dict=None if weights is None else dict(weights))
        _save_preprocessing(fresh, target, vocabulary, do_normalize)
        # safetensors makes files that only their owner may read; the configuration has the usual rights.
        for file in fresh.glob("*.safetensors"):
            file.chmod((fresh / "config.json").stat().st_mode)
        if write_more is not None:
            write_more(fresh)
        if target.is_dir():
            _carry_over(target, fresh)
        _swap(fresh, target)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{directory}: the model cannot be saved: {_first_line(error)}") from error
    finally:
        _remove(fresh)


def _check_directory(source: str | Path, subfolder: str) -> None:
    """Refuse a local path that is no model directory; what is no path at all is taken for a Hub id."""
    path = Path(source) / subfolder
    if path.is_file():
        raise CheckpointError(
            f"{path}: must be a model directory, but is a file; a fairseq .pt file is turned into one "
            "by `unispeech convert`."
        )
    if not path.is_dir():
        if not is_hub_id(source):
            raise FileNotFoundError(f"{path}: no such model directory; a Hub id has the form owner/name.")
        return
    if not (path / "config.json").is_file():
        models = [path / name for name in ("best", "last") if (path / name / "config.json").is_file()]
        advice = f"; it is a run, so name {models[0]}" if models else ""
        raise CheckpointError(f"{path}: must hold a model, but has no config.json{advice}.")
    if not any(any(path.glob(pattern)) for pattern in WEIGHTS):
        raise CheckpointError(
            f"{path}: must hold weights, but has neither model.safetensors nor pytorch_model.bin."
        )


def _class_for(source: str | Path, head: Head, hub_options: dict[str, Any]) -> type[UniSpeechPreTrainedModel]:
    """The class that was asked for, or that the configuration names."""
    content, _ = UniSpeechConfig.get_config_dict(source, **hub_options)
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: config.json must hold a JSON object, but does not; copy it again.")
    kind = content.get("model_type", UniSpeechConfig.model_type)
    if kind != UniSpeechConfig.model_type:
        raise CheckpointError(
            f"{source}: `model_type` must be {UniSpeechConfig.model_type!r}, but is {kind!r}."
        )
    if head != "auto":
        return _CLASSES[head]
    named = {model_class.__name__: model_class for model_class in _CLASSES.values()}
    for name in content.get("architectures") or []:
        if name in named:
            return named[name]
    raise CheckpointError(
        f"{source}: config.json must name one of {', '.join(named)} in `architectures`, "
        f"but names {content.get('architectures')}; write the right one there, or say which with `head`."
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers' table of differing weights and its progress bar off the screen."""
    loading = logging.getLogger("transformers.modeling_utils")
    had_progress = transformers_logging.is_progress_bar_enabled()

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    loading.addFilter(is_no_report)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        loading.removeFilter(is_no_report)
        if had_progress:
            transformers_logging.enable_progress_bar()


def _save_preprocessing(
    fresh: Path, target: Path, vocabulary: Vocabulary | None, do_normalize: bool | None
) -> None:
    """Write the vocabulary and how waveforms are prepared; older files stand where none is new."""
    normalizes = read_do_normalize(target) if do_normalize is None else do_normalize
    if vocabulary is not None:
        vocabulary.save(fresh, do_normalize=normalizes)
    elif do_normalize is not None or not any((target / name).is_file() for name in _PREPROCESSORS):
        Wav2Vec2FeatureExtractor(do_normalize=normalizes, return_attention_mask=True).save_pretrained(fresh)


def _carry_over(old: Path, fresh: Path) -> None:
    """Link or copy what an older directory has and the new one lacks, except its model."""
    for item in old.iterdir():
        place = fresh / item.name
        # A calibration is that of the older weights.
        is_model = item.name in _OF_MODEL or any(map(item.match, WEIGHTS))
        # Both preprocessor files say the same: when one is new, the other would contradict it.
        is_stale = item.name in _PREPROCESSORS and any((fresh / name).is_file() for name in _PREPROCESSORS)
        if place.exists() or is_model or is_stale:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, place, symlinks=True, copy_function=_link_or_copy)
        else:
            _link_or_copy(item, place)


def _link_or_copy(source: str | Path, place: str | Path) -> None:
    """Give a file a second name; where the disk cannot, a copy."""
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, place, follow_symlinks=False)


def _swap(fresh: Path, target: Path) -> None:
    """Put the new directory in the old one's place, and the old one back if that fails."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    _remove(old)
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(fresh, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    """Delete a directory of ours, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _listed(names: Sequence[str], most: int = 8) -> str:
    """Names separated by commas, the number of further ones in words."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: BaseException) -> str:
    """What an error of a library says, on one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
