"""The clock: samples <-> frames <-> seconds.

Three clocks run through the package. Samples and frames are `int` (or integer tensors), seconds are
`float`. With the published convolution stack a frame is seen every 320 samples (20 ms) through a
window of 400 samples (25 ms), so n samples give floor((n - 400) / 320) + 1 frames.

Nothing here imports torch: the functions use operators that `int` and integer tensors share.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000
"""Samples per second of every waveform inside the package."""

CONV_KERNEL = (10, 3, 3, 3, 3, 2, 2)
"""Kernel sizes of the published feature encoder, first layer first."""

CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)
"""Strides of the published feature encoder, first layer first."""

Seconds = float

Length = TypeVar("Length", int, "Tensor")


def receptive_field(kernels: Sequence[int] = CONV_KERNEL, strides: Sequence[int] = CONV_STRIDE) -> int:
    """Samples that one frame sees.

    Args:
        kernels: Kernel size of each convolution, first layer first.
        strides: Stride of each convolution, as many as `kernels`.

    Returns:
        The window in samples: 400 for the published stack.
    """
    window, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        window += (kernel - 1) * step
        step *= stride
    return window


def hop(strides: Sequence[int] = CONV_STRIDE) -> int:
    """Samples between the starts of two neighbouring frames: 320 for the published stack.

    Args:
        strides: Stride of each convolution.

    Returns:
        The product of the strides, in samples.
    """
    step = 1
    for stride in strides:
        step *= stride
    return step


def num_frames(
    num_samples: Length, kernels: Sequence[int] = CONV_KERNEL, strides: Sequence[int] = CONV_STRIDE
) -> Length:
    """Frames that the feature encoder makes of a waveform.

    Args:
        num_samples: Number of samples, at least 0; an `int` or an integer tensor of any shape.
        kernels: Kernel size of each convolution, first layer first.
        strides: Stride of each convolution, as many as `kernels`.

    Returns:
        The number of frames, 0 where the waveform is shorter than the receptive field; the type and
        shape of `num_samples`.

    Source:
        The length rule of an unpadded convolution, floor((n - kernel) / stride) + 1, layer by layer.
    """
    length = num_samples
    for kernel, stride in zip(kernels, strides, strict=True):
        # One stride is added before the division, so that a layer too short for its kernel yields a value
        # of 0 or less; it is clamped here, else a negative length could become positive further down.
        length = (length - kernel + stride) // stride
        length = length * (length > 0)
    return length


def frame_to_seconds(
    frame: float, kernels: Sequence[int] = CONV_KERNEL, strides: Sequence[int] = CONV_STRIDE
) -> Seconds:
    """The centre of a frame's window, in seconds from the start of the waveform.

    Args:
        frame: Frame number from 0; fractions lie between two frames.
        kernels: Kernel size of each convolution, first layer first.
        strides: Stride of each convolution.

    Returns:
        Seconds: frame 0 of the published stack is centred at 200 samples, 0.0125 s.
    """
    return (frame * hop(strides) + receptive_field(kernels, strides) / 2) / SAMPLE_RATE


def lengths_to_is_padding(lengths: "Tensor", max_length: int) -> "Tensor":
    """Mark what lies behind the end of each row.

    Args:
        lengths: (B,) integer tensor of valid lengths, each in [0, max_length].
        max_length: Width T of the result.

    Returns:
        (B, T) boolean tensor, True where the position is padding.
    """
    import torch

    positions = torch.arange(max_length, device=lengths.device)
    return positions >= lengths[:, None]
