"""Jobs are finished in the order of their start, with as many started ahead as are wanted."""

import pytest

from unispeech.pipelines.turns import in_turn


def jobs(events, num):
    for number in range(num):
        events.append(f"start {number}")

        def finish(number=number):
            events.append(f"finish {number}")
            return number * number

        yield number, finish


@pytest.mark.parametrize("num_ahead", [0, 1, 3, 9])
def test_results_come_in_order(num_ahead):
    assert list(in_turn(jobs([], 5), lambda: num_ahead)) == [(n, n * n) for n in range(5)]


def test_as_many_are_started_ahead_as_are_wanted():
    events = []
    next(in_turn(jobs(events, 5), lambda: 2))
    assert events == ["start 0", "start 1", "start 2", "finish 0"]


def test_none_is_started_ahead_where_none_is_wanted():
    events = []
    list(in_turn(jobs(events, 2), lambda: 0))
    assert events == ["start 0", "finish 0", "start 1", "finish 1"]


def test_what_is_wanted_may_change_on_the_way():
    events, wanted = [], [0]
    results = in_turn(jobs(events, 6), lambda: wanted[0])
    next(results)
    wanted[0] = 2
    next(results)
    assert events[2:] == ["start 1", "start 2", "start 3", "finish 1"]
    wanted[0] = 0
    next(results)
    assert events[-1] == "finish 2"
    assert [number for number, _ in results] == [3, 4, 5]
