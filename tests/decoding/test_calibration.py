import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.decoding.calibration import (
    Calibration,
    chance_calibration_error,
    expected_calibration_error,
    fit_calibration,
    is_right,
    read_calibration,
    write_calibration,
)
from unispeech.errors import CheckpointError


def answers(slope, bias, num=20_000, seed=0):
    """Scores of a network that is off by a known map, and whether each is right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.5, 2.0, size=num)
    rights = rng.random(num) < 1 / (1 + np.exp(-(slope * logits + bias)))
    return 1 / (1 + np.exp(-logits)), rights


def test_a_phone_is_right_if_the_alignment_pairs_it_with_itself():
    assert is_right(["a", "b", "c"], ["a", "x", "c"]) == [True, False, True]
    assert is_right(["a", "c"], ["a", "x", "c"]) == [True, False, True]
    assert is_right(["a", "b", "c"], ["c"]) == [True]
    assert is_right([], ["c"]) == [False]
    assert is_right(["a"], []) == []


def test_the_error_is_that_of_bins_weighed_by_what_is_in_them():
    # Bins of 1/15: 0.61 and 0.65 share one, 0.95 and 1.0 the last; 0.59 is in one of its own.
    scores, rights = [0.59, 0.61, 0.65, 0.95, 1.0], [True, True, False, True, True]
    expected = (abs(0.59 - 1.0) + abs(0.63 - 0.5) * 2 + abs(0.975 - 1.0) * 2) / 5
    assert expected_calibration_error(scores, rights) == pytest.approx(expected)
    assert expected_calibration_error([], []) == 0.0
    assert expected_calibration_error([1.0] * 5, [True] * 5) == 0.0
    assert expected_calibration_error([0.0] * 5, [True] * 5) == 1.0


def test_few_phones_are_off_by_chance():
    scores, rights = answers(1.0, 0.0)
    few = [
        expected_calibration_error(scores[i : i + 130], rights[i : i + 130]) for i in range(0, 19_500, 130)
    ]
    found = np.mean([chance_calibration_error(scores[i : i + 130]) for i in range(0, 19_500, 130)])
    assert found == pytest.approx(np.mean(few), rel=0.05)
    assert 0.09 < found < 0.12
    assert chance_calibration_error(scores) < 0.01
    assert chance_calibration_error([]) == 0.0
    assert chance_calibration_error([0.0, 1.0]) == 0.0


@pytest.mark.parametrize(("slope", "bias"), [(1.0, 0.0), (0.5, 1.0), (2.0, -0.7)])
def test_the_fit_finds_the_map_and_scores_become_probabilities(slope, bias):
    found = fit_calibration(*answers(slope, bias))
    assert found.slope == pytest.approx(slope, rel=0.07)
    assert found.bias == pytest.approx(bias, abs=0.07)
    scores, rights = answers(slope, bias, seed=1)
    calibrated = [found.apply(score) for score in scores]
    assert expected_calibration_error(calibrated, rights) < 0.012
    if slope != 1.0:
        assert expected_calibration_error(scores, rights) > 0.05
        # A temperature, which is a slope alone, cannot do it.
        alone = [Calibration(slope=found.slope).apply(score) for score in scores]
        assert expected_calibration_error(alone, rights) > 0.04


def test_what_can_be_told_apart_at_once_is_fitted_all_the_same():
    found = fit_calibration([0.1, 0.2, 0.8, 0.9, 1.0, 0.0], [False, False, True, True, True, False])
    assert 0 < found.apply(0.1) < 0.5 < found.apply(0.9) < 1


@pytest.mark.parametrize("rights", [[True, True], [False, False], []])
def test_all_right_or_all_wrong_cannot_be_fitted(rights):
    with pytest.raises(
        ValueError, match="`rights` must hold phones that are right and phones that are wrong"
    ):
        fit_calibration([0.2, 0.8][: len(rights)], rights)


def test_scores_that_mislead_cannot_be_fitted():
    with pytest.raises(ValueError, match="`scores` must be higher where phones are right"):
        fit_calibration([0.1, 0.2, 0.8, 0.9], [True, True, False, False])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 20), st.floats(-30, 30))
def test_order_stays_and_probabilities_are_such(first, second, slope, bias):
    calibration = Calibration(slope=slope, bias=bias)
    low, high = sorted([first, second])
    assert 0 <= calibration.apply(low) <= calibration.apply(high) <= 1
    assert Calibration().apply(first) == first


def test_a_calibration_is_read_back(tmp_path):
    assert read_calibration(tmp_path) == Calibration()
    write_calibration(tmp_path, Calibration(slope=0.7, bias=-0.1))
    assert read_calibration(tmp_path) == Calibration(slope=0.7, bias=-0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    write_calibration(tmp_path, Calibration(bias=0.5))

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match=r"No space left on device: '.*/calibration\.json'"):
        write_calibration(tmp_path, Calibration(bias=0.7))
    assert read_calibration(tmp_path) == Calibration(bias=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "3", '{"version": 1, "slope": 1}', '{"version": 2, "slope": 1, "bias": 0}',
        '{"version": 1, "slope": -1, "bias": 0}', '{"version": 1, "slope": 1, "bias": NaN}',
        '{"version": 1, "slope": Infinity, "bias": 0}', '{"version": 1, "slope": null, "bias": 0}',
        json.dumps({"version": 1, "slope": "x", "bias": 0}),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"calibration\.json: must be an object with version 1, a posit"
    ):
        read_calibration(tmp_path)
