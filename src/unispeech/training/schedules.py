"""Learning rates over the updates of a run: warm-up, hold, decay.

An update is counted from 0: `update` is the number of updates already made, so the first one runs with
`learning_rate(settings, 0)`, as in the original.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unispeech.training.sections import ScheduleSettings


def schedule_factor(settings: "ScheduleSettings", update: int) -> float:
    """The share of the peak learning rate that one update gets.

    The factor climbs in a straight line from `initial_factor` to 1 over the warm-up, stays there for the
    hold, and then falls to `final_factor` at `num_updates`: "tri-stage" along an exponential, "polynomial"
    along (remaining share) ** `power`; "constant" does not fall. Behind `num_updates` the last value stays.

    Args:
        settings: The schedule of the recipe.
        update: Number of updates made before this one, at least 0.

    Returns:
        A factor in [0, 1].

    Raises:
        ValueError: If `update` is negative.

    Source:
        fairseq's `tri_stage` and `polynomial_decay` schedules as UniSpeech (arXiv:2101.07597) uses them.
    """
    if update < 0:
        raise ValueError(f"`update` must be 0 or more, but is {update}.")
    num_warmup = round(settings.num_updates * settings.warmup_fraction)
    num_hold = round(settings.num_updates * settings.hold_fraction)
    num_decay = settings.num_updates - num_warmup - num_hold
    if update < num_warmup:
        return settings.initial_factor + (1 - settings.initial_factor) * update / num_warmup
    into_decay = update - num_warmup - num_hold
    if into_decay <= 0 or settings.kind == "constant":
        return 1.0
    if into_decay >= num_decay:
        return settings.final_factor
    if settings.kind == "tri-stage":
        return math.exp(math.log(settings.final_factor) * into_decay / num_decay)
    remaining: float = (1 - into_decay / num_decay) ** settings.power
    return settings.final_factor + (1 - settings.final_factor) * remaining


def learning_rate(settings: "ScheduleSettings", peak: float, update: int) -> float:
    """The learning rate of one update.

    Args:
        settings: The schedule of the recipe.
        peak: The highest learning rate, reached after the warm-up.
        update: Number of updates made before this one, at least 0.

    Returns:
        `peak` times `schedule_factor`.
    """
    return peak * schedule_factor(settings, update)
