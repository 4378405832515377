"""What pre-training learns: phonetic CTC and phonetically-aware contrast, on labelled and unlabelled speech.

Shapes in this file: B batch, T frames, G codebooks, V entries, L target length.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispeech.data.collation import Batch
from unispeech.masking import sample_spans
from unispeech.models import UniSpeechForPreTraining
from unispeech.models.pretraining_output import UniSpeechForPreTrainingOutput
from unispeech.objectives import IGNORED_LABEL, perplexity
from unispeech.text import Vocabulary
from unispeech.training.hypotheses import Hypothesis, judge, recognise
from unispeech.training.parts import check_labels, draw_layers, frozen_prefixes
from unispeech.training.recipe import HealthSettings, PretrainObjectiveSettings
from unispeech.training.sections import OptimSettings
from unispeech.training.stage import Losses, Review, Step

Logs = dict[str, tuple[Tensor | float, Tensor | float]]

CODES = "codes"
"""Name of the table of code counts."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a dev batch showed."""

    hypotheses: list[Hypothesis]
    """Of the utterances with a transcript, where there is a head to judge."""
    contrastive_loss: float
    """Summed over targets."""
    num_correct: float
    """Targets that were told from all negatives."""
    num_targets: float
    """Target frames."""


class PretrainingStage:
    """Stage 1, stage 2 or both at once: which rows have labels decides what is learned of them.

    Args:
        model: The bare model that is trained.
        vocabulary: The symbols of its CTC head; None: no row has a transcript.
        objective: Temperatures; the weights are in the model's configuration.
        health: When the run is given up.
        optim: Which parts learn.
        has_labels: Whether a stream of the run has transcripts, so that the CTC head learns.

    Raises:
        ValueError: If the vocabulary does not fit the head.

    Source:
        arXiv:2101.07597, section 3.
    """

    is_higher_better = False

    def __init__(
        self,
        model: UniSpeechForPreTraining,
        vocabulary: Vocabulary | None,
        *,
        objective: PretrainObjectiveSettings,
        health: HealthSettings,
        optim: OptimSettings,
        has_labels: bool,
    ) -> None:
        num_outputs = model.ctc_proj.out_features
        if vocabulary is not None and len(vocabulary) != num_outputs:
            raise ValueError(
                f"`vocabulary` must have a symbol for each of the head's {num_outputs} outputs, but has "
                f"{len(vocabulary)}."
            )
        self.model, self.vocabulary = model, vocabulary
        self.objective, self.health, self.optim = objective, health, optim
        self._has_labels = has_labels
        self.patience = health.patience
        self.metric = "per" if has_labels else "loss/contrastive"

    def frozen(self, update: int) -> tuple[str, ...]:
        """Prefixes of the parameters that do not learn in an update.

        Args:
            update: Number of updates made before it.

        Returns:
            What the recipe freezes, what the configuration leaves without a gradient, and the CTC head where
            no stream has transcripts.
        """
        prefixes = frozen_prefixes(self.model, self.optim, update)
        return prefixes if self._has_labels else (*prefixes, "ctc_proj.")

    def start_update(self, model: nn.Module, update: int) -> dict[str, float]:
        """Set the Gumbel temperature.

        Args:
            model: The bare model.
            update: Number of updates made before.

        Returns:
            The temperature, for the log.
        """
        temperature = self.objective.temperature(update)
        self.model.set_gumbel_temperature(temperature)
        return {"temperature": temperature}

    def draws(self, batch: Batch, step: Step) -> dict[str, Any]:
        """What chance decides in a pass, as arguments of the model; nothing: the model draws on its device.

        Args:
            batch: The micro-batch.
            step: The update.
        """
        return {}

    def losses(self, model: nn.Module, batch: Batch, step: Step) -> Losses:
        """The UniSpeech loss of a micro-batch.

        Args:
            model: The model, wrapped or bare.
            batch: `labels` (B, L) hold phones, rows of -100 are unlabelled; without them all rows are.
            step: The update.

        Returns:
            The mixed sum, for division by the number of target frames as in the original.

        Raises:
            ValueError: If labels lie outside the vocabulary.
        """
        labels = batch.get("labels")
        if labels is not None:
            check_labels(labels, self.model.config.num_ctc_classes, batch["ids"])
        output = model(
            batch["input_values"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            kept_layers=draw_layers(self.model, step.shared),
            **self.draws(batch, step),
        )
        num_frames = self.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
        logs = _contrastive_logs(output, num_frames)
        logs |= _ctc_logs(output, labels, num_frames, self.model.config.pad_token_id or 0)
        loss = output.loss
        if step.update < self.objective.frame_updates and "frame_labels" in batch:
            frames = _frame_losses(output, batch["frame_labels"])
            logs |= frames.logs
            # As heavy as CTC of these transcripts would be, so that both starts and both parts mix alike.
            share = (batch["labels"] != IGNORED_LABEL).sum() / frames.num_targets.clamp(min=1)
            loss = loss + self.model.config.ctc_weight * (share * frames.loss_sum - output.ctc_loss)
        return Losses(
            loss_sum=loss,
            num_targets=output.num_targets,
            logs=logs,
            counts={CODES: output.code_counts},
        )

    def review(self, update: int, values: dict[str, float], counts: dict[str, Tensor]) -> Review:
        """Judge the codebook since the last line of the log, and whether the run has collapsed.

        Args:
            update: Number of updates made.
            values: Averages since the last line.
            counts: Code counts since then.

        Returns:
            The values with chance, code perplexity and dead codes; what to do about a collapse, if this line
            shows one.
        """
        values = values | {"contrastive_chance": 1 / (1 + self.objective.num_negatives)}
        if CODES in counts:
            table = counts[CODES]
            shares = table / table.sum(dim=-1, keepdim=True).clamp(min=1)
            values["code_perplexity"] = float(perplexity(shares))
            values |= {f"dead_codes/{g}": float((row == 0).sum()) for g, row in enumerate(table)}
        if update <= self.health.grace_updates:
            return Review(values=values)
        return Review(values=values, suspicion=self._suspicion(values))

    def observe(self, model: nn.Module, batch: Batch) -> list[Observation]:
        """Recognise a validation batch without masks, and solve its contrastive task behind fixed masks.

        Args:
            model: The bare model in evaluation mode.
            batch: As for `losses`.

        Returns:
            One observation.
        """
        num_frames = self.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
        inputs = {"input_values": batch["input_values"], "attention_mask": batch["attention_mask"]}
        hypotheses: list[Hypothesis] = []
        labels = batch.get("labels")
        is_told = None if labels is None else (labels != IGNORED_LABEL).any(dim=1)
        if self.vocabulary is not None and labels is not None and is_told is not None and is_told.any():
            logits = model(**inputs).ctc_logits
            hypotheses = recognise(logits[is_told], num_frames[is_told], labels[is_told], self.vocabulary)
        config = self.model.config
        mask = sample_spans(
            num_frames.cpu(),
            self.model._get_feat_extract_output_lengths(batch["input_values"].shape[1]),
            prob=config.mask_time_prob,
            span_length=config.mask_time_length,
            min_spans=config.mask_time_min_masks,
            generator=torch.Generator().manual_seed(0),
        )
        output = model(**inputs, mask_time_indices=mask.to(num_frames.device))
        count = float(output.num_targets)
        return [
            Observation(
                hypotheses=hypotheses,
                contrastive_loss=float(output.contrastive_loss),
                num_correct=float(output.contrastive_accuracy) * count,
                num_targets=count,
            )
        ]

    def summarise(self, observations: list[Observation]) -> dict[str, float]:
        """Error rate and contrastive loss over all dev utterances.

        Args:
            observations: Those of all processes.

        Returns:
            `per`, `loss/ctc` and `blank_ratio` where there is a head to judge, `loss/contrastive` and
            `contrastive_accuracy`.
        """
        hypotheses = [hypothesis for observation in observations for hypothesis in observation.hypotheses]
        values = judge(hypotheses, self.vocabulary) if hypotheses and self.vocabulary is not None else {}
        count = max(sum(observation.num_targets for observation in observations), 1.0)
        values["loss/contrastive"] = sum(one.contrastive_loss for one in observations) / count
        values["contrastive_accuracy"] = sum(one.num_correct for one in observations) / count
        return values

    def _suspicion(self, values: dict[str, float]) -> str | None:
        """What is wrong with the values of a line and what to do, in one sentence each; None: nothing."""
        health, num_books = self.health, self.model.config.num_codevector_groups
        if values.get("code_perplexity", float("inf")) < health.min_perplexity * num_books:
            return (
                f"`code_perplexity` must be at least {health.min_perplexity * num_books:g}, but is "
                f"{values['code_perplexity']:.2f}, so the codebook has collapsed; raise `objective."
                "diversity_weight`, lower `optim.learning_rate` or let the temperature fall more slowly."
            )
        is_sure = values.get("contrastive_accuracy", 0.0) > health.max_accuracy
        if is_sure and values["loss/contrastive"] < health.max_shortcut_loss:
            return (
                f"`contrastive_accuracy` must be at most {health.max_accuracy:g}, but is "
                f"{values['contrastive_accuracy']:.3f} at almost no loss, so a shortcut solves the task; "
                "mask longer spans (`masking.time_length`) or take more negatives."
            )
        return None


def _frame_losses(output: UniSpeechForPreTrainingOutput, targets: Tensor) -> Losses:
    """Cross-entropy of every frame of the (partly replaced) context whose phone is known."""
    assert output.ctc_logits is not None
    is_known = targets != IGNORED_LABEL
    loss = F.cross_entropy(
        output.ctc_logits.float().transpose(1, 2), targets, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    is_right = (output.ctc_logits.detach().argmax(dim=-1) == targets) & is_known
    num_known = is_known.sum()
    logs: Logs = {"loss/frame": (loss.detach(), num_known), "frame_accuracy": (is_right.sum(), num_known)}
    return Losses(loss_sum=loss, num_targets=num_known, logs=logs)


def _contrastive_logs(output: UniSpeechForPreTrainingOutput, num_frames: Tensor) -> Logs:
    """The contrastive part of a micro-batch and the health of its codes, by target."""
    count = output.num_targets
    assert count is not None
    sums = {"loss/contrastive": output.contrastive_loss, "loss/diversity": output.diversity_loss}
    means = {
        "contrastive_accuracy": output.contrastive_accuracy,
        "prob_perplexity": output.prob_perplexity,
        "equal_negatives": output.equal_negatives,
    }
    logs: Logs = {"masked_fraction": (count, num_frames.sum())}
    logs |= {name: (total.detach(), count) for name, total in sums.items() if total is not None}
    logs |= {name: (mean.detach() * count, count) for name, mean in means.items() if mean is not None}
    return logs


def _ctc_logs(
    output: UniSpeechForPreTrainingOutput, labels: Tensor | None, num_frames: Tensor, blank: int
) -> Logs:
    """CTC loss per symbol, and the share of blanks in labelled rows."""
    if labels is None or output.ctc_loss is None or output.ctc_logits is None:
        return {}
    is_labelled = (labels != IGNORED_LABEL).any(dim=1)
    frames = torch.arange(output.ctc_logits.shape[1], device=labels.device)
    is_frame = (frames < num_frames[:, None]) & is_labelled[:, None]
    is_blank = (output.ctc_logits.detach().argmax(dim=-1) == blank) & is_frame
    return {
        "loss/ctc": (output.ctc_loss.detach(), (labels != IGNORED_LABEL).sum()),
        "blank_ratio": (is_blank.sum(), is_frame.sum()),
    }
