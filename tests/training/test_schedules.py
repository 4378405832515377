"""Learning rates against the numbers that the original's schedules gave, and AdamW against the original's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unispeech.training.loop import make_optimizer
from unispeech.training.schedules import learning_rate, schedule_factor
from unispeech.training.sections import OptimSettings, ScheduleSettings

TRI_STAGE = ScheduleSettings(num_updates=20_000, kind="tri-stage", warmup_fraction=0.1, hold_fraction=0.4)
STAGE_1 = ScheduleSettings(
    num_updates=200_000,
    kind="polynomial",
    warmup_fraction=0.125,
    hold_fraction=0,
    initial_factor=0,
    final_factor=0,
)
STAGE_2 = ScheduleSettings(
    num_updates=100_000,
    kind="polynomial",
    warmup_fraction=0.1,
    hold_fraction=0,
    initial_factor=0,
    final_factor=0,
)

# Recorded from the authors' code: fine-tuning (peak 2e-5) and pre-training stages 1 (1e-3) and 2 (2e-4).
TRI_STAGE_RATES = {
    0: 2.0000000000000002e-07,
    1: 2.0990000000000002e-07,
    1000: 1.01e-05,
    1999: 1.99901e-05,
    2000: 2e-05,
    5000: 2e-05,
    9999: 2e-05,
    10000: 2e-05,
    10001: 1.9994009432804468e-05,
    15000: 4.47213595499958e-06,
    19999: 1.000299618103896e-06,
    20000: 1.0000000000000004e-06,
    20001: 1.0000000000000002e-06,
    25000: 1e-06,
}
STAGE_1_RATES = {
    0: 0.0,
    1: 4e-08,
    100: 4e-06,
    12500: 0.0005,
    24999: 0.00099996,
    25000: 0.001,
    25001: 0.0009999942857142857,
    50000: 0.0008571428571428572,
    112500: 0.0005,
    199999: 5.714285714275569e-09,
    200000: 0.0,
    250000: 0.0,
}
STAGE_2_RATES = {
    0: 0.0,
    1: 2e-08,
    5000: 0.0001,
    10000: 0.0002,
    10001: 0.0001999977777777778,
    55000: 0.0001,
    99999: 2.222222222214576e-09,
    100000: 0.0,
}


@pytest.mark.parametrize(
    ("settings", "peak", "rates"),
    [(TRI_STAGE, 2e-5, TRI_STAGE_RATES), (STAGE_1, 1e-3, STAGE_1_RATES), (STAGE_2, 2e-4, STAGE_2_RATES)],
)
def test_rates_are_those_of_the_original(settings, peak, rates):
    for update, rate in rates.items():
        assert learning_rate(settings, peak, update) == pytest.approx(rate, rel=1e-9, abs=1e-18)


def test_constant_stays_at_the_peak_after_its_warmup():
    settings = ScheduleSettings(num_updates=10, kind="constant", warmup_fraction=0.2, initial_factor=0.5)
    assert [schedule_factor(settings, update) for update in (0, 1, 2, 9, 30)] == [0.5, 0.75, 1, 1, 1]


def test_power_bends_the_polynomial():
    settings = ScheduleSettings(
        num_updates=10, kind="polynomial", warmup_fraction=0, hold_fraction=0, final_factor=0, power=2
    )
    assert schedule_factor(settings, 5) == 0.25


@given(
    st.sampled_from(["tri-stage", "polynomial", "constant"]),
    st.integers(1, 60),
    st.integers(0, 80),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 1),
    st.floats(1e-6, 1),
)
def test_factor_lies_in_the_unit_interval(kind, num_updates, update, warmup, hold, initial, final):
    settings = ScheduleSettings(
        num_updates=num_updates,
        kind=kind,
        warmup_fraction=warmup,
        hold_fraction=hold,
        initial_factor=initial,
        final_factor=final,
    )
    assert 0 <= schedule_factor(settings, update) <= 1


def test_negative_update_is_refused():
    with pytest.raises(ValueError, match=r"`update` must be 0 or more, but is -1"):
        schedule_factor(TRI_STAGE, -1)


@pytest.mark.shared_data
def test_adamw_follows_the_original(shared_dir):
    """The one difference is where eps is added: the original adds it before the bias correction."""
    recorded = np.load(shared_dir / "golden" / "misc.npz")
    weight = torch.nn.Parameter(torch.tensor(recorded["adam/p0"]))
    settings = OptimSettings(learning_rate=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    optimizer = make_optimizer([weight], settings, torch.device("cpu"))
    for step, (gradient, expected) in enumerate(
        zip(recorded["adam/grads"], recorded["adam/params_after"], strict=True), start=1
    ):
        optimizer.param_groups[0]["eps"] = 1e-6 / (1 - 0.98**step) ** 0.5
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(
            weight.detach().numpy(), expected, rtol=0, atol=1e-6
        )  # a few steps of float32
