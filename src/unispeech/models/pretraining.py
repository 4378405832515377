"""The model that pre-trains: quantizer, replacement, CTC head, and the UniSpeech loss.

Shapes in this file: B batch, S samples, T frames, C conv channels, H hidden, K negatives, G codebooks, V
entries, N phone classes, L target length, M target frames of the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unispeech.configuration import UniSpeechConfig
from unispeech.frames import lengths_to_is_padding
from unispeech.masking import NO_NEGATIVE, sample_negatives
from unispeech.models.base import (
    UniSpeechBaseModelOutput,
    UniSpeechModel,
    UniSpeechPreTrainedModel,
    check_waveforms,
    freeze,
)
from unispeech.models.heads import warn_of_infeasible_targets
from unispeech.models.pretraining_output import Draws, UniSpeechForPreTrainingOutput
from unispeech.models.quantizer import GumbelVectorQuantizer, Quantized
from unispeech.objectives import (
    IGNORED_LABEL,
    ContrastiveLoss,
    CTCLoss,
    contrastive_loss,
    ctc_loss,
    ctc_targets,
    diversity_loss,
    perplexity,
)


class UniSpeechForPreTraining(UniSpeechPreTrainedModel):
    """UniSpeech's unified pre-training: phonetic CTC and phonetically-aware contrastive learning in one pass.

    Args:
        config: Sizes, loss weights, masks, negatives.

    Source:
        arXiv:2101.07597, section 3; counts, draws and weights as in the released code. Parameter names of
        transformers' `UniSpeechForPreTraining`.
    """

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        self.unispeech = UniSpeechModel(config)
        config.check_divides("codevector_dim", "num_codevector_groups")
        self.dropout_features = nn.Dropout(config.feat_quantizer_dropout)
        self.quantizer = GumbelVectorQuantizer(
            config.conv_dim[-1],
            config.codevector_dim,
            config.num_codevector_groups,
            config.num_codevectors_per_group,
            temperature=config.gumbel_temperature,
        )
        self.project_q = nn.Linear(config.codevector_dim, config.proj_codevector_dim)
        # Despite its name, which is a file format, this maps the quantized side to the encoder's width; the
        # context enters the cosine as it is.
        self.project_hid = nn.Linear(config.proj_codevector_dim, config.hidden_size)
        self.ctc_proj = nn.Linear(config.hidden_size, config.num_ctc_classes)
        self.dropout = nn.Dropout(config.final_dropout)
        self.post_init()

    def set_gumbel_temperature(self, temperature: float) -> None:
        """Set the temperature of the Gumbel softmax; it is saved with the configuration.

        Args:
            temperature: Above 0; the paper goes from 2 to 0.1 by a factor of 0.999995 an update.
        """
        self.config.gumbel_temperature = float(temperature)
        self.quantizer.temperature = float(temperature)

    def freeze_base_model(self) -> None:
        """Stop everything below the quantizer and the heads from learning."""
        freeze(self.unispeech)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        sampled_negative_indices: Tensor | None = None,
        *,
        target_indices: Tensor | None = None,
        replacement: Tensor | None = None,
        gumbel_noise: tuple[Tensor, Tensor] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | Sequence[int] | None = None,
        return_dict: bool | None = None,
        generator: torch.Generator | None = None,
        kept_layers: Tensor | None = None,
    ) -> tuple[Tensor, ...] | UniSpeechForPreTrainingOutput:
        """Encode, quantize, replace, and compute the losses.

        In training everything that is not given is drawn. In evaluation nothing is masked or replaced unless
        given, so that outputs are the same every time; the loss is computed when any of `labels`,
        `mask_time_indices`, `sampled_negative_indices` or `target_indices` is given, negatives being drawn
        from a fixed seed where no generator is given.

        Args:
            input_values: (B, S) float waveforms at 16 kHz.
            attention_mask: (B, S), non-zero at samples of the utterance; None: all are.
            labels: (B, L) phones in [0, N); -100 and the blank are skipped; a row of nothing else is
                unlabelled.
            mask_time_indices: (B, T) frames to mask; None: drawn in training.
            sampled_negative_indices: (B, T, K) indices into the flattened (B * T) frames, each in its own
                utterance, -1 for none; read at targets; None: drawn by `config.negatives_from`.
            target_indices: (B, T) frames that the contrastive task asks for; None: the masked valid frames,
                or all valid frames where nothing is masked.
            replacement: (B, T), non-zero where the context is replaced by the quantized latent before the CTC
                head; None: drawn in training by `config.replace_prob`.
            gumbel_noise: Two (B, T, G, V) arrays of standard Gumbel noise, for the targets' codes and for
                those of all frames (replacement, negatives from all); None: drawn in training.
            output_attentions: Whether to return attention maps.
            output_hidden_states: Whether, or which, hidden states to return.
            return_dict: False for a plain tuple; None: as configured.
            generator: Source of everything drawn; None takes torch's own.
            kept_layers: (num_layers,) layers that this pass keeps.

        Returns:
            Losses as sums with their counts, and transformers' fields.

        Raises:
            ValueError: If labels lie outside [0, N), negatives cross into another utterance or a shape does
                not fit.
        """
        check_waveforms(input_values, attention_mask)
        if labels is not None:
            labels = ctc_targets(
                labels,
                num_utterances=len(input_values),
                num_classes=self.config.num_ctc_classes,
                blank=self.config.pad_token_id,
            ).to(input_values.device)
        wants_loss = self.training or any(
            given is not None
            for given in (labels, mask_time_indices, sampled_negative_indices, target_indices)
        )
        lengths = self.unispeech.valid_frames(input_values, attention_mask)
        if mask_time_indices is None:
            mask_time_indices = self._draw_time_mask(input_values, lengths, generator)
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
        context = outputs.last_hidden_state
        if lengths is None:
            lengths = torch.full((len(context),), context.shape[1], device=context.device)
        self._check_draws(
            tuple(context.shape[:2]),
            sampled_negative_indices=sampled_negative_indices,
            target_indices=target_indices,
            replacement=replacement,
            gumbel_noise=gumbel_noise,
        )
        target_noise, frame_noise = gumbel_noise if gumbel_noise is not None else (None, None)
        draws = Draws(
            time_mask=mask_time_indices,
            targets=target_indices,
            negatives=sampled_negative_indices,
            replacement=replacement,
            target_noise=target_noise,
            frame_noise=frame_noise,
            generator=generator,
        )
        output = self._quantize_and_score(outputs, labels, lengths, draws, wants_loss)
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def _quantize_and_score(
        self,
        outputs: UniSpeechBaseModelOutput,
        labels: Tensor | None,
        lengths: Tensor,
        draws: Draws,
        wants_loss: bool,
    ) -> UniSpeechForPreTrainingOutput:
        """Everything behind the encoder: codes of all frames, phone scores, and the losses where wanted."""
        context = outputs.last_hidden_state
        is_valid = ~lengths_to_is_padding(lengths, context.shape[1])
        latents = self.dropout_features(outputs.extract_features)
        frames = self.quantizer(latents, gumbel_noise=draws.frame_noise, generator=draws.generator)
        quantized = self.project_hid(self.project_q(frames.codevectors))
        mixed = self._replace(context, quantized, draws.replacement, draws.generator)
        ctc_logits = self.ctc_proj(self.dropout(mixed))
        output = UniSpeechForPreTrainingOutput(
            projected_states=context,
            projected_quantized_states=quantized,
            codevector_perplexity=self._perplexity(frames, is_valid),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            ctc_logits=ctc_logits,
        )
        if not wants_loss:
            return output
        is_target, negatives = self._choose_targets(is_valid, draws)
        targets = self.quantizer(
            latents[is_target],
            gumbel_noise=None if draws.target_noise is None else draws.target_noise[is_target],
            generator=draws.generator,
        )
        # The contrastive part counts fully where there is no transcript to share the row with.
        is_labelled = self._labelled_rows(labels, context)
        row_weights = torch.where(is_labelled, 1.0 - self.config.ctc_weight, 1.0)
        contrast = self._contrast(context, quantized, frames, targets, is_target, negatives, row_weights)
        ctc = None
        if labels is not None:
            ctc = ctc_loss(ctc_logits, lengths, labels, blank=self.config.pad_token_id or 0)
            warn_of_infeasible_targets(ctc, lengths)
        weight_of_targets = (row_weights[:, None] * is_target).sum()
        self._add_losses(output, contrast, targets, ctc, weight_of_targets, outputs.feature_penalty)
        return output

    def _check_draws(
        self,
        frames: tuple[int, ...],
        *,
        gumbel_noise: tuple[Tensor, Tensor] | None,
        sampled_negative_indices: Tensor | None,
        **masks: Tensor | None,
    ) -> None:
        """Refuse given draws of another shape than the (B, T) frames have."""
        codes = (*frames, self.config.num_codevector_groups, self.config.num_codevectors_per_group)
        wanted = [(name, mask, "(B, T)", frames) for name, mask in masks.items()]
        wanted += [("gumbel_noise", noise, "(B, T, G, V)", codes) for noise in gumbel_noise or ()]
        if sampled_negative_indices is not None:
            shape = (*frames, *sampled_negative_indices.shape[-1:])
            wanted.append(("sampled_negative_indices", sampled_negative_indices, "(B, T, K)", shape))
        for name, given, letters, shape in wanted:
            if given is not None and tuple(given.shape) != shape:
                raise ValueError(
                    f"`{name}` must have shape {letters} = {shape}, but has {tuple(given.shape)}."
                )

    def _draw_time_mask(
        self, input_values: Tensor, lengths: Tensor | None, generator: torch.Generator | None
    ) -> Tensor | None:
        """A (B, T) time mask for a training pass, drawn here because the contrastive task must know it."""
        config = self.config
        if not (self.training and config.apply_spec_augment and config.mask_time_prob > 0):
            return None
        width = self._get_feat_extract_output_lengths(input_values.shape[1])
        if lengths is None:
            lengths = torch.full((len(input_values),), width, device=input_values.device)
        return self.unispeech.sample_time_mask(lengths, width, generator)

    def _choose_targets(self, is_valid: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(B, T) target frames that have a negative, and the (B, T, K) negatives."""
        device = is_valid.device
        if draws.targets is not None:
            is_target = draws.targets.to(device) != 0
        elif draws.time_mask is not None:
            is_target = (draws.time_mask.to(device) != 0) & is_valid
        else:
            is_target = is_valid
        if draws.negatives is not None:
            negatives = draws.negatives.to(device)
        else:
            generator = draws.generator
            if generator is None and not self.training:
                generator = torch.Generator(device).manual_seed(0)
            candidates = is_valid if self.config.negatives_from == "all" else is_target
            negatives = sample_negatives(
                is_target, candidates, self.config.num_negatives, generator=generator
            )
        return is_target & (negatives != NO_NEGATIVE).any(dim=-1), negatives

    def _labelled_rows(self, labels: Tensor | None, context: Tensor) -> Tensor:
        """(B,) boolean, True where a row has a transcript."""
        if labels is None:
            return torch.zeros(len(context), dtype=torch.bool, device=context.device)
        return (labels != IGNORED_LABEL).any(dim=1)

    def _replace(
        self,
        context: Tensor,
        quantized: Tensor,
        replacement: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The context with some frames replaced by their quantized latents, which ties codes to phones."""
        if replacement is not None:
            is_replaced = replacement.to(context.device) != 0
        elif self.training:
            draw = torch.empty(context.shape[:2], device=context.device).uniform_(generator=generator)
            is_replaced = draw < self.config.replace_prob
        else:
            return context
        return torch.where(is_replaced[..., None], quantized.to(context.dtype), context)

    def _perplexity(self, frames: Quantized, is_valid: Tensor) -> Tensor:
        """The perplexity that transformers reports, of valid frames: soft in training, else of codes."""
        if self.training:
            return self.quantizer.prob_perplexity(frames.logits[is_valid])
        return self.quantizer.code_perplexity(frames.codes[is_valid])

    def _contrast(
        self,
        context: Tensor,
        quantized: Tensor,
        frames: Quantized,
        targets: Quantized,
        is_target: Tensor,
        negatives: Tensor,
        row_weights: Tensor,
    ) -> ContrastiveLoss:
        """The contrastive loss with negatives from all frames or from the targets' own draw."""
        positives = self.project_hid(self.project_q(targets.codevectors))  # (M, H)
        if self.config.negatives_from == "all":
            candidates, candidate_codes = quantized, frames.codes
        else:
            candidates = torch.zeros_like(quantized).masked_scatter(is_target[..., None], positives)
            candidate_codes = frames.codes.masked_scatter(is_target[..., None], targets.codes)
        return contrastive_loss(
            context,
            positives,
            candidates,
            is_target,
            negatives,
            temperature=self.config.contrastive_logits_temperature,
            codes=targets.codes,
            candidate_codes=candidate_codes,
            exclude_equal=self.config.exclude_equal_negatives,
            weights=row_weights,
        )

    def _add_losses(
        self,
        output: UniSpeechForPreTrainingOutput,
        contrast: ContrastiveLoss,
        targets: Quantized,
        ctc: CTCLoss | None,
        weight_of_targets: Tensor,
        feature_penalty: Tensor | None,
    ) -> None:
        """Mix the parts and write them, their counts and the health of the codebook into the output."""
        prob_perplexity = self.quantizer.prob_perplexity(targets.logits)
        diversity = diversity_loss(
            prob_perplexity, self.config.num_codevector_groups * self.config.num_codevectors_per_group
        )
        beside = self.config.diversity_loss_weight * diversity
        if feature_penalty is not None:
            beside = beside + self.config.feature_penalty_weight * feature_penalty
            output["feature_penalty"] = feature_penalty * contrast.count
        loss = contrast.sum + beside * weight_of_targets
        if ctc is not None:
            loss = loss + self.config.ctc_weight * ctc.sum
            output["ctc_loss"] = ctc.sum
            output["num_labelled"] = ctc.count
        if self.training and output.ctc_logits is not None:
            # Distributed training wants a gradient for every parameter, also in a batch without transcripts.
            loss = loss + 0.0 * output.ctc_logits.sum()
        output["loss"] = loss
        output["contrastive_loss"] = contrast.per_target.sum()
        output["diversity_loss"] = diversity * contrast.count
        output["contrastive_accuracy"] = contrast.num_correct / contrast.count.clamp(min=1)
        output["num_targets"] = contrast.count
        output["code_counts"] = self.quantizer.count_codes(targets.logits.argmax(dim=-1))
        output["code_perplexity"] = perplexity(output["code_counts"] / contrast.count.clamp(min=1))
        output["prob_perplexity"] = prob_perplexity
        output["equal_negatives"] = contrast.num_equal / contrast.num_negatives.clamp(min=1)

    @staticmethod
    def compute_contrastive_logits(
        target_features: Tensor, negative_features: Tensor, predicted_features: Tensor, temperature: float = 1
    ) -> Tensor:
        """Cosines between predictions and candidates, the target first; kept for transformers' callers.

        Args:
            target_features: (1, B, T, H).
            negative_features: (K, B, T, H).
            predicted_features: (B, T, H).
            temperature: Divisor.

        Returns:
            (K + 1, B, T) logits in the type of the candidates.
        """
        candidates = torch.cat([target_features, negative_features])
        cosines = torch.cosine_similarity(predicted_features.float(), candidates.float(), dim=-1)
        return cosines.to(candidates.dtype) / temperature
