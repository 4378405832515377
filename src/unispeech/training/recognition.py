"""What a recogniser learns: CTC over phones or characters, on request after a frame-level start.

Shapes in this file: B batch, S samples, T frames, N vocabulary, L target length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispeech.data.collation import Batch
from unispeech.models import UniSpeechForCTC
from unispeech.objectives import IGNORED_LABEL, ctc_loss
from unispeech.text import Vocabulary
from unispeech.training.hypotheses import Hypothesis, judge, recognise
from unispeech.training.parts import check_labels, draw_layers, frozen_prefixes
from unispeech.training.recipe import FinetuneObjectiveSettings
from unispeech.training.sections import OptimSettings
from unispeech.training.stage import Losses, Steady, Step


class CTCStage(Steady):
    """Recognition: CTC on transcripts, on request after some updates of cross-entropy on frames.

    Args:
        model: The bare model that is trained.
        vocabulary: The symbols of its head.
        objective: Normaliser and frame-level start.
        optim: Which parts learn.

    Raises:
        ValueError: If the vocabulary does not fit the head.

    Source:
        arXiv:2101.07597, section 3.3 (fine-tuning); the frozen start: arXiv:2006.11477, section 4.3.
    """

    is_higher_better = False

    def __init__(
        self,
        model: UniSpeechForCTC,
        vocabulary: Vocabulary,
        *,
        objective: FinetuneObjectiveSettings,
        optim: OptimSettings,
    ) -> None:
        num_outputs = model.lm_head.out_features
        if len(vocabulary) != num_outputs:
            raise ValueError(
                f"`vocabulary` must have a symbol for each of the head's {num_outputs} outputs, but has "
                f"{len(vocabulary)}; start with a fresh head (leave `data.vocabulary` out)."
            )
        self.model, self.vocabulary, self.objective, self.optim = model, vocabulary, objective, optim
        self.metric = "per" if vocabulary.kind == "phones" else "wer"

    def frozen(self, update: int) -> tuple[str, ...]:
        """Prefixes of the parameters that do not learn in an update.

        Args:
            update: Number of updates made before it.

        Returns:
            The whole encoder during the frozen start; after it the convolutions if the recipe says so, and
            whatever the configuration leaves without a gradient.
        """
        return frozen_prefixes(self.model, self.optim, update)

    def losses(self, model: nn.Module, batch: Batch, step: Step) -> Losses:
        """Frame cross-entropy or CTC of a micro-batch.

        Args:
            model: The model, wrapped or bare.
            batch: With `labels` (B, L); with `frame_labels` (B, T) where the start learns from an alignment.
            step: The update.

        Returns:
            The sum over frames or utterances; see `objective.normaliser` for the count.

        Raises:
            ValueError: If labels lie outside the vocabulary.
        """
        check_labels(batch["labels"], len(self.vocabulary), batch["ids"])
        logits = model(
            batch["input_values"],
            attention_mask=batch["attention_mask"],
            kept_layers=draw_layers(self.model, step.shared),
        ).logits
        num_frames = self.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
        if step.update < self.objective.frame_updates:
            return self._frame_losses(logits, batch, num_frames)
        return self._ctc_losses(logits, batch, num_frames)

    def observe(self, model: nn.Module, batch: Batch) -> list[Hypothesis]:
        """Recognise a validation batch greedily.

        Args:
            model: The bare model in evaluation mode.
            batch: As for `losses`.

        Returns:
            One hypothesis per utterance.
        """
        logits = model(batch["input_values"], attention_mask=batch["attention_mask"]).logits
        num_frames = self.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
        return recognise(logits, num_frames, batch["labels"], self.vocabulary)

    def summarise(self, observations: list[Hypothesis]) -> dict[str, float]:
        """Error rates over all dev utterances.

        Args:
            observations: The hypotheses of all processes.

        Returns:
            `per` for phones; `cer` for characters; `wer` where the vocabulary has word boundaries; `loss/ctc`
            per symbol; `blank_ratio`.
        """
        return judge(observations, self.vocabulary)

    def _ctc_losses(self, logits: Tensor, batch: Batch, num_frames: Tensor) -> Losses:
        """CTC, a target that does not fit into its frames counting as 0."""
        ctc = ctc_loss(logits, num_frames, batch["labels"], blank=self.vocabulary.blank)
        num_symbols = ctc.target_lengths.sum()
        is_blank = (logits.detach().argmax(dim=-1) == self.vocabulary.blank) & _is_frame(logits, num_frames)
        return Losses(
            loss_sum=ctc.sum,
            num_targets=num_symbols if self.objective.normaliser == "labels" else ctc.count,
            logs={
                "loss/ctc": (ctc.sum.detach(), num_symbols),
                "blank_ratio": (is_blank.sum(), num_frames.sum()),
                "infeasible_fraction": ((~ctc.is_feasible).sum(), len(ctc.is_feasible)),
            },
        )

    def _frame_losses(self, logits: Tensor, batch: Batch, num_frames: Tensor) -> Losses:
        """Cross-entropy of every frame whose phone is known."""
        if self.objective.frame_labels == "uniform":
            targets = uniform_frame_labels(batch["labels"], num_frames, logits.shape[1])
        elif "frame_labels" in batch:
            targets = batch["frame_labels"]
        else:  # not one utterance of the batch has phone times
            targets = torch.full(logits.shape[:2], IGNORED_LABEL, device=logits.device)
        is_known = targets != IGNORED_LABEL
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), targets, ignore_index=IGNORED_LABEL, reduction="sum"
        )
        is_right = (logits.detach().argmax(dim=-1) == targets) & is_known
        return Losses(
            loss_sum=losses,
            num_targets=is_known.sum(),
            logs={
                "loss/frame": (losses.detach(), is_known.sum()),
                "frame_accuracy": (is_right.sum(), is_known.sum()),
            },
        )


def uniform_frame_labels(labels: Tensor, num_frames: Tensor, width: int) -> Tensor:
    """Spread each transcript evenly over the frames of its utterance: a flat start.

    Args:
        labels: (B, L) symbols, `IGNORED_LABEL` behind the end of each row.
        num_frames: (B,) frames of each utterance, in [0, width].
        width: T.

    Returns:
        (B, T) the symbol of each frame; `IGNORED_LABEL` at padding, and everywhere in rows without a symbol.
    """
    lengths = (labels != IGNORED_LABEL).sum(dim=1)
    frames = torch.arange(width, device=labels.device)
    places = frames * lengths[:, None] // num_frames.clamp(min=1)[:, None]  # (B, T)
    spread = labels.gather(1, places.clamp(max=max(labels.shape[1] - 1, 0)))
    is_outside = (frames >= num_frames[:, None]) | (lengths == 0)[:, None]
    return spread.masked_fill(is_outside, IGNORED_LABEL)


def _is_frame(logits: Tensor, num_frames: Tensor) -> Tensor:
    """(B, T) boolean, True within the utterance."""
    return torch.arange(logits.shape[1], device=logits.device) < num_frames[:, None]
