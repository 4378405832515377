"""Frames of padded rows: the table of the original code against both rules."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from unispeech import UniSpeechModel
from unispeech.frames import num_frames


@pytest.mark.parametrize(("rule", "column"), [("original", 3), ("convolution", 4)])
def test_both_rules(rule, column):
    table = np.load(Path(__file__).parent / "frames.npz")["table"]
    assert len(table) == 400
    model = tiny.build(UniSpeechModel, frame_count_rule=rule)
    for row in table:
        padded, valid, width, expected = (int(row[i]) for i in (0, 1, 2, column))
        assert num_frames(padded) == width
        assert model.frame_lengths(torch.tensor([valid]), padded).item() == expected
