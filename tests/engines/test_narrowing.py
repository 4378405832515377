"""Numbers of 8 bits: their levels, and which places take them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.engines.narrowing import even_limits, limits_of_channels, limits_of_tensor, rounded
from unispeech.engines.quantisation import choose_narrow, find_limits

NUM_FRAMES = 400


def loud_and_quiet(seed=0):
    """Channels that rest at 0.1 and -0.2, as they do half of the time."""
    noise = np.random.default_rng(seed).normal(size=(NUM_FRAMES, 2)) * [1, 9]
    noise[: NUM_FRAMES // 2] = 0
    return (noise + np.float32([0.1, -0.2])).astype(np.float32)


@given(low=st.floats(-100, 100), width=st.floats(0, 200))
def test_zero_is_an_even_level(low, width):
    limits = even_limits(low, low + width)
    step = (limits.high - limits.low) / 255
    assert limits.low / step == pytest.approx(-128)
    assert limits.low <= low + 1e-6
    assert limits.high >= low + width - 1e-6


def test_values_of_a_tensor_move_by_half_a_step_at_most():
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) + 2
    limits = limits_of_tensor(float(values.min()), float(values.max()), values.mean(axis=0))
    found = rounded(values, limits)
    assert found.min() == 0
    np.testing.assert_allclose(found + limits.low, values, atol=0.51 * (limits.high - limits.low) / 255)
    np.testing.assert_allclose(limits.means[1] + limits.low, values.mean(axis=0), atol=1e-5)
    assert rounded(np.float32([1e6]), even_limits(-1, 1))[0] == pytest.approx(1, rel=0.01)


def test_each_channel_has_all_levels_and_rests_at_one():
    values = loud_and_quiet()
    limits = limits_of_channels(values)
    found = rounded(values, limits)
    step = limits.high / 255
    assert ((found / step).min(axis=0) <= 2).all()
    assert ((found / step).max(axis=0) > 253).all()
    back = (found + limits.shift) * limits.scale
    assert (np.abs(back - values).max(axis=0) <= 0.51 * limits.scale * step).all()
    np.testing.assert_allclose(back[0], values[0], atol=1e-4)
    np.testing.assert_allclose(limits.means[1], found.mean(axis=0))


def test_limits_are_what_was_seen_and_the_head_stays_wide():
    passes = [
        {
            "conv.1": loud_and_quiet(seed)[None],
            "encoder.layers.0.attention.in": loud_and_quiet(seed)[None] + seed,
            "encoder.layers.0.attention.query": loud_and_quiet(seed)[None],
            "head": np.ones((1, 5, 2)),
        }
        for seed in range(2)
    ]
    found = find_limits(passes, is_uneven=True)
    assert list(found) == ["conv.1", "encoder.layers.0.attention.in", "encoder.layers.0.attention.query"]
    whole = np.concatenate([loud_and_quiet(seed) for seed in range(2)])
    np.testing.assert_allclose(found["conv.1"].means[0], whole.mean(axis=0), atol=1e-5)
    assert found["conv.1"].scale[1] > 5 * found["conv.1"].scale[0]
    limits = found["encoder.layers.0.attention.in"]
    moved = np.concatenate([loud_and_quiet(seed) + seed for seed in range(2)])
    assert (limits.low, limits.high) == pytest.approx((moved.min(), moved.max()))
    np.testing.assert_allclose(limits.means[0], moved.mean(axis=0), rtol=1e-5)
    assert found["encoder.layers.0.attention.query"].means is None
    assert find_limits(passes, is_uneven=False)["conv.1"].scale is None


def test_the_worst_places_are_widened_until_little_is_lost():
    lost = {
        "conv.1": 0.002,
        "conv.2": 0.009,
        "conv.3": 0.0005,
        "position": 0.003,
        "encoder.layers.0.x": 0.0015,
    }
    tried = []

    def run(limits):
        tried.append(set(limits))
        return [np.full((NUM_FRAMES, 2), np.log(0.5) - sum(lost[place] for place in limits))]

    expected = [np.full((NUM_FRAMES, 2), np.log(0.5))]
    limits = dict.fromkeys(lost, even_limits(-1, 1))
    # 0.003 nats may be lost: conv.2 goes, position goes, conv.1 goes.
    assert set(choose_narrow(limits, run, expected)) == {"conv.3", "encoder.layers.0.x"}
    assert {"encoder.layers.0.x"} not in tried
    few = {place: limits[place] for place in ("conv.1", "conv.3")}
    assert choose_narrow(few, run, expected) == few
