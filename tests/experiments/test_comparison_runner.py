"""Carrying out steps: cached, several at a time, failed, stopped, killed, taken up again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments import runner
from experiments.corpora import Sources
from experiments.results import load_results, record
from experiments.runner import Workshop, read_json, reopen, run_steps
from experiments.steps import Step

WORKER = """
import json, pathlib, signal, sys, time
place, seconds, fails = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "True"
with (place / "calls").open("a") as file:
    file.write("called\\n")
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
time.sleep(seconds if len((place / "calls").read_text().split()) == 1 else 0)
if fails:
    print("something\\nthis is why\\n")
    sys.exit(2)
(place / "result.json").write_text(json.dumps({"found": place.name}))
"""


def command(step: Step, directory: Path, inputs: dict[str, Any], sources: Sources) -> list[str]:
    values = [directory, inputs.get("seconds", 0), inputs.get("fails", False)]
    return ["-c", WORKER, *map(str, values)]


def make(name: str, *parents: Step, **inputs: object) -> Step:
    return Step(name=name, kind="score", inputs={"name": name, **inputs}, parents=parents)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(work=tmp_path / "work", sources=Sources(texts=tmp_path, manifest=tmp_path / "m.jsonl"))


def calls(workshop: Workshop, step: Step) -> int:
    return len((workshop.directory(step) / "calls").read_text().split())


def test_steps_are_carried_out_once(workshop: Workshop) -> None:
    first = make("first")
    steps = [first, make("second", first)]
    told: list[str] = []
    assert run_steps(steps, workshop, num_jobs=2, command=command, tell=told.append)
    assert run_steps(steps, workshop, num_jobs=2, command=command, tell=told.append)
    assert [line.split(": ")[1].split(" in")[0] for line in told] == ["begun", "done"] * 2
    assert [calls(workshop, step) for step in steps] == [1, 1]
    outcome = workshop.outcome(steps[1])
    assert outcome["result"] == {"found": steps[1].label}
    assert outcome["key"] == steps[1].key


def test_two_run_at_a_time_but_not_before_what_they_need(workshop: Workshop) -> None:
    a, b = make("a", seconds=1.5), make("b", seconds=1.5)
    c = make("c", a, b)
    told: list[str] = []
    assert run_steps([a, b, c], workshop, num_jobs=2, command=command, tell=told.append)
    kinds = [line.split(": ")[1].split(" in")[0] for line in told]
    assert kinds == ["begun", "begun", "done", "done", "begun", "done"]


def test_a_failure_is_written_down_and_the_rest_goes_on(workshop: Workshop, tmp_path: Path) -> None:
    bad = make("bad", fails=True)
    needs, other = make("needs", bad), make("other")
    path = tmp_path / "results" / "x.json"
    done: list[Step] = []

    def on_done(step: Step) -> None:
        done.append(step)
        record(step, workshop, path, num_jobs=1)

    steps = [bad, needs, other]
    assert run_steps(steps, workshop, num_jobs=1, command=command, on_done=on_done, tell=lambda line: None)
    assert [workshop.state(step) for step in steps] == ["failed", "waiting", "done"]
    assert done == [bad, other]
    results = load_results(path)
    assert (results.of(bad) or {})["message"] == "this is why"
    assert (results.of(other) or {})["result"] == {"found": other.label}
    assert results.of(needs) is None


def test_a_failure_elsewhere_does_not_replace_a_result(workshop: Workshop, tmp_path: Path) -> None:
    step, path = make("step"), tmp_path / "results.json"
    run_steps([step], workshop, num_jobs=1, command=command, tell=lambda line: None)
    record(step, workshop, path, num_jobs=1)
    elsewhere = Workshop(work=tmp_path / "elsewhere", sources=workshop.sources)
    run_steps([step], elsewhere, num_jobs=1, command=lambda *_: ["-c", "pass"], tell=lambda line: None)
    record(step, elsewhere, path, num_jobs=1)
    assert (load_results(path).of(step) or {})["result"] == {"found": step.label}


def test_a_failed_training_keeps_its_checkpoints_for_another_try(workshop: Workshop) -> None:
    training = Step(name="training", kind="pretrain", inputs={"fails": True})
    score = make("score", fails=True)
    run_steps([training, score], workshop, num_jobs=1, command=command, tell=lambda line: None)
    spent = workshop.outcome(training)["seconds"]
    checkpoint = workshop.directory(training) / "run" / "last"
    checkpoint.mkdir(parents=True)
    for step in (training, score):
        reopen(step, workshop)
    assert workshop.state(training) == "begun"
    assert checkpoint.exists()
    assert read_json(workshop.directory(training) / "spent.json")["seconds"] == spent
    assert workshop.state(score) == "waiting"


def test_a_step_without_an_outcome_has_failed(workshop: Workshop) -> None:
    step = make("empty")
    run_steps([step], workshop, num_jobs=1, command=lambda *_: ["-c", "pass"], tell=lambda line: None)
    assert "no outcome" in workshop.outcome(step)["message"]


def test_time_is_kept_and_what_was_stopped_goes_on(workshop: Workshop) -> None:
    step = make("long", seconds=60)
    started = time.monotonic()
    assert not run_steps([step], workshop, num_jobs=1, seconds=2.0, command=command, tell=lambda line: None)
    assert time.monotonic() - started < 20
    assert workshop.state(step) == "begun"
    before = read_json(workshop.directory(step) / "spent.json")["seconds"]
    assert before >= 1

    def quick(step: Step, directory: Path, inputs: dict[str, Any], sources: Sources) -> list[str]:
        return command(step, directory, {}, sources)

    assert run_steps([step], workshop, num_jobs=1, command=quick, tell=lambda line: None)
    assert workshop.outcome(step)["seconds"] > before
    assert 0 < workshop.outcome(step)["cpu_seconds"] < workshop.outcome(step)["seconds"]


def test_a_step_that_does_not_listen_is_ended(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    started = time.monotonic()
    run_steps(
        [make("deaf")],
        workshop,
        num_jobs=1,
        seconds=0.1,
        command=lambda *_: ["-c", deaf],
        tell=lambda line: None,
    )
    assert time.monotonic() - started < 20
    assert workshop.state(make("deaf")) == "begun"


RUNNER = """
import signal, sys, pathlib
sys.path.insert(0, {tests!r})
import test_comparison_runner as here
from experiments.corpora import Sources
from experiments.runner import Workshop, run_steps
signal.signal(signal.SIGTERM, signal.default_int_handler)
place = pathlib.Path({work!r})
workshop = Workshop(work=place, sources=Sources(texts=place, manifest=place))
run_steps([here.make("long", seconds=float({seconds!r}))], workshop, num_jobs=1, command=here.command)
"""


def start_runner(workshop: Workshop, seconds: float) -> "subprocess.Popen[bytes]":
    code = RUNNER.format(tests=str(Path(__file__).parent), work=str(workshop.work), seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists() and path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")


def test_a_runner_told_to_end_stops_its_steps(workshop: Workshop) -> None:
    step = make("long", seconds=30.0)
    process = start_runner(workshop, 30.0)
    wait_for(workshop.directory(step) / "calls")
    process.terminate()
    assert process.wait(30) != 0
    assert workshop.state(step) == "begun"
    assert run_steps([step], workshop, num_jobs=1, command=command, tell=lambda line: None)


def test_a_killed_runner_is_followed_only_when_its_steps_have_ended(workshop: Workshop) -> None:
    step = make("long", seconds=5.0)
    process = start_runner(workshop, 5.0)
    wait_for(workshop.directory(step) / "calls")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(ValueError, match=r"work: must not be in use, but steps are being carried out there"):
        run_steps([step], workshop, num_jobs=1, command=command)
    for _ in range(300):
        try:
            assert run_steps([step], workshop, num_jobs=1, command=command, tell=lambda line: None)
            break
        except ValueError:
            time.sleep(0.1)
    assert workshop.state(step) == "done"
