"""What a classifier learns: one label per utterance.

Shapes in this file: B batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

from unispeech.data.collation import Batch
from unispeech.models import UniSpeechForSequenceClassification
from unispeech.training.parts import check_labels, draw_layers, frozen_prefixes
from unispeech.training.sections import OptimSettings
from unispeech.training.stage import Losses, Steady, Step


class ClassificationStage(Steady):
    """One label per utterance, by cross-entropy.

    Args:
        model: The bare model that is trained.
        optim: Which parts learn.
    """

    metric = "accuracy"
    is_higher_better = True

    def __init__(self, model: UniSpeechForSequenceClassification, *, optim: OptimSettings) -> None:
        self.model, self.optim = model, optim

    def frozen(self, update: int) -> tuple[str, ...]:
        """Prefixes of the parameters that do not learn in an update; as for `CTCStage`.

        Args:
            update: Number of updates made before it.

        Returns:
            Prefixes of parameter names.
        """
        return frozen_prefixes(self.model, self.optim, update)

    def losses(self, model: nn.Module, batch: Batch, step: Step) -> Losses:
        """Cross-entropy of a micro-batch.

        Args:
            model: The model, wrapped or bare.
            batch: With `labels` (B,).
            step: The update.

        Returns:
            The sum over utterances.

        Raises:
            ValueError: If a label lies outside the classes.
        """
        labels = batch["labels"]
        check_labels(labels[:, None], self.model.config.num_labels, batch["ids"])
        logits = model(
            batch["input_values"],
            attention_mask=batch["attention_mask"],
            kept_layers=draw_layers(self.model, step.shared),
        ).logits
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        num_right = (logits.detach().argmax(dim=-1) == labels).sum()
        count = torch.tensor(len(labels))
        return Losses(loss_sum=loss, num_targets=count, logs={"accuracy": (num_right, count)})

    def observe(self, model: nn.Module, batch: Batch) -> list[tuple[bool, float]]:
        """Classify a validation batch.

        Args:
            model: The bare model in evaluation mode.
            batch: As for `losses`.

        Returns:
            Whether each utterance was classified rightly, and its loss.
        """
        logits = model(batch["input_values"], attention_mask=batch["attention_mask"]).logits.float()
        losses = F.cross_entropy(logits, batch["labels"], reduction="none")
        return list(zip((logits.argmax(dim=-1) == batch["labels"]).tolist(), losses.tolist(), strict=True))

    def summarise(self, observations: list[tuple[bool, float]]) -> dict[str, float]:
        """Accuracy and loss over all dev utterances.

        Args:
            observations: What `observe` gave in all processes.

        Returns:
            `accuracy` in [0, 1] and `loss` per utterance.
        """
        count = max(len(observations), 1)
        return {
            "accuracy": sum(is_right for is_right, _ in observations) / count,
            "loss": sum(loss for _, loss in observations) / count,
        }
