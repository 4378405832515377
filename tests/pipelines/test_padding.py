"""How much of what an engine computes on a folder is padding, counted in frames."""

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput

from tiny_recognisers import PHONES, tiny_recogniser
from unispeech import Transcriber
from unispeech.engines.cache import Facts
from unispeech.engines.graph_engine import GraphEngine
from unispeech.frames import num_frames
from unispeech.pipelines.recordings import Recording
from unispeech.results import Transcript

NOISE = np.random.default_rng(0).normal(size=20 * 16_000 + 1).astype(np.float32) * 0.1


class Counted:
    """Frames that were computed, of batches as they came."""

    def __init__(self):
        self.model = tiny_recogniser()
        self.model.forward = self.forward
        self.frames = 0

    def forward(self, input_values, attention_mask):
        rows, frames = len(input_values), num_frames(input_values.shape[1])
        self.frames += rows * frames
        return CausalLMOutput(logits=torch.zeros(rows, frames, len(PHONES)))


class CountedGraph(GraphEngine):
    name = "counted"

    def __init__(self, config):
        facts = Facts(
            kernels=tuple(config.conv_kernel),
            strides=tuple(config.conv_stride),
            num_symbols=len(PHONES),
            blank=0,
            has_group_norm=False,
        )
        super().__init__(facts, "float32")
        self.frames = 0

    def run(self, feed):
        frames = num_frames(feed["waveforms"].shape[1])
        self.frames += frames
        return np.zeros((1, frames, len(PHONES)), np.float32)


@pytest.mark.parametrize("kind", ["torch", "graph"])
@pytest.mark.parametrize("seed", range(2))
def test_of_a_folder_of_1_to_20_s_less_than_3_percent_is_padding(kind, seed):
    lengths = np.random.default_rng(seed).uniform(1, 20, size=200) * 16_000
    recordings = [
        Recording(source=str(i), duration=length / 16_000, load=lambda length=length: NOISE[: round(length)])
        for i, length in enumerate(lengths)
    ]
    counted = Counted()
    transcriber = Transcriber(counted.model, vocabulary=PHONES, engine="torch", times="spikes")
    if kind == "graph":
        transcriber.emitter.engine = counted = CountedGraph(counted.model.config)
    outcomes = [outcome for _, outcome in transcriber.transcribe_recordings(recordings)]
    assert len(outcomes) == 200
    assert all(isinstance(outcome, Transcript) for outcome in outcomes)
    own = sum(num_frames(round(length)) for length in lengths)
    assert own < counted.frames
    assert 1 - own / counted.frames < 0.03
