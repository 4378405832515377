"""Which of the two losses of stage 1 the weights follow: the gradients of CTC and of contrast, part by part.

Shapes in this file: P weights of a part.
"""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from unispeech.checkpoints.huggingface import load_model
from unispeech.data.streams import make_mixed_loader
from unispeech.models import UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.training.pretrain import streams
from unispeech.training.recipe import PretrainRecipe, load_recipe

PARTS = {
    "convolutions": "unispeech.feature_extractor.",
    "first half of the layers": "unispeech.encoder.layers.",
    "second half of the layers": "unispeech.encoder.layers.",
}
"""Name of a part -> how the names of its weights begin."""


@dataclass(kw_only=True)
class Pull:
    """What the batches showed of one part."""

    ctc: list[Tensor] = field(default_factory=list)
    """(P,) gradient of the weighted CTC loss of each batch."""
    contrast: list[Tensor] = field(default_factory=list)
    """(P,) gradient of the rest of the loss."""

    @property
    def ratio(self) -> float:
        """Length of the mean gradient of contrast over that of CTC."""
        return float(_mean(self.contrast).norm() / _mean(self.ctc).norm())

    @property
    def ratio_of_batches(self) -> float:
        """The same of single batches, in the middle."""
        pairs = zip(self.contrast, self.ctc, strict=True)
        return float(torch.stack([one.norm() / other.norm() for one, other in pairs]).median())

    @property
    def cosine(self) -> float:
        """Of the angle between the two mean gradients."""
        return float(torch.cosine_similarity(_mean(self.contrast), _mean(self.ctc), dim=0))


def measure(run: Path, num_batches: int) -> dict[str, Pull]:
    """Take the gradients of both losses on batches of a run.

    Args:
        run: Run directory of a stage 1.
        num_batches: How many batches of its labelled data.

    Returns:
        Name of each part -> what was seen.

    Raises:
        ValueError: If the run has no labelled data.
    """
    recipe = load_recipe(PretrainRecipe, run / "recipe.yaml")
    if not recipe.data.labelled:
        raise ValueError(f"{run}: must learn from labelled data, but has none.")
    model = load_model(run / "last", head="pretraining")
    assert isinstance(model, UniSpeechForPreTraining)
    model.set_gumbel_temperature(recipe.objective.temperature(recipe.schedule.num_updates))
    model.train()
    torch.manual_seed(recipe.runtime.seed)
    batches = make_mixed_loader(
        streams(recipe)[:1],
        vocabulary=Vocabulary.load(run / "last"),
        batch_seconds=recipe.data.batch_seconds,
        min_seconds=recipe.data.min_seconds,
        max_seconds=recipe.data.max_seconds,
        seed=recipe.runtime.seed,
        kernels=model.config.conv_kernel,
        strides=model.config.conv_stride,
    )
    weights, all_layers = _weights(model), torch.ones(model.config.num_hidden_layers, dtype=torch.bool)
    pulls = {name: Pull() for name in weights}
    for batch in islice(batches, num_batches):
        inputs = {name: batch[name] for name in ("input_values", "attention_mask", "labels")}
        output = model(**inputs, kept_layers=all_layers)
        ctc = model.config.ctc_weight * output.ctc_loss / output.num_targets
        rest = output.loss / output.num_targets - ctc
        for name, parameters in weights.items():
            for loss, kept in ((ctc, pulls[name].ctc), (rest, pulls[name].contrast)):
                found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                pairs = zip(found, parameters, strict=True)
                kept.append(
                    torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in pairs])
                )
    return pulls


def _weights(model: UniSpeechForPreTraining) -> dict[str, list[Tensor]]:
    """The weights of each part that learn from both losses."""
    middle = model.config.num_hidden_layers // 2
    halves = {"first half of the layers": range(middle), "second half of the layers": range(middle, 10**6)}
    found: dict[str, list[Tensor]] = {name: [] for name in PARTS}
    for name, parameter in model.named_parameters():
        for part, prefix in PARTS.items():
            if not name.startswith(prefix) or not parameter.requires_grad:
                continue
            if part not in halves or int(name.removeprefix(prefix).partition(".")[0]) in halves[part]:
                found[part].append(parameter)
    return {part: parameters for part, parameters in found.items() if parameters}


def _mean(gradients: list[Tensor]) -> Tensor:
    return torch.stack(gradients).mean(dim=0)
