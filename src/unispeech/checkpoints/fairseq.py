"""The original's `.pt` files -> our models, without fairseq, omegaconf or a single line run from the file.

Three kinds are read: stage 1 (labelled pre-training; keys under `w2v_encoder.w2v_model.`, head
`w2v_encoder.proj`), stage 2 (continued pre-training; no prefix, no head) and fine-tuned (`wav2vec_ctc`; keys
as in stage 1, pre-training tensors left in but unused).

Source:
    Key names and containers: arXiv:2101.07597's release. Checked against models that the authors' code wrote.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unispeech.checkpoints.fairseq_settings import Settings, Stage, build_config, is_fine_tuned, read_settings
from unispeech.checkpoints.huggingface import save_model
from unispeech.checkpoints.torchfile import StoredTensor, TorchFile
from unispeech.configuration import UniSpeechConfig
from unispeech.data.dictionaries import read_symbols
from unispeech.errors import CheckpointError, ManifestError
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining
from unispeech.phones import WORD_BOUNDARY
from unispeech.text import Vocabulary

_PREFIX = "w2v_encoder.w2v_model."
_HEAD = "w2v_encoder.proj."

_ENCODER = "unispeech.encoder."
_CONV = "unispeech.feature_extractor.conv_layers."
_KEYS = [
    (r"mask_emb", "unispeech.masked_spec_embed"),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)", rf"{_CONV}\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(weight|bias)", rf"{_CONV}\1.layer_norm.\2"),
    (r"layer_norm\.(weight|bias)", r"unispeech.feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(weight|bias)", r"unispeech.feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.bias", f"{_ENCODER}pos_conv_embed.conv.bias"),
    (r"encoder\.pos_conv\.0\.weight_g", f"{_ENCODER}pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", f"{_ENCODER}pos_conv_embed.conv.parametrizations.weight.original1"),
    (
        r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(weight|bias)",
        rf"{_ENCODER}layers.\1.attention.\2_proj.\3",
    ),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)", rf"{_ENCODER}layers.\1.layer_norm.\2"),
    (
        r"encoder\.layers\.(\d+)\.fc1\.(weight|bias)",
        rf"{_ENCODER}layers.\1.feed_forward.intermediate_dense.\2",
    ),
    (r"encoder\.layers\.(\d+)\.fc2\.(weight|bias)", rf"{_ENCODER}layers.\1.feed_forward.output_dense.\2"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)", rf"{_ENCODER}layers.\1.final_layer_norm.\2"),
    (r"encoder\.layer_norm\.(weight|bias)", rf"{_ENCODER}layer_norm.\1"),
    (r"quantizer\.vars", "quantizer.codevectors"),
    (r"quantizer\.weight_proj\.(weight|bias)", r"quantizer.weight_proj.\1"),
    (r"project_q\.(weight|bias)", r"project_q.\1"),
    (r"final_proj\.(weight|bias)", r"project_hid.\1"),
]
"""The original's key as a pattern -> Hugging Face's."""

_PRE_TRAINING_ONLY = re.compile(r"quantizer\.|project_q\.|final_proj\.|target_glu\.")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A checkpoint of the original as one of our models."""

    model: UniSpeechForCTC | UniSpeechForPreTraining
    """`UniSpeechForCTC` of a fine-tuned file, else `UniSpeechForPreTraining`; float32, in evaluation mode."""
    stage: Stage
    """What the file was."""
    vocabulary: Vocabulary | None
    """The symbols of the head, if its dictionary was given."""
    do_normalize: bool
    """Whether the model takes waveforms of zero mean and unit variance."""
    notes: tuple[str, ...]
    """What was assumed, left out or added, a sentence each."""


def read_fairseq(
    path: str | Path, *, vocab: str | Path | None = None, pretrained: str | Path | None = None
) -> Converted:
    """Read a `.pt` file of the original.

    Args:
        path: The file, written by torch.save in its zip or its older format.
        vocab: The dictionary of the head, as `read_dictionary` takes it.
        pretrained: The file that a fine-tuned one started from, for one that does not repeat its settings.
            None looks for the recorded name beside `path`.

    Returns:
        The model with all that the file says about it.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointError: If the file is damaged, would run code, is no UniSpeech checkpoint, is a variant that
            UniSpeech's network does not have, or does not fit its dictionary.
    """
    path = Path(path)
    with TorchFile(path) as file:
        content = file.content
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise CheckpointError(
                f"{path}: must hold a fairseq checkpoint with `model`, but holds something else."
            )
        settings = read_settings(content, path)
        stage, stored = _rename(content["model"], settings, path)
        if not settings.encoder:
            settings = _with_encoder(settings, path, None if pretrained is None else Path(pretrained))
        config = build_config(settings, stored, stage, path)
        model = _load(file, stored, config, stage, settings.notes)
    vocabulary = None if vocab is None else read_dictionary(vocab, config.vocab_size)
    if vocabulary is not None and vocabulary.blank != config.pad_token_id:
        blank = vocabulary.blank
        model.config.update({"pad_token_id": blank, "bos_token_id": blank + 1, "eos_token_id": blank + 2})
        settings.notes.append(
            f"the blank is class {blank}: the special symbols of a text dictionary are taken to come first, "
            "as in the later release of the original; the first release put them last"
        )
    if vocabulary is None and stage == "fine-tuned":
        settings.notes.append(
            "no vocabulary was given: transcribing needs one; convert again with --vocab vocab.json"
        )
    return Converted(
        model=model.eval(),
        stage=stage,
        vocabulary=vocabulary,
        do_normalize=_normalizes(settings),
        notes=tuple(settings.notes),
    )


def convert_fairseq(
    path: str | Path,
    directory: str | Path,
    *,
    vocab: str | Path | None = None,
    pretrained: str | Path | None = None,
) -> Converted:
    """Turn a `.pt` file of the original into a Hugging Face directory.

    Args:
        path: As in `read_fairseq`.
        directory: Where the model goes; made beside and renamed.
        vocab: As in `read_fairseq`; written as `vocab.json` in Hugging Face's layout.
        pretrained: As in `read_fairseq`.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointError: As in `read_fairseq`.
    """
    converted = read_fairseq(path, vocab=vocab, pretrained=pretrained)
    save_model(converted.model, directory, converted.vocabulary, do_normalize=converted.do_normalize)
    return converted


def read_dictionary(path: str | Path, num_classes: int) -> Vocabulary:
    """Read the original's phone dictionary as the vocabulary of a head.

    Args:
        path: JSON object whose keys, in their order, are ids 0 to n - 1; its values are ignored, as the
            original does. Behind them the original appends `<s>` (its CTC blank), `<pad>`, `</s>` and
            `<unk>`. In fairseq's text files (`.txt`, lines `symbol count`) these come first, so that the
            blank is 0; single letters with a `|` among them are characters there.
        num_classes: N, width of the head.

    Returns:
        The vocabulary with the blank under the name `<pad>`, which Hugging Face's tokenizers take for it, and
        `<s>` for the original's padding. An empty phone, as some published dictionaries have, becomes the
        special symbol `<empty>`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no such dictionary, or does not have n = N - 4 phones.
    """
    try:
        dictionary = read_symbols(Path(path))
    except ManifestError as error:
        raise CheckpointError(str(error)) from error
    phones = [symbol or "<empty>" for symbol in dictionary.symbols]
    num_phones, first = len(phones), dictionary.first
    # <s>, fairseq's blank, and <pad> change their names.
    added = ("<pad>", "<s>", "</s>", "<unk>")
    if num_phones + len(added) != num_classes:
        raise CheckpointError(
            f"{path}: must have {num_classes - 4} phones for a head of {num_classes} classes "
            f"(4 are special), but has {num_phones}."
        )
    blank = 0 if first else num_phones
    is_spelling = first > 0 and all(len(phone) == 1 for phone in phones) and WORD_BOUNDARY in phones
    return Vocabulary(
        symbols=(*added, *phones) if first else (*phones, *added),
        blank=blank,
        kind="characters" if is_spelling else "phones",
        word_boundary=first + phones.index(WORD_BOUNDARY) if WORD_BOUNDARY in phones else None,
        unknown=blank + 3,
        special=frozenset({
            *range(blank, blank + 4),
            *(first + i for i, phone in enumerate(phones) if phone == "<empty>"),
        }),
    )


def _rename(
    model: Mapping[str, Any], settings: Settings, path: Path
) -> tuple[Stage, dict[str, StoredTensor]]:
    """Tell the stage by the keys and the settings, and give the tensors their new names."""
    model = {str(key): tensor for key, tensor in model.items()}
    prefixed = any(key.startswith(_PREFIX) for key in model)
    stage: Stage = "continued"
    if prefixed:
        stage = "fine-tuned" if is_fine_tuned(settings.model) else "labelled"
    renamed: dict[str, StoredTensor] = {}
    unused, unknown = 0, []
    for key, tensor in model.items():
        bare = key.removeprefix(_PREFIX)
        if key.startswith(_HEAD):
            name = ("lm_head." if stage == "fine-tuned" else "ctc_proj.") + key.removeprefix(_HEAD)
        elif stage == "fine-tuned" and _PRE_TRAINING_ONLY.match(bare):
            unused += 1
            continue
        else:
            name = next((re.sub(old, new, bare) for old, new in _KEYS if re.fullmatch(old, bare)), "")
        if not name or not isinstance(tensor, StoredTensor):
            unknown.append(key)
        else:
            renamed[name] = tensor
    if unknown:
        names = ", ".join(unknown[:5]) + (" and more" if len(unknown) > 5 else "")
        raise CheckpointError(f"{path}: must hold UniSpeech's weights only, but holds {names}.")
    if unused:
        settings.notes.append(f"{unused} tensors of pre-training (quantizer, projections) are left out")
    return stage, renamed


def _with_encoder(settings: Settings, path: Path, pretrained: Path | None) -> Settings:
    """Take the encoder's settings from the file that a fine-tuned one started from."""
    if pretrained is None:
        beside = path.parent / Path(str(settings.model.get("w2v_path") or "")).name
        if not beside.is_file() or beside.samefile(path):
            return settings
        pretrained = beside
        settings.notes.append(f"the encoder's settings are those of {beside.name}, found beside the file")
    with TorchFile(pretrained) as file:
        if not isinstance(file.content, dict):
            raise CheckpointError(f"{pretrained}: must hold a fairseq checkpoint, but holds something else.")
        encoder = read_settings(file.content, pretrained)
    return Settings(
        model=settings.model,
        encoder=encoder.encoder,
        task={**encoder.task, **settings.task},
        criterion=settings.criterion,
        notes=settings.notes,
    )


def _load(
    file: TorchFile,
    stored: Mapping[str, StoredTensor],
    config: UniSpeechConfig,
    stage: Stage,
    notes: list[str],
) -> UniSpeechForCTC | UniSpeechForPreTraining:
    """Make the model and fill every weight of it."""
    try:
        # Without memory for initial values: every weight comes from the file.
        with torch.device("meta"):
            model = UniSpeechForCTC(config) if stage == "fine-tuned" else UniSpeechForPreTraining(config)
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {name: file.read(tensor).float() for name, tensor in stored.items() if name in wanted}
    weights |= _stand_for_absent(weights, wanted, config, stage, notes)
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise CheckpointError(f"{file.path}: missing {len(missing)} weight{plural} ({', '.join(missing)}).")
    for name, shape in wanted.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(
                f"{file.path}: `{name}` must have shape {shape}, but has {tuple(weights[name].shape)}."
            )
    model.load_state_dict(weights, assign=True)
    return model


def _stand_for_absent(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    config: UniSpeechConfig,
    stage: Stage,
    notes: list[str],
) -> dict[str, Tensor]:
    """Weights that the original rightly lacks but our classes have."""
    filled: dict[str, Tensor] = {}
    projection = "unispeech.feature_projection.projection."
    if f"{projection}weight" not in weights and config.conv_dim[-1] == config.hidden_size:
        # The original leaves the projection out where both widths agree; the identity gives the same numbers.
        filled[f"{projection}weight"] = torch.eye(config.hidden_size)
        filled[f"{projection}bias"] = torch.zeros(config.hidden_size)
        notes.append("the file has no feature projection: the identity stands in for it")
    if stage == "continued":
        for name in ("ctc_proj.weight", "ctc_proj.bias"):
            filled[name] = torch.zeros(wanted[name])
        notes.append("stage 2 has no CTC head: the one of the model is all zeros")
    return filled


def _normalizes(settings: Settings) -> bool:
    """Whether the waveforms were normalised; the original's default is not to."""
    for section in (settings.task, settings.model, settings.encoder):
        if isinstance(section.get("normalize"), bool):
            return bool(section["normalize"])
    settings.notes.append(
        "the file does not say whether waveforms were normalised; the original's default is not to"
    )
    return False
