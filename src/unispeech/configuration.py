"""What a UniSpeech model is made of: Hugging Face's fields by their names, and ours beside them.

Every field that transformers' own UniSpeech configuration has is here with the same name, type and default,
so that a `config.json` travels both ways. The fields of the section "beyond transformers" change
nothing unless they are set.
"""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import field, fields
from functools import wraps
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from unispeech.frames import CONV_KERNEL, CONV_STRIDE, hop


def _within(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], None]:
    """A validator that accepts numbers from `low` to `high`."""

    def validate(value: Any) -> None:
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers:
            if not (low < number if open_low else low <= number) or not number <= high:
                if high == float("inf"):
                    wanted = f"be {'above' if open_low else 'at least'} {low:g}"
                else:
                    wanted = f"lie in {'(' if open_low else '['}{low:g}, {high:g}]"
                raise ValueError(f"it must {wanted}, but is {value!r}.")

    return validate


def _one_of(*choices: str) -> Callable[[Any], None]:
    """A validator that accepts the strings of a closed list."""

    def validate(value: Any) -> None:
        if value not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}, but is {value!r}.")

    return validate


def _activation(value: Any) -> None:
    """A validator that accepts the activation names of transformers."""
    from transformers.activations import ACT2FN

    if value not in ACT2FN:
        near = difflib.get_close_matches(str(value), list(ACT2FN), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(sorted(ACT2FN))}."
        raise ValueError(f"it must name an activation, but is {value!r}; {hint}")


def _checked(default: Any, validator: Callable[[Any], None]) -> Any:
    """A dataclass field whose values pass `validator`, at construction and at assignment."""
    return field(default=default, metadata={"validator": validator})


def _prob(default: float) -> Any:
    return _checked(default, _within(0, 1))


def _count(default: int | tuple[int, ...], least: int = 1) -> Any:
    return _checked(default, _within(least, float("inf")))


def _weight(default: float) -> Any:
    return _checked(default, _within(0, float("inf")))


def _in_one_line(config_class: Any) -> Any:
    """Have a strict dataclass say on one line which value it refuses; the types of its errors stay."""
    assign, validate = config_class.__setattr__, config_class.validate

    @wraps(assign)
    def assign_or_say(self: PreTrainedConfig, name: str, value: Any) -> None:
        try:
            assign(self, name, value)
        except StrictDataclassError as error:
            error.args = (_refusal(self, name, value, error.__cause__),)
            raise

    @wraps(validate)
    def validate_or_say(self: PreTrainedConfig) -> None:
        try:
            validate(self)
        except StrictDataclassError as error:
            error.args = (" ".join(str(error.__cause__ or error).split()),)
            raise

    config_class.__setattr__ = assign_or_say
    config_class.validate = validate_or_say
    return config_class


def _refusal(config: PreTrainedConfig, name: str, value: Any, cause: BaseException | None) -> str:
    """What is wrong with the value of a field, with the field's name."""
    if isinstance(cause, ValueError):  # of our validators, which do not know the name
        return f"`{name}` {str(cause).removeprefix('it ')}"
    kind = next(known.type for known in fields(config) if known.name == name)
    # A union says itself as it is written; a class by its name.
    named = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return f"`{name}` must be of type {named.replace('typing.', '')}, but is {value!r}."


@_in_one_line
@strict
class UniSpeechConfig(PreTrainedConfig):
    """Architecture and objective of a UniSpeech model.

    Types and ranges are checked when a value is given and when it is assigned; widths that must divide are
    checked by the model that cuts them. An unknown keyword that resembles a field is warned of by name.

    Raises:
        StrictDataclassError: If a value has the wrong type, lies out of its range or does not fit another;
            the message names the field, the condition and the value.

    Source:
        Field names and defaults: transformers 5.23, `UniSpeechConfig`. Meanings: arXiv:2101.07597 (UniSpeech)
        and arXiv:2006.11477 (wav2vec 2.0).
    """

    model_type = "unispeech"

    vocab_size: int = _count(32)
    """Classes of the CTC head N, the blank among them."""
    hidden_size: int = _count(768)
    """Width H of the Transformer."""
    num_hidden_layers: int = _count(12, 0)
    """Transformer layers."""
    num_attention_heads: int = _count(12)
    """Attention heads; must divide `hidden_size`."""
    intermediate_size: int = _count(3072)
    """Inner width of the feed-forward part."""
    hidden_act: str = _checked("gelu", _activation)
    """Activation of the feed-forward part."""
    hidden_dropout: float | int = _prob(0.1)
    """Dropout after attention, feed-forward and the positional convolution."""
    activation_dropout: float | int = _prob(0.1)
    """Dropout inside the feed-forward part, after the activation."""
    attention_dropout: float | int = _prob(0.1)
    """Dropout on attention probabilities."""
    feat_proj_dropout: float | int = _prob(0.0)
    """Dropout after the feature projection (the original's dropout_input)."""
    feat_quantizer_dropout: float | int = _prob(0.0)
    """Dropout on the latents that the quantizer sees (the original's dropout_features)."""
    final_dropout: float | int = _prob(0.1)
    """Dropout before the CTC head."""
    layerdrop: float | int = _prob(0.1)
    """Chance that a Transformer layer is left out of a training pass."""
    initializer_range: float | int = _weight(0.02)
    """Standard deviation of fresh linear weights."""
    layer_norm_eps: float | int = _checked(1e-5, _within(0, float("inf"), open_low=True))
    """Added to the variance in every layer norm."""
    feat_extract_norm: str = _checked("group", _one_of("group", "layer"))
    """Norm of the feature encoder: "group" in its first layer only (base models), "layer" in all (large)."""
    feat_extract_activation: str = _checked("gelu", _activation)
    """Activation of the feature encoder and of the positional convolution."""
    conv_dim: list[int] | tuple[int, ...] = _count((512, 512, 512, 512, 512, 512, 512))
    """Filters of each convolution, first layer first."""
    conv_stride: list[int] | tuple[int, ...] = _count(CONV_STRIDE)
    """Stride of each convolution."""
    conv_kernel: list[int] | tuple[int, ...] = _count(CONV_KERNEL)
    """Kernel size of each convolution."""
    conv_bias: bool = False
    """Whether the convolutions learn a bias."""
    num_conv_pos_embeddings: int = _count(128)
    """Kernel size of the positional convolution, in frames."""
    num_conv_pos_embedding_groups: int = _count(16)
    """Groups of the positional convolution; must divide `hidden_size`."""
    do_stable_layer_norm: bool = False
    """Whether layers normalise before (large) instead of after (base) attention and feed-forward."""
    apply_spec_augment: bool = True
    """Whether training passes mask time and channels; False also ignores a given `mask_time_indices`."""
    mask_time_prob: float | int = _prob(0.05)
    """Share of frames covered by time masks before overlaps are counted."""
    mask_time_length: int = _count(10)
    """Frames in one time mask."""
    mask_time_min_masks: int = _count(2, 0)
    """Least number of time masks in an utterance that is long enough for one."""
    mask_feature_prob: float | int = _prob(0.0)
    """Share of channels covered by channel masks before overlaps are counted."""
    mask_feature_length: int = _count(10)
    """Channels in one channel mask."""
    mask_feature_min_masks: int = _count(0, 0)
    """Least number of channel masks."""
    num_codevectors_per_group: int = _count(320)
    """Entries V of each codebook."""
    num_codevector_groups: int = _count(2)
    """Codebooks G; must divide `codevector_dim`."""
    contrastive_logits_temperature: float | int = _checked(0.1, _within(0, float("inf"), open_low=True))
    """Divisor of the cosines in the contrastive loss."""
    num_negatives: int = _count(100)
    """Negatives K for each target frame."""
    codevector_dim: int = _count(256)
    """Width of a quantized latent, all codebooks together."""
    proj_codevector_dim: int = _count(256)
    """Width F between the two projections of a quantized latent."""
    diversity_loss_weight: float | int = _weight(0.1)
    """Weight of the diversity loss beside the contrastive loss."""
    ctc_loss_reduction: str = _checked("mean", _one_of("sum", "mean"))
    """`UniSpeechForCTC`: "sum" over utterances, or "mean" of each loss over its target length."""
    ctc_zero_infinity: bool = False
    """Targets longer than their frames never give an infinite loss; False warns of them, by utterance."""
    use_weighted_layer_sum: bool = False
    """Whether classification reads a learned mix of all layers instead of the last."""
    classifier_proj_size: int = _count(256)
    """Width of the classification projection, before pooling."""
    num_ctc_classes: int = _count(80)
    """Classes of the pre-training CTC head, the blank among them."""
    pad_token_id: int | None = 0
    """The CTC blank."""
    bos_token_id: int | None = 1
    """Kept for tokenizers; the network does not read it."""
    eos_token_id: int | list[int] | None = 2
    """Kept for tokenizers; the network does not read it."""
    replace_prob: float | int = _prob(0.5)
    """Chance that a frame's context is replaced by its quantized latent before the pre-training CTC head."""

    # Beyond transformers: with these defaults nothing changes.
    adapter_attn_dim: int | None = None
    """Inner width of the per-language adapter in every layer; None: no adapters."""
    ctc_weight: float | int = _prob(0.5)
    """Weight alpha of CTC in pre-training; the contrastive part has 1 - alpha (the original's mtlalpha)."""
    negatives_from: str = _checked("masked", _one_of("masked", "all"))
    """Negatives come from the utterance's "masked" frames (stage 2) or from "all" its frames (stage 1)."""
    exclude_equal_negatives: bool = False
    """Whether negatives with the codes of the positive are left out of the contrastive loss."""
    gumbel_temperature: float | int = _checked(2.0, _within(0, float("inf"), open_low=True))
    """Temperature of the Gumbel softmax; `set_gumbel_temperature` writes it, saving keeps it."""
    feature_penalty_weight: float | int = _weight(0.0)
    """Weight of the mean square of the convolutions' output in pre-training."""
    feature_grad_mult: float | int = _prob(1.0)
    """Factor on the gradient that enters the feature encoder; 0 runs it without a graph."""
    frame_count_rule: str = _checked("convolution", _one_of("convolution", "original"))
    """Frames of a padded row: by the "convolution" formula, or by the "original" code's (0 to 2 more)."""
    group_norm_over_padding: bool = False
    """True normalises over padding too and takes the mask's sums for lengths: transformers' numbers."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Warn of misspelt keywords, then let the base class store the rest."""
        self.num_feat_extract_layers = len(self.conv_dim)
        if kwargs.get("add_adapter"):
            raise ValueError(
                "`add_adapter` must be False: UniSpeech has no convolutional adapter; "
                "per-language adapters are made with `adapter_attn_dim`."
            )
        _warn_of_misspelt_fields(kwargs, [f.name for f in fields(self)])
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check that the convolutions are described by lists of one length.

        Raises:
            ValueError: If the convolution lists differ in length.
        """
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise ValueError(
                "`conv_dim`, `conv_stride` and `conv_kernel` must have equal lengths, "
                f"but have {len(self.conv_dim)}, {len(self.conv_stride)} and {len(self.conv_kernel)}."
            )

    def check_divides(self, whole: str, part: str) -> None:
        """Check that one width can be cut into equal parts.

        A configuration alone may be inconsistent, as in transformers, where one is filled field by field; the
        model that needs the parts asks.

        Args:
            whole: Field that holds the width.
            part: Field that holds the number of parts.

        Raises:
            ValueError: If a rest is left.
        """
        total, parts = getattr(self, whole), getattr(self, part)
        if total % parts:
            raise ValueError(
                f"`{whole}` ({total}) must be a multiple of `{part}` ({parts}), but leaves {total % parts}."
            )

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples between two frames: the product of the strides."""
        return hop(self.conv_stride)


def _warn_of_misspelt_fields(unknown: dict[str, Any], known: list[str]) -> None:
    """Warn of every unknown keyword that is a small slip away from a field's name."""
    for key in unknown:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.88)
        if near and not key.startswith("_"):
            warnings.warn(
                f"`{key}` is not a field of UniSpeechConfig; did you mean `{near[0]}`? "
                "It is stored, but changes nothing.",
                stacklevel=4,
            )


LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "codevector_dim": 768,
    "proj_codevector_dim": 768,
}
"""The released Large size, as its differences from Base."""


def base_config(**overrides: Any) -> UniSpeechConfig:
    """The Base size: 12 layers of 768, group norm, norms after each part (94.4 million parameters).

    Args:
        overrides: Fields to set differently.

    Returns:
        A fresh configuration.
    """
    return UniSpeechConfig(**overrides)


def large_config(**overrides: Any) -> UniSpeechConfig:
    """The released Large size (317 million parameters).

    Args:
        overrides: Fields to set differently.

    Returns:
        A fresh configuration.

    Source:
        The stage-1 script of the UniSpeech release; microsoft/unispeech-large-1500h-cv.
    """
    return UniSpeechConfig(**(LARGE | overrides))
