"""The original's own settings, from any of its containers, as a `UniSpeechConfig`.

What a checkpoint's tensors show (widths, kernels, norms, codebooks) is read from their shapes; what they
cannot show (strides, heads, norm position, dropouts, masking, loss weights) from the settings saved beside
them. A fine-tuned file repeats the settings of its encoder under `w2v_args`; its other settings hold mere
defaults for the architecture and are not believed.

Shapes in this file: C conv channels, H hidden, G codebooks, V entries, F width of the projected codes, N
vocabulary.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from unispeech.checkpoints.torchfile import Standin, StoredTensor
from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError
from unispeech.frames import CONV_KERNEL, CONV_STRIDE

Stage = Literal["labelled", "continued", "fine-tuned"]
"""Stage 1 (CTC and contrastive), stage 2 (contrastive only) or 3 (CTC head for one vocabulary)."""

Section = dict[str, Any]

# Heads of the two published widths, for fine-tuned files that say nothing of their encoder.
_PUBLISHED_HEADS = {768: 12, 1024: 16}

_ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "swish": "silu",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a checkpoint says about itself, in plain Python types."""

    model: Section
    """Options of the trained model: dropouts, masking."""
    encoder: Section
    """Options under which the encoder's shape was set; empty where the file does not hold them."""
    task: Section
    """Options of the data: `normalize`, `dict_path`."""
    criterion: Section
    """Options of the loss."""
    notes: list[str] = field(default_factory=list)
    """What was assumed or left out, a sentence each."""

    def get(self, name: str, default: Any) -> Any:
        """An option of the model, else of its encoder, else `default`."""
        for section in (self.model, self.encoder):
            if section.get(name) is not None:
                return section[name]
        return default


def read_settings(content: Mapping[str, Any], path: Path) -> Settings:
    """Find the settings in one of the three containers.

    Args:
        content: What the file holds: `args` (a flat Namespace), else `cfg` (nested dictionaries, plain or
            OmegaConf's).
        path: The file, for messages.

    Returns:
        The sections; `encoder` is the model's own section, or `w2v_args` of a fine-tuned model.

    Raises:
        CheckpointError: If there are no settings.
    """
    try:
        args, cfg = _plain(content.get("args")), _plain(content.get("cfg"))
    except RecursionError as error:
        raise CheckpointError(f"{path}: its settings must not contain themselves, but do.") from error
    if isinstance(args, dict):
        model = task = criterion = args
    elif isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        cfg = _resolve(cfg, cfg)
        model = cfg["model"]
        task, criterion = (
            section if isinstance(section := cfg.get(name), dict) else {} for name in ("task", "criterion")
        )
    else:
        raise CheckpointError(
            f"{path}: must hold its settings as `args` or `cfg`, but holds {_names(content)}."
        )
    if not is_fine_tuned(model):
        return Settings(model=model, encoder=model, task=task, criterion=criterion)
    inner = model.get("w2v_args")
    if isinstance(inner, dict) and isinstance(inner.get("model"), dict):
        inner = inner["model"]
    return Settings(
        model=model, encoder=inner if isinstance(inner, dict) else {}, task=task, criterion=criterion
    )


def is_fine_tuned(model: Section) -> bool:
    """Whether settings are those of the fine-tuning model (`wav2vec_ctc`) and not of pre-training."""
    name = str(model.get("arch") or model.get("_name") or "")
    return name == "wav2vec_ctc" or (not name and "w2v_path" in model)


def _names(content: Mapping[str, Any]) -> str:
    return ", ".join(map(str, content)) or "nothing"


def _plain(value: Any) -> Any:
    """Turn stand-ins of Namespaces, of OmegaConf's containers and of enumerations into plain Python types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, Standin):
        return value
    state = value.state if isinstance(value.state, dict) else {}
    if "_content" in state:
        return _plain(state["_content"])
    if "_val" in state:
        return _plain(state["_val"])
    if value.name == "argparse.Namespace":
        return _plain(state)
    # What is left is an enumeration's member, made of its value, or nothing that a setting could be.
    return _plain(value.args[0]) if len(value.args) == 1 else None


def _resolve(value: Any, root: Section) -> Any:
    """Follow OmegaConf's references, `${task.normalize}`; its mark of a missing value becomes None."""
    if isinstance(value, dict):
        return {key: _resolve(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, root) for item in value]
    if not isinstance(value, str):
        return value
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value)
    if reference is None:
        return None if value == "???" else value
    target: Any = root
    for name in reference[1].split("."):
        target = target.get(name) if isinstance(target, dict) else None
    # One step is enough for fairseq's configurations, and a circle of references ends here.
    return None if isinstance(target, str) and "${" in target else target


def parse_conv_layers(text: Any, path: Path) -> list[tuple[int, int, int]]:
    """Read the (channels, kernel size, stride) of each convolution.

    Args:
        text: The original's expression of lists, `+` and `*`, such as "[(512, 10, 5)] + [(512, 3, 2)] * 4",
            or the list.
        path: The file, for messages.

    Returns:
        Three numbers for each layer, first layer first.

    Raises:
        CheckpointError: If `text` is anything else; it is parsed, never evaluated.
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return [value(item) for item in node.elts]
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            # No stack has a thousand layers: a larger product is an attack on the memory.
            if isinstance(node.op, ast.Mult) and len(left) * right < 1000:
                return left * right
        raise ValueError

    try:
        layers = value(ast.parse(text, mode="eval").body) if isinstance(text, str) else text
        return [(int(dim), int(kernel), int(stride)) for dim, kernel, stride in layers]
    except (SyntaxError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: `conv_feature_layers` must list (channels, kernel, stride), but is {text!r}."
        ) from error


def build_config(
    settings: Settings, tensors: Mapping[str, StoredTensor], stage: Stage, path: Path
) -> UniSpeechConfig:
    """Make the configuration of a checkpoint.

    Args:
        settings: Its settings; what has to be assumed is added to their notes.
        tensors: Its tensors under Hugging Face's names.
        stage: What the checkpoint is.
        path: The file, for messages.

    Returns:
        The configuration, with `architectures` set by the caller.

    Raises:
        CheckpointError: If the network has a part that UniSpeech's lacks, or its shape cannot be told.
    """
    _refuse_variants(settings, stage, path)
    try:
        fields = _shape(settings, tensors, path)
        if stage != "fine-tuned":
            fields |= _quantizer(tensors)
    except (IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path}: its weights must have UniSpeech's numbers of axes, but do not."
        ) from error
    fields |= _options(settings, stage)
    if stage != "fine-tuned":
        fields |= _objective(settings, stage, path)
    head = tensors.get("lm_head.weight") or tensors.get("ctc_proj.weight")
    if head is not None:
        # fairseq's dictionary appends <s> (the blank), <pad>, </s> and <unk> behind the symbols.
        num_classes = head.shape[0]
        fields |= {"vocab_size": num_classes, "pad_token_id": num_classes - 4}
        fields |= {"bos_token_id": num_classes - 3, "eos_token_id": num_classes - 2}
        if stage == "labelled":
            fields["num_ctc_classes"] = num_classes
    try:
        return UniSpeechConfig(**fields)
    except StrictDataclassError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error


def _refuse_variants(settings: Settings, stage: Stage, path: Path) -> None:
    """Refuse options that change the network beyond what UniSpeech's is."""
    refused = [("quantize_input", settings.encoder.get("quantize_input"), "off")]
    if stage != "fine-tuned":
        refused += [
            ("target_glu", settings.model.get("target_glu"), "off"),
            ("quantize_targets", not settings.model.get("quantize_targets"), "on"),
            ("transpose", not settings.model.get("transpose"), "on"),
        ]
    for name, is_refused, wanted in refused:
        if is_refused:
            raise CheckpointError(
                f"{path}: `{name}` must be {wanted}, but is {settings.encoder.get(name)!r}; "
                "UniSpeech's network has no such variant."
            )


def _shape(settings: Settings, tensors: Mapping[str, StoredTensor], path: Path) -> Section:
    """The fields of the encoder's shape: from the tensors, and what they do not show from the settings."""
    base = "unispeech."
    conv = f"{base}feature_extractor.conv_layers."
    layer = f"{base}encoder.layers."
    num_convs = len({name.split(".")[3] for name in tensors if name.startswith(conv)})
    num_layers = len({name.split(".")[3] for name in tensors if name.startswith(layer)})
    try:
        convs = [tensors[f"{conv}{i}.conv.weight"].shape for i in range(num_convs)]
        position = tensors[f"{base}encoder.pos_conv_embed.conv.parametrizations.weight.original1"].shape
        hidden = position[0]
        inner = (
            tensors[f"{layer}0.feed_forward.intermediate_dense.weight"].shape[0] if num_layers else 4 * hidden
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: missing weight {error.args[0]}; the file is not complete.") from error
    kernels = [shape[2] for shape in convs]
    norm = "layer" if f"{conv}1.layer_norm.weight" in tensors else "group"
    strides, heads, is_pre_norm = _unseen(settings, convs, hidden, norm, path)
    for name, seen in (("encoder_layers", num_layers), ("encoder_embed_dim", hidden)):
        stated = settings.encoder.get(name, seen)
        if stated != seen:
            raise CheckpointError(f"{path}: `{name}` must agree with the weights ({seen}), but is {stated}.")
    activation = settings.get("activation_fn", "gelu")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}: `activation_fn` must be one of {', '.join(_ACTIVATIONS)}, but is {activation!r}."
        )
    return {
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": _ACTIVATIONS[activation],
        "feat_extract_norm": norm,
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": f"{conv}0.conv.bias" in tensors,
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": hidden // position[1],
        "do_stable_layer_norm": is_pre_norm,
    }


def _unseen(
    settings: Settings, convs: list[tuple[int, ...]], hidden: int, norm: str, path: Path
) -> tuple[list[int], int, bool]:
    """Strides, number of heads and whether norms come first: no tensor shows them."""
    encoder = settings.encoder
    if "encoder_attention_heads" in encoder and "conv_feature_layers" in encoder:
        layers = parse_conv_layers(encoder["conv_feature_layers"], path)
        if [(dim, kernel) for dim, kernel, _ in layers] != [(shape[0], shape[2]) for shape in convs]:
            stated = encoder["conv_feature_layers"]
            raise CheckpointError(
                f"{path}: `conv_feature_layers` must agree with the weights, but is {stated!r}."
            )
        strides = [stride for _, _, stride in layers]
        return strides, encoder["encoder_attention_heads"], bool(encoder.get("layer_norm_first"))
    if hidden in _PUBLISHED_HEADS and [shape[2] for shape in convs] == list(CONV_KERNEL):
        settings.notes.append(
            "the file does not say how many attention heads it has; those of the published size are assumed"
        )
        return list(CONV_STRIDE), _PUBLISHED_HEADS[hidden], norm == "layer"
    raise CheckpointError(
        f"{path}: the settings of the encoder must be known, but a fine-tuned file of this kind lacks them; "
        "give the pre-trained file that it started from with --pretrained."
    )


def _quantizer(tensors: Mapping[str, StoredTensor]) -> Section:
    """The fields of the codebooks, from their tensors; what is missing is reported with the other weights."""
    try:
        codes = tensors["quantizer.codevectors"].shape
        width = tensors["project_q.weight"].shape
    except KeyError:
        return {}
    # The codebook's shape is (1, G * V, width / G).
    groups = width[1] // codes[2]
    return {
        "num_codevector_groups": groups,
        "num_codevectors_per_group": codes[1] // groups,
        "codevector_dim": width[1],
        "proj_codevector_dim": width[0],
    }


def _options(settings: Settings, stage: Stage) -> Section:
    """Dropouts and masks; where the settings are silent, the original's defaults hold."""
    fine_tuned = stage == "fine-tuned"
    layerdrop = settings.model.get("layerdrop") if fine_tuned else settings.model.get("encoder_layerdrop")
    fields = {
        "hidden_dropout": settings.get("dropout", 0.1),
        "attention_dropout": settings.get("attention_dropout", 0.1),
        "activation_dropout": settings.get("activation_dropout", 0.0),
        "feat_proj_dropout": settings.get("dropout_input", 0.0),
        "feat_quantizer_dropout": settings.get("dropout_features", 0.0),
        "final_dropout": settings.get("final_dropout", 0.0),
        "layerdrop": layerdrop if layerdrop is not None else 0.0,
        "feature_grad_mult": settings.get("feature_grad_mult", 1.0),
        "apply_spec_augment": bool(settings.model.get("apply_mask", True)) if fine_tuned else True,
        "mask_time_prob": settings.get("mask_prob", 0.65),
        "mask_time_length": settings.get("mask_length", 10),
        "mask_feature_prob": settings.get("mask_channel_prob", 0.0),
        "mask_feature_length": settings.get("mask_channel_length", 10),
    }
    if fine_tuned:
        # The paper's fine-tuning always ran with it; files that state it are believed.
        fields["ctc_zero_infinity"] = bool(settings.criterion.get("zero_infinity", True))
    for name, plain in (
        ("mask_selection", "static"),
        ("mask_channel_selection", "static"),
        ("no_mask_overlap", False),
        ("no_mask_channel_overlap", False),
        ("cross_sample_negatives", 0),
        ("codebook_negatives", 0),
    ):
        if (stated := settings.get(name, plain)) != plain:
            settings.notes.append(f"`{name}` is {stated!r}; training here uses {plain!r}")
    return fields


def _numbers(value: Any, name: str, path: Path) -> list[float]:
    """A list of numbers that may be written as a string."""
    try:
        return list(map(float, ast.literal_eval(value) if isinstance(value, str) else value))
    except (SyntaxError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: `{name}` must list numbers, but is {value!r}.") from error


def _objective(settings: Settings, stage: Stage, path: Path) -> Section:
    """The fields of the pre-training loss."""
    diversity, penalty = [
        *_numbers(settings.criterion.get("loss_weights") or [0.1], "loss_weights", path),
        0.0,
    ][:2]
    return {
        "contrastive_logits_temperature": settings.get("logit_temp", 0.1),
        "num_negatives": settings.get("num_negatives", 100),
        "negatives_from": "all" if settings.get("negatives_from_everywhere", False) else "masked",
        "gumbel_temperature": _numbers(settings.get("latent_temp", [2.0]), "latent_temp", path)[0],
        "diversity_loss_weight": diversity,
        "feature_penalty_weight": penalty,
        "replace_prob": settings.get("replace_prob", 0.5),
        "ctc_weight": settings.criterion.get("mtlalpha", 0.5) if stage == "labelled" else 0.0,
    }
