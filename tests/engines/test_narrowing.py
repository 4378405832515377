"""Numbers of 8 bits: their levels, and which places take them."""

import numpy as np
import pytest

from unispeech.engines.narrowing import limits_of, rounded
from unispeech.engines.quantisation import choose_narrow, find_limits

NUM_FRAMES = 400


def test_values_move_by_half_a_step_at_most():
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * np.float32([1, 10, 100])
    scale = np.float32([0.1, 1, 10])
    limits = limits_of(float((values / scale).min()), float((values / scale).max()), scale)
    step = (limits.high - limits.low) / 255
    found = rounded(values, limits)
    assert np.abs(found - values / scale).max() <= 0.51 * step
    assert len(np.unique(np.rint(found / step))) <= 256
    assert rounded(np.float32([1e6]), limits_of(-1, 1))[0] == pytest.approx(1, rel=0.01)


def test_limits_are_what_was_seen_and_the_head_stays_wide():
    rng = np.random.default_rng(0)
    passes = [
        {
            "conv.1": rng.normal(size=(1, 60, 2)).astype(np.float32) * np.float32([1, 9]),
            "head": np.ones((1, 5, 2)),
        }
        for _ in range(2)
    ]
    whole = np.concatenate([seen["conv.1"][0] for seen in passes])
    [(place, limits)] = find_limits(passes, is_uneven=True).items()
    assert place == "conv.1"
    assert limits.scale[1] > 5 * limits.scale[0]
    np.testing.assert_allclose(limits.means[0], whole.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(limits.means[1] * limits.scale, whole.mean(axis=0), atol=0.02)
    assert find_limits(passes, is_uneven=False)["conv.1"].scale is None


def test_the_worst_places_are_widened_until_frames_are_the_same():
    changed = {"conv.1": 2, "conv.2": 9, "conv.3": 1, "position": 3, "encoder.layers.0.x": 2}
    tried = []

    def run(limits):
        tried.append(set(limits))
        log_probs = np.zeros((NUM_FRAMES, 2))
        log_probs[: sum(changed[place] for place in limits), 1] = 1.0
        return [log_probs]

    expected = [np.tile([0.5, 0.0], (NUM_FRAMES, 1))]
    limits = dict.fromkeys(changed, limits_of(-1, 1))
    # Four frames of 400 may change: conv.2 goes, position goes, conv.1 goes.
    assert set(choose_narrow(limits, run, expected)) == {"conv.3", "encoder.layers.0.x"}
    assert {"encoder.layers.0.x"} not in tried
    few = {place: limits[place] for place in ("conv.1", "conv.3")}
    assert choose_narrow(few, run, expected) == few
