"""Per-language adapters: one frozen encoder, a few small layers and a head for each language.

An adapter is a file `adapter.<lang>.safetensors` that holds the adapter layers and the CTC head of one
language. Ours also state the language, the vocabulary of the head and the encoder that they were trained on,
and all three are checked before anything is loaded. Files by others, and `adapter.<lang>.bin`, state nothing:
their names and shapes are checked, and a warning says that the rest could not be.

Source:
    Houlsby et al. 2019 (arXiv:1902.00751) for adapters, Pratap et al. 2023 (arXiv:2305.13516), section 5, for
    one per language; method and file names of transformers' `Wav2Vec2ForCTC`.
"""

import hashlib
import json
import logging
import os
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from unispeech.errors import CheckpointError
from unispeech.models.adapter_files import Adapter, check_symbols, find_adapter, read_adapter
from unispeech.models.base import UniSpeechPreTrainedModel
from unispeech.phones import nearest
from unispeech.text import Vocabulary

logger = logging.getLogger(__name__)

# Arguments by which PEFT's method of the same name, which PreTrainedModel brings along, is called.
_PEFT_ARGUMENTS = frozenset({
    "adapter_kwargs",
    "adapter_name",
    "adapter_state_dict",
    "hotswap",
    "is_trainable",
    "load_config",
    "low_cpu_mem_usage",
    "peft_config",
    "peft_model_id",
})

_HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "use_safetensors",
)

# What `from_pretrained` was asked with, so that an adapter is fetched as its model is.
_hub_options: ContextVar[dict[str, Any] | None] = ContextVar("hub_options", default=None)


class LanguageAdapters(UniSpeechPreTrainedModel):
    """What a CTC model with adapters can do; `UniSpeechForCTC` inherits it.

    A class that inherits sets `target_lang` and `lm_head` before `post_init`; the adapter of `target_lang` is
    then loaded as soon as the weights are there, in `tie_weights`, the hook that transformers calls at that
    moment.
    """

    target_lang: str | None = None
    """The language whose adapter is wanted or loaded."""
    adapter_vocabulary: Vocabulary | None = None
    """The symbols of the loaded adapter's head; None where no adapter is loaded or it states none."""
    lm_head: nn.Linear
    _loaded_lang: str | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any) -> Self:
        """Load a model as transformers does; with `target_lang`, that language's adapter too.

        Args:
            pretrained_model_name_or_path: A directory or a Hub id.
            args: Passed on.
            kwargs: Passed on: `target_lang`, Hub options, fields of the configuration, ...

        Returns:
            The model in evaluation mode.
        """
        options = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name) is not None}
        before = _hub_options.set(options)
        try:
            loaded: Self = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            _hub_options.reset(before)
        return loaded

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Load the adapter of `target_lang` once the weights are there. Called by transformers, not by users.

        Args:
            missing_keys: Weights that the checkpoint lacked; those that the adapter brings are taken out.
            recompute_mapping: Passed on.

        Raises:
            ValueError: If `target_lang` is set on a model without adapters.
        """
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)
        # Loaded once: transformers and accelerate call this again later, when training may have changed the
        # adapter.
        if self.target_lang in (None, self._loaded_lang) or any(p.is_meta for p in self.parameters()):
            return
        self.load_adapter(self.target_lang, **(_hub_options.get() or {}))
        if missing_keys is not None:
            missing_keys.difference_update(name for name, _ in self.adapter_parameters())

    def adapter_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The named parameters that belong to one language: adapter layers and head."""
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if ".adapter_layer." in name or name.startswith("lm_head.")
        ]

    def init_adapter_layers(self) -> None:
        """Give the adapter layers and the head fresh values, to train a new language.

        Raises:
            ValueError: If the model has no adapters.
        """
        self._check_has_adapters("init_adapter_layers")
        for name, module in self.named_modules():
            if ".adapter_layer" in name or name == "lm_head":
                # transformers skips what is marked as loaded.
                for parameter in module.parameters(recurse=False):
                    parameter._is_hf_initialized = False
                self._init_weights(module)
        self._loaded_lang, self.adapter_vocabulary = None, None

    def load_adapter(
        self,
        target_lang: str | Path | None = None,
        force_load: bool | str = True,
        *,
        source: str | Path | None = None,
        vocabulary: Vocabulary | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a language's adapter layers and head into this model.

        A head with another number of symbols replaces the model's, and `config.vocab_size` and
        `config.pad_token_id` follow. Nothing is changed when anything does not fit. Called with PEFT's
        arguments, or with a path, this is PEFT's `load_adapter`.

        Args:
            target_lang: The language, as the file is named: `adapter.<target_lang>.safetensors` or `.bin`.
            force_load: False leaves an adapter of this language that is loaded already as it is.
            source: Directory or Hub id that has the file; None: where the model came from.
            vocabulary: The symbols that the head must have; None: those that the file states.
            kwargs: Hub options: `revision`, `token`, `cache_dir`, `local_files_only`, `use_safetensors`, ...;
                or PEFT's arguments.

        Returns:
            None; or what PEFT returns.

        Raises:
            ValueError: If the model has no adapters or an argument is unknown.
            CheckpointError: If there is no such file, it is damaged, its weights do not fit, or its language,
                its vocabulary or its base model is another.
        """
        if _is_for_peft(target_lang, force_load, kwargs):
            if isinstance(force_load, str):
                kwargs["adapter_name"] = force_load
            # A path there is under one name or the other.
            return super().load_adapter(peft_model_id=kwargs.pop("peft_model_id", target_lang), **kwargs)
        assert isinstance(target_lang, str)
        self._check_has_adapters(f"target_lang={target_lang!r}")
        for unknown in kwargs.keys() - set(_HUB_ARGUMENTS):
            raise ValueError(
                f"`{unknown}` must be an option of the Hub, but is none{nearest(unknown, _HUB_ARGUMENTS)}"
            )
        if not force_load and target_lang == self._loaded_lang:
            return None
        place = source if source is not None else getattr(self.config, "_name_or_path", "")
        adapter = read_adapter(find_adapter(place, target_lang, **kwargs), target_lang)
        self._check_adapter(adapter, vocabulary)
        self._take_adapter(adapter, vocabulary)
        self.target_lang = self._loaded_lang = target_lang
        return None

    def save_adapter(self, directory: str | Path, target_lang: str, vocabulary: Vocabulary) -> Path:
        """Write the adapter layers and the head, with what they belong to; beside its place, then renamed.

        Args:
            directory: Created where it does not exist.
            target_lang: The language, for the name of the file: letters, digits, `-` and `_`.
            vocabulary: The symbols of the head.

        Returns:
            The file, `adapter.<target_lang>.safetensors`.

        Raises:
            ValueError: If the model has no adapters, or `target_lang` cannot be part of a file name.
            CheckpointError: If the vocabulary does not fit the head.
        """
        self._check_has_adapters("save_adapter")
        if not re.fullmatch(r"[\w-]+", target_lang):
            raise ValueError(
                f"`target_lang` must hold letters, digits, - and _ only, but is {target_lang!r}."
            )
        check_vocabulary(vocabulary, self)
        symbols: dict[str, object] = {
            "symbols": vocabulary.symbols,
            "blank": vocabulary.blank,
            "kind": vocabulary.kind,
            "word_boundary": vocabulary.word_boundary,
            "unknown": vocabulary.unknown,
            "special": sorted(vocabulary.special),
        }
        path = Path(directory) / f"adapter.{target_lang}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.touch()
            usual_rights = fresh.stat().st_mode
            save_file(
                {
                    name: parameter.detach().cpu().contiguous()
                    for name, parameter in self.adapter_parameters()
                },
                fresh,
                metadata={
                    "format": "pt",
                    "target_lang": target_lang,
                    "vocabulary": json.dumps(symbols, ensure_ascii=False),
                    "base_model": fingerprint(self),
                },
            )
            fresh.chmod(usual_rights)  # safetensors leaves files that only their owner may read
            os.replace(fresh, path)
        except SafetensorError as error:
            raise OSError(f"{path}: the adapter cannot be saved: {error}") from error
        finally:
            fresh.unlink(missing_ok=True)
        return path

    def _check_has_adapters(self, wanted_by: str) -> None:
        """Refuse a model without adapter layers."""
        if self.config.adapter_attn_dim is None:
            raise ValueError(
                f"`adapter_attn_dim` must be set for {wanted_by}, but is None; "
                "load the model with adapter_attn_dim=16, for one."
            )

    def _check_adapter(self, adapter: Adapter, vocabulary: Vocabulary | None) -> None:
        """Refuse an adapter that does not belong to this model; warn of one that does not say."""
        wanted = dict(self.adapter_parameters())
        for what, names in (
            ("missing", wanted.keys() - adapter.weights.keys()),
            ("unexpected", adapter.weights.keys() - wanted.keys()),
        ):
            if names:
                listed = ", ".join(sorted(names)[:5]) + (" and more" if len(names) > 5 else "")
                raise CheckpointError(f"{adapter.path}: {what} {len(names)} weights ({listed}).")
        for name, parameter in wanted.items():
            found, needed = tuple(adapter.weights[name].shape), tuple(parameter.shape)
            if found[1:] != needed[1:] or (found != needed and not name.startswith("lm_head.")):
                raise CheckpointError(f"{adapter.path}: `{name}` must have shape {needed}, but has {found}.")
        check_symbols(adapter, vocabulary)
        if adapter.base_model is None:
            logger.warning("%s: states no vocabulary and no base model; neither is checked.", adapter.path)
            return
        own = fingerprint(self)
        if adapter.base_model != own:
            raise CheckpointError(
                f"{adapter.path}: the base model must be the one that it was trained on "
                f"({adapter.base_model[:12]}), but is {own[:12]}."
            )

    @torch.no_grad()
    def _take_adapter(self, adapter: Adapter, vocabulary: Vocabulary | None) -> None:
        """Copy the weights of a checked adapter, and its head whatever its size."""
        num_classes = len(adapter.weights["lm_head.weight"])
        if num_classes != self.lm_head.out_features:
            old = self.lm_head.weight
            head = nn.Linear(self.lm_head.in_features, num_classes, device=old.device, dtype=old.dtype)
            self.lm_head = head.requires_grad_(old.requires_grad)
            self.config.vocab_size = num_classes
        for name, parameter in self.adapter_parameters():
            parameter.copy_(adapter.weights[name])
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        self.adapter_vocabulary = adapter.vocabulary or vocabulary
        if self.adapter_vocabulary is not None:
            self.config.pad_token_id = self.adapter_vocabulary.blank


def fingerprint(model: PreTrainedModel) -> str:
    """A hash of the encoder below adapters and head: equal for equal weights, whatever the device.

    Of every tensor it takes the name, the shape and up to 1024 values spread evenly, rounded to bfloat16, so
    that a model loaded in bfloat16 has the hash that it has in float32. That reads a thousandth of a large
    model, and training moves every tensor. The mask embedding is left out: it depends on the masking options
    whether there is one.

    Args:
        model: A model whose adapter layers are called `adapter_layer` and whose bare part is `unispeech`.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if (
            not name.startswith("unispeech.")
            or ".adapter_layer." in name
            or name.endswith("masked_spec_embed")
        ):
            continue
        flat = parameter.detach().flatten()
        sample = flat[:: max(flat.numel() // 1024, 1)][:1024].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(parameter.shape)} ".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def check_vocabulary(vocabulary: Vocabulary, model: PreTrainedModel) -> None:
    """Refuse a vocabulary that does not fit a CTC head.

    Args:
        vocabulary: The symbols.
        model: A model; one without a CTC head takes any.

    Raises:
        CheckpointError: If the numbers of symbols and classes differ, or the blanks do.
    """
    head = getattr(model, "lm_head", None) or getattr(model, "ctc_proj", None)
    if head is None:
        return
    vocabulary.check_head(head.out_features, model.config.pad_token_id)


def _is_for_peft(target_lang: str | Path | None, force_load: bool | str, kwargs: dict[str, Any]) -> bool:
    """Whether a call of `load_adapter` means PEFT's: by its arguments, or because a path is no language."""
    if not isinstance(target_lang, str) or isinstance(force_load, str) or kwargs.keys() & _PEFT_ARGUMENTS:
        return True
    return "/" in target_lang or (Path(target_lang) / "adapter_config.json").is_file()
