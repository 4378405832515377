"""The bare model: waveform -> latents -> context, with padding, masks and initial values.

Shapes in this file: B batch, S samples, T frames, C conv channels, H hidden.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import Wav2Vec2BaseModelOutput
from transformers.utils import logging

from unispeech.configuration import UniSpeechConfig
from unispeech.frames import lengths_to_is_padding, num_frames, receptive_field
from unispeech.masking import sample_spans
from unispeech.models.encoder import Encoder
from unispeech.models.features import FanInLinear, FeatureEncoder, FeatureProjection
from unispeech.models.position import WeightNormConv, WeightNormParameters
from unispeech.models.quantizer import GumbelVectorQuantizer, UnitNormalLinear

logger = logging.get_logger(__name__)


@dataclass
class UniSpeechBaseModelOutput(Wav2Vec2BaseModelOutput):
    """transformers' base output, and the penalty where the configuration weighs it."""

    feature_penalty: Tensor | None = None
    """Scalar mean square of the convolutions' output, padding included; None where its weight is 0."""


Length = TypeVar("Length", int, Tensor)


class UniSpeechPreTrainedModel(PreTrainedModel):
    """What the four models share: loading, saving, initial values, frame counts, freezing."""

    config: UniSpeechConfig
    config_class = UniSpeechConfig
    base_model_prefix = "unispeech"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    # Trainer reads this: our losses are not normalised by its `num_items_in_batch`, so it must divide each
    # micro-batch's loss by their number, and accumulation then gives the full batch's gradient.
    accepts_loss_kwargs = False
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _no_split_modules = ["UniSpeechEncoderLayer", "FeatureConvLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give a module's own parameters their initial values; transformers guards those that were loaded."""
        if isinstance(module, WeightNormParameters):
            module.reset_parameters(
                keep_magnitude=getattr(module.original0, "_is_hf_initialized", False),
                keep_direction=getattr(module.original1, "_is_hf_initialized", False),
            )
        elif isinstance(module, GumbelVectorQuantizer):
            nn.init.uniform_(module.codevectors)
        elif isinstance(module, UnitNormalLinear):
            nn.init.normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, FanInLinear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                bound = (module.in_channels * module.kernel_size[0] / module.groups) ** -0.5
                nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, UniSpeechModel):
            if hasattr(module, "masked_spec_embed"):
                nn.init.uniform_(module.masked_spec_embed)
        elif isinstance(module, WeightNormConv):
            nn.init.zeros_(module.bias)
        elif (layer_weights := getattr(module, "layer_weights", None)) is not None:
            nn.init.constant_(layer_weights, 1.0 / layer_weights.numel())
        else:
            super()._init_weights(module)

    def _get_feat_extract_output_lengths(self, input_lengths: Length) -> Length:
        """Frames of waveforms of so many samples, 0 below the receptive field; transformers' name."""
        return num_frames(input_lengths, self.config.conv_kernel, self.config.conv_stride)

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor
    ) -> Tensor:
        """(B, S) sample mask -> (B, T) boolean, True at valid frames; transformers' name."""
        lengths = self.frame_lengths(attention_mask.sum(dim=-1).long(), attention_mask.shape[-1])
        return ~lengths_to_is_padding(lengths, feature_vector_length)

    def frame_lengths(self, num_samples: Tensor, padded_samples: int) -> Tensor:
        """Valid frames of the rows of a padded batch, by `config.frame_count_rule`.

        Args:
            num_samples: (B,) valid samples of each row.
            padded_samples: Width S of the batch.

        Returns:
            (B,) integers in [0, T].

        Source:
            "original": the released code folds the samples into T groups of floor(S / T) and calls a frame
            padded when its whole group is.
        """
        if self.config.frame_count_rule == "original":
            width = int(self._get_feat_extract_output_lengths(padded_samples))
            group = max(padded_samples // max(width, 1), 1)
            return ((num_samples + group - 1) // group).clamp(max=width)
        return self._get_feat_extract_output_lengths(num_samples)

    def freeze_feature_encoder(self) -> None:
        """Stop the convolutions from learning; their activations are then not kept."""
        self._base().feature_extractor._freeze_parameters()

    def _base(self) -> "UniSpeechModel":
        """The bare model inside this one."""
        return cast(UniSpeechModel, getattr(self, self.base_model_prefix, self))

    def _wants_dict(self, return_dict: bool | None) -> bool:
        """Whether to answer with an output object: as asked, else as configured."""
        return bool(self.config.return_dict if return_dict is None else return_dict)


def freeze(module: nn.Module) -> None:
    """Stop every parameter of `module` from learning."""
    for parameter in module.parameters():
        parameter.requires_grad = False


def pack_samples(waveform: Tensor, is_valid: Tensor) -> Tensor:
    """Move each row's valid samples to the front and fill up with zeros.

    So padding on the left, or a hole, is padding on the right for everything behind.

    Args:
        waveform: (B, S).
        is_valid: (B, S) boolean.

    Returns:
        (B, S).
    """
    width = waveform.shape[1]
    place = (is_valid.long().cumsum(dim=1) - 1).masked_fill(~is_valid, width)
    # The invalid ones share one column behind the end, which is cut off.
    return F.pad(torch.zeros_like(waveform), (0, 1)).scatter(1, place, waveform)[:, :width]


def wanted_states(asked: bool | Sequence[int] | None, num_layers: int) -> Collection[int] | None:
    """Which hidden states to keep: all, those listed (-1 is the last), or None for none."""
    if asked is None or asked is False:
        return None
    if asked is True:
        return range(num_layers + 1)
    return {i % (num_layers + 1) for i in asked if -num_layers - 1 <= i <= num_layers}


class UniSpeechModel(UniSpeechPreTrainedModel):
    """Waveform -> context: feature encoder, projection, masks, Transformer.

    A batch gives what its rows give alone: with an attention mask, group norm looks at each utterance's own
    frames and the samples that the mask leaves out take part in nothing. An utterance shorter than the
    receptive field has no valid frame.

    Args:
        config: Sizes and behaviour.

    Source:
        arXiv:2101.07597, section 3; arXiv:2006.11477, section 2.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        if not isinstance(config, UniSpeechConfig):
            raise TypeError(
                f"`config` must be a unispeech.UniSpeechConfig, but is a {type(config).__module__}."
                f"{type(config).__name__}; make it with UniSpeechConfig.from_dict(config.to_dict())."
            )
        super().__init__(config)
        config.check_divides("hidden_size", "num_attention_heads")
        config.check_divides("hidden_size", "num_conv_pos_embedding_groups")
        self.feature_extractor = FeatureEncoder(
            config.conv_dim,
            config.conv_kernel,
            config.conv_stride,
            norm=config.feat_extract_norm,
            bias=config.conv_bias,
            activation=config.feat_extract_activation,
            grad_mult=config.feature_grad_mult,
        )
        self.feature_projection = FeatureProjection(
            config.conv_dim[-1],
            config.hidden_size,
            eps=config.layer_norm_eps,
            dropout=config.feat_proj_dropout,
        )
        if config.mask_time_prob > 0 or config.mask_feature_prob > 0:
            self.masked_spec_embed = nn.Parameter(torch.zeros(config.hidden_size))
        self.encoder = Encoder(config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | Sequence[int] | None = None,
        return_dict: bool | None = None,
        generator: torch.Generator | None = None,
        kept_layers: Tensor | None = None,
    ) -> tuple[Tensor, ...] | UniSpeechBaseModelOutput:
        """Encode a batch of waveforms.

        Args:
            input_values: (B, S) float waveforms at 16 kHz, normalised as the checkpoint wants.
            attention_mask: (B, S), non-zero at samples that belong to the utterance, wherever they stand;
                None: all do.
            mask_time_indices: (B, T), non-zero at frames that the mask embedding replaces, in evaluation too;
                None: drawn in training by `config.mask_time_prob`. Ignored when `config.apply_spec_augment`
                    is False.
            output_attentions: Whether to return attention maps; they are computed by the eager path.
            output_hidden_states: True for all num_layers + 1 states, or a list of those wanted.
            return_dict: False for a plain tuple; None: as configured.
            generator: Source of the masks and of LayerDrop; None takes torch's own.
            kept_layers: (num_layers,) boolean, False for layers that this pass leaves out; None: drawn in
                training by `config.layerdrop`.

        Returns:
            `last_hidden_state` (B, T, H), the context; `extract_features` (B, T, C), the normalised latents;
            and what was asked for. The valid frames of a row come first.

        Raises:
            ValueError: If a shape does not fit, or a mask is given to a model without a mask embedding.
            TypeError: If `input_values` is not a float tensor.
        """
        check_waveforms(input_values, attention_mask)
        latents, frame_lengths = self.encode_features(input_values, attention_mask)
        penalty = latents.float().square().mean() if self.config.feature_penalty_weight > 0 else None
        hidden, latents = self.feature_projection(latents.transpose(1, 2))  # (B, C, T) -> (B, T, C)
        hidden = self._mask(hidden, frame_lengths, mask_time_indices, generator)
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_attentions and self.config._attn_implementation != "eager":
            logger.warning_once(
                f"`{self.config._attn_implementation}` attention gives no maps: `output_attentions=True` "
                'takes the eager path; load with attn_implementation="eager" to silence this.'
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        context, states, maps = self.encoder(
            hidden,
            None if frame_lengths is None else lengths_to_is_padding(frame_lengths, hidden.shape[1]),
            is_kept=self._draw_layers(kept_layers, generator),
            keep_hidden_states=wanted_states(output_hidden_states, self.config.num_hidden_layers),
            output_attentions=bool(output_attentions),
        )
        if input_values.shape[1] < self._receptive_field():  # the one frame was made of padding
            context, latents = context[:, :0], latents[:, :0]
            states = None if states is None else tuple(s if s is None else s[:, :0] for s in states)
            maps = None if maps is None else tuple(m[..., :0, :0] for m in maps)
        output = UniSpeechBaseModelOutput(
            last_hidden_state=context,
            extract_features=latents,
            hidden_states=states,
            attentions=maps,
            feature_penalty=penalty,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def encode_features(
        self, input_values: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the convolutions, each row over its own samples.

        Args:
            input_values: (B, S).
            attention_mask: (B, S) or None.

        Returns:
            (B, C, T) latents, T at least 1; and the (B,) valid frames of each row, None where all T are
            valid.
        """
        width = input_values.shape[1]
        frame_lengths = self.valid_frames(input_values, attention_mask)
        num_samples = None
        if attention_mask is not None and not self.config.group_norm_over_padding:
            is_valid = attention_mask != 0
            num_samples = is_valid.sum(dim=1)
            input_values = pack_samples(input_values, is_valid)
        if width < self._receptive_field():
            input_values = F.pad(input_values, (0, self._receptive_field() - width))
        return self.feature_extractor(input_values, num_samples), frame_lengths

    def valid_frames(self, input_values: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """The (B,) valid frames of each row, None where every frame of the batch is valid."""
        width = input_values.shape[1]
        if attention_mask is not None:
            return self.frame_lengths((attention_mask != 0).sum(dim=1), width)
        if width < self._receptive_field():
            return torch.zeros(len(input_values), dtype=torch.long, device=input_values.device)
        return None

    def sample_time_mask(
        self, frame_lengths: Tensor, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw (B, T) time masks as the configuration says, True at masked frames."""
        return sample_spans(
            frame_lengths,
            width,
            prob=self.config.mask_time_prob,
            span_length=self.config.mask_time_length,
            min_spans=self.config.mask_time_min_masks,
            generator=generator,
        )

    def _mask(
        self,
        hidden: Tensor,
        frame_lengths: Tensor | None,
        mask_time_indices: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Put the mask embedding at masked frames, then zeros at masked channels."""
        if not self.config.apply_spec_augment:
            return hidden
        B, T, H = hidden.shape
        if mask_time_indices is not None:
            is_masked = self._check_time_mask(mask_time_indices, hidden)
        elif self.training and self.config.mask_time_prob > 0:
            full = torch.full((B,), T, device=hidden.device) if frame_lengths is None else frame_lengths
            is_masked = self.sample_time_mask(full, T, generator)
        else:
            is_masked = None
        if is_masked is not None:
            hidden = torch.where(is_masked[..., None], self.masked_spec_embed.to(hidden.dtype), hidden)
        if self.training and self.config.mask_feature_prob > 0:
            channels = sample_spans(
                torch.full((B,), H, device=hidden.device),
                H,
                prob=self.config.mask_feature_prob,
                span_length=self.config.mask_feature_length,
                min_spans=self.config.mask_feature_min_masks,
                generator=generator,
            )
            hidden = hidden.masked_fill(channels[:, None], 0.0)
        return hidden

    def _check_time_mask(self, mask_time_indices: Tensor, hidden: Tensor) -> Tensor:
        """A given time mask as booleans."""
        if not hasattr(self, "masked_spec_embed"):
            raise ValueError(
                "`mask_time_indices` must be None for a model without a mask embedding; "
                "build it with `mask_time_prob` above 0."
            )
        shape = tuple(mask_time_indices.shape)
        if shape == (len(hidden), 0):  # too short for a frame: nothing to mask
            return torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        if shape != tuple(hidden.shape[:2]):
            raise ValueError(
                f"`mask_time_indices` must have shape (B, T) = {tuple(hidden.shape[:2])}, but has {shape}."
            )
        return mask_time_indices.to(hidden.device) != 0

    def _draw_layers(self, kept_layers: Tensor | None, generator: torch.Generator | None) -> Tensor | None:
        """Which layers this pass keeps; None for all."""
        if kept_layers is not None or not self.training or self.config.layerdrop == 0:
            return kept_layers
        device = "cpu" if generator is None else generator.device
        draw = torch.rand(self.config.num_hidden_layers, generator=generator, device=device)
        return draw >= self.config.layerdrop

    def _receptive_field(self) -> int:
        """Samples that one frame sees."""
        return receptive_field(self.config.conv_kernel, self.config.conv_stride)


def check_waveforms(input_values: Tensor, attention_mask: Tensor | None) -> None:
    """Refuse what is no batch of waveforms, and a mask that is not its shape.

    Args:
        input_values: What should be (B, S) floats.
        attention_mask: What should be (B, S), or None.

    Raises:
        ValueError: If a shape does not fit.
        TypeError: If `input_values` is not a float tensor.
    """
    if not isinstance(input_values, Tensor) or not input_values.is_floating_point():
        kind = input_values.dtype if isinstance(input_values, Tensor) else type(input_values).__name__
        raise TypeError(
            f"`input_values` must be a float tensor, but is {kind}; "
            "divide integer samples by their range first."
        )
    if input_values.ndim != 2:
        hint = "drop the channel axis" if input_values.ndim > 2 else "add a batch axis"
        raise ValueError(
            f"`input_values` must have shape (B, S), but has {tuple(input_values.shape)}; {hint}."
        )
    if attention_mask is not None and attention_mask.shape != input_values.shape:
        raise ValueError(
            f"`attention_mask` must have the shape of `input_values`, {tuple(input_values.shape)}, "
            f"but has {tuple(attention_mask.shape)}."
        )
