"""The clock: lengths against real convolutions, seconds against arithmetic done by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unispeech.frames import (
    CONV_KERNEL,
    CONV_STRIDE,
    frame_to_seconds,
    hop,
    lengths_to_is_padding,
    num_frames,
    receptive_field,
)

stacks = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=4)


def convolved_length(num_samples, kernels, strides):
    """The length that PyTorch's own convolutions give, 0 where one of them refuses."""
    x = torch.zeros(1, 1, num_samples)
    for kernel, stride in zip(kernels, strides, strict=True):
        if x.shape[-1] < kernel:
            return 0
        x = nn.functional.conv1d(x, torch.zeros(1, 1, kernel), stride=stride)
    return x.shape[-1]


def test_published_stack_sees_400_samples_every_320():
    assert receptive_field() == 400
    assert hop() == 320


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [(0, 0), (1, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49), (24_000, 74), (17_003, 52)],
)
def test_frames_of_the_published_stack(num_samples, expected):
    assert num_frames(num_samples) == expected


@given(num_samples=st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_published_stack_counts_as_convolutions_do(num_samples):
    assert num_frames(num_samples) == convolved_length(num_samples, CONV_KERNEL, CONV_STRIDE)


@given(num_samples=st.integers(0, 300), stack=stacks)
@settings(max_examples=150, deadline=None)
def test_any_stack_counts_as_convolutions_do(num_samples, stack):
    kernels, strides = zip(*stack, strict=True)
    assert num_frames(num_samples, kernels, strides) == convolved_length(num_samples, kernels, strides)


@given(stack=stacks)
def test_receptive_field_is_the_shortest_audio_with_a_frame(stack):
    kernels, strides = zip(*stack, strict=True)
    window = receptive_field(kernels, strides)
    assert num_frames(window, kernels, strides) == 1
    assert num_frames(window - 1, kernels, strides) == 0
    assert num_frames(window + hop(strides), kernels, strides) == 2


@given(lengths=st.lists(st.integers(0, 50_000), min_size=1, max_size=8))
def test_tensors_count_as_integers_do(lengths):
    counted = num_frames(torch.tensor(lengths))
    assert counted.tolist() == [num_frames(length) for length in lengths]
    assert counted.dtype == torch.int64


def test_kernels_and_strides_of_different_number_are_refused():
    with pytest.raises(ValueError, match="zip"):
        num_frames(400, (10, 3), (5,))


@given(frame=st.integers(0, 10_000))
def test_frame_centres_are_a_hop_apart(frame):
    assert frame_to_seconds(frame) == pytest.approx((200 + 320 * frame) / 16_000)


def test_padding_begins_behind_the_length():
    is_padding = lengths_to_is_padding(torch.tensor([0, 2, 3]), 3)
    assert is_padding.tolist() == [[True, True, True], [False, False, True], [False, False, False]]
