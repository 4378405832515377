"""Stock: `output_attentions=True` with sdpa gives an empty tuple and no warning."""

import logging

import pytest
import torch

import tiny
from unispeech import UniSpeechForCTC, UniSpeechModel
from unispeech.models import base


class Listener(logging.Handler):
    """Collects messages."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture
def messages():
    listener = Listener()
    base.logger.addHandler(listener)
    base.logger.warning_once.cache_clear()
    yield listener.messages
    base.logger.removeHandler(listener)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_maps_come_and_a_warning_with_them(norm, messages):
    model = tiny.build(UniSpeechModel, norm)
    assert model.config._attn_implementation == "sdpa"
    x, mask = tiny.waveforms(6000, 4000)
    maps = model(x, mask, output_attentions=True).attentions
    assert any("output_attentions" in message for message in messages)
    model.set_attn_implementation("eager")
    expected = model(x, mask, output_attentions=True).attentions
    assert len(maps) == len(expected) == 3
    for a, b in zip(maps, expected, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a.sum(-1), torch.ones(2, 4, 18))
        assert a[1, :, :, 12:].max() == 0  # the keys of padding


def test_the_eager_engine_is_not_warned_of(messages):
    model = tiny.build(UniSpeechForCTC, attn_implementation="eager")
    assert len(model(tiny.waveforms(6000)[0], output_attentions=True).attentions) == 3
    assert messages == []


def test_by_configuration():
    model = tiny.build(UniSpeechForCTC)
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    assert len(model(tiny.waveforms(6000)[0]).attentions) == 3
