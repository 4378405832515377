"""Relative position by a wide, weight-normed convolution.

Shapes in this file: B batch, T frames, H hidden, K kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN


class WeightNormParameters(nn.Module):
    """The magnitude and the direction of a weight-normed kernel, under the names that checkpoints use.

    `original0` is the magnitude g, (1, 1, K): one number per kernel position. `original1` is the direction v,
    (H, H / groups, K). The weight is g * v / |v|, the norm taken over the first two axes.

    Args:
        out_channels: H.
        in_channels: H / groups.
        kernel_size: K.
        init_std: Standard deviation of the initial weight.

    Source:
        Salimans and Kingma 2016 (arXiv:1602.07868). Our own module because torch's parametrisation cannot be
        pickled and hides the weight from initialisers.
    """

    def __init__(self, out_channels: int, in_channels: int, kernel_size: int, *, init_std: float) -> None:
        super().__init__()
        self.init_std = init_std
        self.original0 = nn.Parameter(torch.ones(1, 1, kernel_size))
        self.original1 = nn.Parameter(torch.ones(out_channels, in_channels, kernel_size))

    def weight(self) -> Tensor:
        """The (H, H / groups, K) kernel."""
        return torch._weight_norm(self.original1, self.original0, dim=2)

    @torch.no_grad()
    def reset_parameters(self, *, keep_magnitude: bool = False, keep_direction: bool = False) -> None:
        """Draw the kernel from N(0, init_std): the direction is drawn, the magnitude is its norm."""
        if not keep_direction:
            self.original1.normal_(0.0, self.init_std)
        if not keep_magnitude:
            self.original0.copy_(self.original1.norm(dim=(0, 1), keepdim=True))


class WeightNormConv(nn.Module):
    """A grouped, padded, weight-normed convolution over time.

    Args:
        channels: H, in and out.
        kernel_size: K, in frames.
        groups: Groups of channels.
    """

    def __init__(self, channels: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.kernel_size, self.groups = kernel_size, groups
        self.bias = nn.Parameter(torch.zeros(channels))
        self.parametrizations = nn.ModuleDict({
            "weight": WeightNormParameters(
                channels, channels // groups, kernel_size, init_std=(4 / (kernel_size * channels)) ** 0.5
            )
        })

    @property
    def weight(self) -> Tensor:
        """The (H, H / groups, K) kernel, computed."""
        parameters: WeightNormParameters = self.parametrizations["weight"]  # type: ignore[assignment]
        return parameters.weight()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, H, T) -> (B, H, T + 1 - K mod 2)."""
        return F.conv1d(x, self.weight, self.bias, padding=self.kernel_size // 2, groups=self.groups)


class PositionalConvEmbedding(nn.Module):
    """Relative position by a wide convolution: conv -> cut to T -> activation.

    Args:
        hidden_size: H.
        kernel_size: Width in frames; an even width yields one frame too many, which is cut.
        groups: Groups of channels.
        activation: A name that transformers knows.

    Source:
        arXiv:2006.11477, section 2; initial weights N(0, 4 / (K H)), bias 0.
    """

    def __init__(self, hidden_size: int, kernel_size: int, groups: int, activation: str) -> None:
        super().__init__()
        self.conv = WeightNormConv(hidden_size, kernel_size, groups)
        self.activation = ACT2FN[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Embed position.

        Args:
            x: (B, T, H), zero at padding.

        Returns:
            (B, T, H).
        """
        position = self.conv(x.transpose(1, 2))[..., : x.shape[1]]
        embedded: Tensor = self.activation(position).transpose(1, 2)
        return embedded
