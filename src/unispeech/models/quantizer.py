"""Latents -> codevectors: the product quantizer with a Gumbel softmax.

Shapes in this file: T frames (of the whole batch or of its targets), C channels, G codebooks, V entries, D
width of all codebooks together.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispeech.objectives import perplexity


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What the quantizer makes of a set of frames."""

    codevectors: Tensor
    """(..., D) chosen entries, codebook by codebook side by side."""
    codes: Tensor
    """(..., G) index of each chosen entry in its codebook."""
    logits: Tensor
    """(..., G, V) float32 scores before noise and temperature."""


class UnitNormalLinear(nn.Linear):
    """A linear layer that starts from N(0, 1) weights, no bias: at first all codes are in reach."""


class GumbelVectorQuantizer(nn.Module):
    """Choose one entry from each of G codebooks for every frame.

    In training the choice is a hard sample of the Gumbel softmax whose gradient is that of the soft one
    (straight-through); in evaluation it is the best score. Only the chosen entries are read: a gather in
    evaluation, one (T, V) x (V, D / G) product per codebook in training, never a (T, G V, D) array.

    Args:
        in_dim: Channels C of the latents.
        codevector_dim: D.
        num_groups: G; must divide D.
        num_vars: V.
        temperature: Gumbel temperature to start from.

    Source:
        arXiv:2006.11477, section 2 and equation 1; Jang et al. 2017 (arXiv:1611.01144). Parameter names match
        transformers' `quantizer`.
    """

    def __init__(
        self, in_dim: int, codevector_dim: int, num_groups: int, num_vars: int, *, temperature: float = 2.0
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.num_vars = num_vars
        self.temperature = temperature
        self.codevectors = nn.Parameter(torch.zeros(1, num_groups * num_vars, codevector_dim // num_groups))
        self.weight_proj = UnitNormalLinear(in_dim, num_groups * num_vars)

    def forward(
        self, latents: Tensor, *, gumbel_noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantize.

        Args:
            latents: (..., C).
            gumbel_noise: (..., G, V) standard Gumbel noise, used in training; None: drawn.
            generator: Source of the noise; None takes torch's own for the device.

        Returns:
            Codevectors, codes and scores.
        """
        scores = self.weight_proj(latents).unflatten(-1, (self.num_groups, self.num_vars))  # (..., G, V)
        logits = scores.float()
        if self.training:
            if gumbel_noise is None:
                gumbel_noise = gumbel_like(logits, generator)
            soft = F.softmax((logits + gumbel_noise) / self.temperature, dim=-1)
            codes = soft.argmax(dim=-1)
            hard = torch.zeros_like(soft).scatter_(-1, codes[..., None], 1.0)
            choice = (hard - soft.detach() + soft).to(scores.dtype)
            entries = self.codevectors.view(self.num_groups, self.num_vars, -1)
            codevectors = torch.einsum("...gv,gvd->...gd", choice, entries.to(choice.dtype))
        else:
            codes = scores.argmax(dim=-1)
            offsets = torch.arange(self.num_groups, device=codes.device) * self.num_vars
            codevectors = self.codevectors[0][codes + offsets]
        return Quantized(codevectors=codevectors.flatten(-2), codes=codes, logits=logits)

    def code_perplexity(self, codes: Tensor) -> Tensor:
        """Perplexity of the chosen entries.

        Args:
            codes: (T, G).

        Returns:
            Scalar in [G, G V]; of a uniform book where T is 0.
        """
        return perplexity(self.count_codes(codes) / max(codes.shape[0], 1))

    def count_codes(self, codes: Tensor) -> Tensor:
        """How often each entry is chosen.

        Args:
            codes: (T, G).

        Returns:
            (G, V) float32 counts.
        """
        offsets = torch.arange(self.num_groups, device=codes.device) * self.num_vars
        counts = torch.zeros(self.num_groups * self.num_vars, device=codes.device)
        ones = torch.ones(codes.numel(), device=codes.device)
        return counts.index_add(0, (codes + offsets).flatten(), ones).view(self.num_groups, self.num_vars)

    def prob_perplexity(self, logits: Tensor) -> Tensor:
        """Perplexity of the mean softmax, which the diversity loss drives up.

        Args:
            logits: (T, G, V).

        Returns:
            Scalar in [G, G V].
        """
        return perplexity(F.softmax(logits, dim=-1).sum(dim=0) / max(logits.shape[0], 1))


def gumbel_like(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise in the shape of `logits`.

    Args:
        logits: Any float tensor.
        generator: Source of randomness on the tensor's device; None takes torch's own.

    Returns:
        Noise of the same shape, type and device.
    """
    noise = torch.empty_like(logits, memory_format=torch.legacy_contiguous_format)
    return -noise.exponential_(generator=generator).log()
