"""Heads on the bare model: CTC recognition and utterance classification.

Shapes in this file: B batch, S samples, T frames, H hidden, N vocabulary, L target length.
"""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput

from unispeech.configuration import UniSpeechConfig
from unispeech.frames import lengths_to_is_padding
from unispeech.models.adapters import LanguageAdapters
from unispeech.models.base import UniSpeechModel, UniSpeechPreTrainedModel, freeze
from unispeech.objectives import CTCLoss, ctc_loss, ctc_targets
from unispeech.phones import nearest

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
"""What `config.problem_type` may be, besides None."""


class UniSpeechForCTC(LanguageAdapters):
    """Recogniser: context -> dropout -> one score per symbol and frame.

    Args:
        config: Sizes; `vocab_size` is N, `pad_token_id` the blank.
        target_lang: Language whose adapter is loaded after the weights, an ISO 639-3 code; None: none.

    Source:
        arXiv:2101.07597, section 3.1; parameter names of transformers' `UniSpeechForCTC`.
    """

    def __init__(self, config: UniSpeechConfig, target_lang: str | None = None) -> None:
        super().__init__(config)
        self.unispeech = UniSpeechModel(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.target_lang = target_lang
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def freeze_base_model(self) -> None:
        """Stop everything below the head from learning; no graph is built through it."""
        freeze(self.unispeech)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | Sequence[int] | None = None,
        return_dict: bool | None = None,
        generator: torch.Generator | None = None,
        kept_layers: Tensor | None = None,
    ) -> tuple[Tensor, ...] | CausalLMOutput:
        """Score symbols, and targets where they are given.

        Args:
            input_values: (B, S) float waveforms at 16 kHz.
            attention_mask: (B, S), non-zero at samples of the utterance; None: all are.
            labels: (B, L) symbols in [0, N); -100 and the blank are skipped. A target longer than its frames
                counts as 0 and is warned of by utterance, unless `config.ctc_zero_infinity`.
            mask_time_indices: (B, T) frames to mask; see `UniSpeechModel.forward`.
            output_attentions: Whether to return attention maps.
            output_hidden_states: Whether, or which, hidden states to return.
            return_dict: False for a plain tuple; None: as configured.
            generator: Source of masks and LayerDrop.
            kept_layers: (num_layers,) layers that this pass keeps.

        Returns:
            `logits` (B, T, N) and, with labels, `loss`: the sum over utterances, or by
            `config.ctc_loss_reduction` "mean" the batch mean of each loss over its target length.

        Raises:
            ValueError: If labels lie outside [0, N) or a shape does not fit.
        """
        if labels is not None:
            labels = ctc_targets(
                labels,
                num_utterances=len(input_values),
                num_classes=self.config.vocab_size,
                blank=self.config.pad_token_id,
            ).to(input_values.device)
        outputs = self.unispeech(
            input_values,
            attention_mask,
            mask_time_indices,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            generator=generator,
            kept_layers=kept_layers,
        )
        logits = self.lm_head(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            lengths = self.unispeech.valid_frames(input_values, attention_mask)
            if lengths is None:
                lengths = torch.full((len(logits),), logits.shape[1], device=logits.device)
            ctc = ctc_loss(logits, lengths, labels, blank=self.config.pad_token_id or 0)
            if not self.config.ctc_zero_infinity:
                warn_of_infeasible_targets(ctc, lengths)
            loss = reduce_ctc(ctc, self.config.ctc_loss_reduction)
        output = CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()


def reduce_ctc(ctc: CTCLoss, reduction: str) -> Tensor:
    """One number of a batch's CTC losses.

    Args:
        ctc: The losses.
        reduction: "sum" over utterances, or "mean" over utterances of each loss divided by its target length.

    Returns:
        Scalar.
    """
    if reduction == "sum":
        return ctc.sum
    return (ctc.per_utterance / ctc.target_lengths.clamp(min=1)).mean()


def warn_of_infeasible_targets(ctc: CTCLoss, num_frames: Tensor) -> None:
    """Name the utterances whose target cannot fit into their frames; they were counted as 0.

    Args:
        ctc: The losses.
        num_frames: (B,) valid frames of each utterance.
    """
    if bool(ctc.is_feasible.all()):
        return
    rows = (~ctc.is_feasible).nonzero().flatten().tolist()
    cases = ", ".join(f"{i} ({int(ctc.target_lengths[i])} in {int(num_frames[i])} frames)" for i in rows)
    warnings.warn(
        "`labels` must fit into the frames, a blank between equal neighbours counted, but do not in "
        f"utterance {cases}; they count as 0, drop them or lengthen the audio.",
        stacklevel=3,
    )


class UniSpeechForSequenceClassification(UniSpeechPreTrainedModel):
    """Classifier: context -> projection -> mean over the utterance's frames -> one score per label.

    Args:
        config: Sizes; `num_labels`, `problem_type`, `use_weighted_layer_sum`, `classifier_proj_size`.

    Source:
        Yang et al. 2021 (SUPERB, arXiv:2105.01051), section 3; parameter names of transformers.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        self.unispeech = UniSpeechModel(config)
        if config.use_weighted_layer_sum:
            num_states = config.num_hidden_layers + 1
            self.layer_weights = nn.Parameter(torch.ones(num_states) / num_states)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def freeze_base_model(self) -> None:
        """Stop everything below the projection from learning; no graph is built through it."""
        freeze(self.unispeech)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | Sequence[int] | None = None,
        return_dict: bool | None = None,
        generator: torch.Generator | None = None,
        kept_layers: Tensor | None = None,
    ) -> tuple[Tensor, ...] | SequenceClassifierOutput:
        """Score labels for whole utterances.

        Args:
            input_values: (B, S) float waveforms at 16 kHz.
            attention_mask: (B, S), non-zero at samples of the utterance; None: all are.
            labels: (B,) or (B, 1) class numbers; floats of that shape or (B, num_labels) for regression; (B,
                num_labels) of 0 and 1 for several labels at once.
            mask_time_indices: (B, T) frames to mask; see `UniSpeechModel.forward`.
            output_attentions: Whether to return attention maps.
            output_hidden_states: Whether, or which, hidden states to return.
            return_dict: False for a plain tuple; None: as configured.
            generator: Source of masks and LayerDrop.
            kept_layers: (num_layers,) layers that this pass keeps.

        Returns:
            `logits` (B, num_labels) and, with labels, the mean `loss` of `config.problem_type`. An utterance
            without a frame is pooled to zeros.

        Raises:
            ValueError: If the problem type is unknown, or labels do not fit it.
            TypeError: If class numbers are floats.
        """
        mixes = self.config.use_weighted_layer_sum
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        outputs = self.unispeech(
            input_values,
            attention_mask,
            mask_time_indices,
            output_attentions=output_attentions,
            output_hidden_states=True if mixes else output_hidden_states,
            return_dict=True,
            generator=generator,
            kept_layers=kept_layers,
        )
        hidden = outputs.last_hidden_state
        if mixes:
            weights = F.softmax(self.layer_weights, dim=-1)
            hidden = sum(weight * state for weight, state in zip(weights, outputs.hidden_states, strict=True))
        lengths = self.unispeech.valid_frames(input_values, attention_mask)
        logits = self.classifier(mean_over_frames(self.projector(hidden), lengths))
        output = SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the problem type, told from the labels where the configuration does not say."""
        num_labels = self.config.num_labels
        problem = self.config.problem_type
        if problem is None:
            if num_labels == 1:
                problem = "regression"
            elif labels.is_floating_point():
                problem = "multi_label_classification"
            else:
                problem = "single_label_classification"
        if problem not in PROBLEMS:
            raise ValueError(
                f"`problem_type` must be one of {', '.join(PROBLEMS)}, but is {problem!r}"
                f"{nearest(problem, PROBLEMS)}"
            )
        labels = labels.to(logits.device)
        wanted = len(logits) if problem == "single_label_classification" else logits.numel()
        if labels.numel() != wanted:
            raise ValueError(
                f"`labels` must hold {wanted} values for {problem} of {len(logits)} utterances, "
                f"but have shape {tuple(labels.shape)}."
            )
        if problem == "regression":
            return F.mse_loss(logits.flatten().float(), labels.flatten().float())
        if problem == "multi_label_classification":
            if bool(((labels < 0) | (labels > 1)).any()):
                raise ValueError(f"`labels` must lie in [0, 1] for {problem}, but are {labels.tolist()}.")
            return F.binary_cross_entropy_with_logits(logits.float(), labels.view_as(logits).float())
        if labels.is_floating_point():
            raise TypeError(f"`labels` must be integers for {problem}, but are {labels.dtype}.")
        labels = labels.flatten().long()
        if bool(((labels < 0) & (labels != -100)).any()) or bool((labels >= num_labels).any()):
            raise ValueError(f"`labels` must lie in [0, {num_labels - 1}], but are {labels.tolist()}.")
        return F.cross_entropy(logits.float(), labels)


def mean_over_frames(x: Tensor, num_frames: Tensor | None) -> Tensor:
    """Average over each utterance's own frames.

    Args:
        x: (B, T, D).
        num_frames: (B,) valid frames; None: all T.

    Returns:
        (B, D); zeros where an utterance has no frame.
    """
    if num_frames is None:
        return x.mean(dim=1)
    x = x.masked_fill(lengths_to_is_padding(num_frames, x.shape[1])[..., None], 0.0)
    return x.sum(dim=1) / num_frames.clamp(min=1)[:, None].to(x.dtype)
