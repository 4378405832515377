"""Figures and pages of the comparison, from made-up results."""

import json
from pathlib import Path

import pytest

from experiments.plan import LIGHT, SYSTEMS, make_plan
from experiments.report import write_report
from experiments.results import Results
from experiments.settings import load
from experiments.statistics import Scored, per, reduction
from experiments.steps import Step

LENGTHS = [10] * 50
ERRORS = {"scratch": 9, "ssl": 8, "ctc": 6, "uni1": 5, LIGHT.name: 3, "uni12": 4, "mixed": 4}


def outcome(step: Step) -> dict[str, object]:
    kept: dict[str, object] = {"name": step.name, "seconds": 60.0, "jobs": 2, "machine": "2 cores"}
    if step.kind == "corpus":
        return kept | {"result": {"test_lengths": LENGTHS}}
    if step.kind == "score":
        assert step.role is not None
        return kept | {"result": {"errors": [ERRORS.get(step.role.system, 7)] * 50}}
    return kept | {"result": {"contrastive_accuracy": 0.5, "code_perplexity": 40.0}}


def results_of(steps: list[Step]) -> Results:
    return Results(outcomes={step.key: json.loads(json.dumps(outcome(step))) for step in steps})


def page(steps: list[Step], results: Results, folder: Path) -> str:
    path = folder / "results.md"
    write_report("tiny", load("tiny"), steps, results, path, folder / "results.png")
    return path.read_text()


def rows(text: str, start: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {start} |")
    ]


def test_rates_are_errors_over_phones() -> None:
    one = Scored(target="es", errors={0: [0, 10], 1: [2, 10]}, lengths=[10, 30])
    estimate = per([one])
    assert estimate.value == pytest.approx((10 / 40 + 12 / 40) / 2)
    assert estimate.low < estimate.value < estimate.high
    assert per([one]) == estimate


def test_targets_weigh_alike() -> None:
    small = Scored(target="es", errors={0: [1]}, lengths=[2])
    large = Scored(target="it", errors={0: [0] * 9}, lengths=[100] * 9)
    assert per([small, large]).value == pytest.approx(0.25)


def test_a_reduction_is_paired() -> None:
    lengths = list(range(5, 45))
    other = Scored(target="es", errors={0: [length // 2 for length in lengths]}, lengths=lengths)
    half = Scored(target="es", errors={0: [length // 2 / 2 for length in lengths]}, lengths=lengths)  # type: ignore[misc]
    estimate = reduction([half], [other])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_page_of_a_complete_comparison(tmp_path: Path) -> None:
    steps = make_plan(load("tiny"))
    text = page(steps, results_of(steps), tmp_path)
    num_scores = sum(step.kind == "score" for step in steps)
    assert f"**{num_scores} of {num_scores} scores have been measured.**" in text
    assert rows(text, "es") == [
        [
            "es",
            *(f"{10 * ERRORS[s]:.1f} ({10 * ERRORS[s]:.1f} to {10 * ERRORS[s]:.1f})" for s in SYSTEMS),
            "3",
        ]
    ]
    assert len(rows(text, "mean of complete rows")) == 2
    assert rows(text, "mean of complete rows")[0][-1] == "5 targets"
    reductions, shift = rows(text, "UniSpeech stages 1 + 2")[1:]
    assert reductions[1:3] == ["50.0 (50.0 to 50.0) %", "33.3 (33.3 to 33.3) %"]
    assert shift[1:] == ["40.0 (40.0 to 40.0)", "50.0 (50.0 to 50.0) %", "3"]
    assert rows(text, "the paper, at most")[0][1:] == ["13.4 %", "17.8 %"] * 2
    ablation = rows(text, "PER (%)")
    assert [len(row) for row in ablation] == [6, 5, 4, 2, 3]
    assert ablation[0][3].startswith("50.0")
    assert rows(text, "fewer errors than transfer")[0][3] == "16.7 (16.7 to 16.7) %"
    assert rows(text, "fewer errors than weight 1")[0][5] == "", "against itself"
    assert "## Failed" not in text
    assert "2 cores, 2 steps at a time" in text


def test_the_ablation_takes_one_seed_where_the_comparison_has_more(tmp_path: Path) -> None:
    steps = make_plan(load("tiny"))
    results = results_of(steps)
    for step in steps:
        if step.kind == "score" and step.role is not None and step.role.system == "uni1" and step.role.seed:
            results.outcomes[step.key]["result"]["errors"] = [0] * 50
    text = page(steps, results, tmp_path)
    assert rows(text, "fewer errors than transfer")[0][3] == "16.7 (16.7 to 16.7) %"


def test_what_was_not_run_is_empty_and_what_failed_is_told(tmp_path: Path) -> None:
    steps = make_plan(load("tiny"))
    names = {"es", "es-0-ssl-score", "es-0-ctc-score", "it", "it-0-uni1-score"}
    known = [step for step in steps if step.name in names]
    results = results_of(known)
    broken = next(step for step in steps if step.name == "es-0-mixed")
    results.outcomes[broken.key] = {"name": broken.name, "seconds": 1.0, "message": "it has collapsed."}
    results.outcomes["00000000"] = {"name": "es-0-ssl-score", "seconds": 1.0, "result": {"errors": [1]}}
    text = page(steps, results, tmp_path)
    assert rows(text, "es")[0] == [
        "es",
        "",
        "80.0 (80.0 to 80.0)",
        "60.0 (60.0 to 60.0)",
        "",
        "",
        "",
        "",
        "0 to 1",
    ]
    assert rows(text, "mean of complete rows")[0][-1] == "0 targets"
    assert [row[1:] for row in rows(text, "mixed run")[1:2]] == [[""] * 4]
    assert rows(text, "UniSpeech stage 1")[1][1:] == [""] * 4, "there is nothing to compare it with"
    assert "* es-0-mixed: it has collapsed." in text


def test_the_page_of_nothing(tmp_path: Path) -> None:
    text = page(make_plan(load("tiny")), Results(outcomes={}), tmp_path)
    assert "**0 of " in text
    assert "curves" not in text


def test_the_picture_is_shown_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "results.png").write_bytes(b"")
    assert "![curves](results.png)" in page(make_plan(load("tiny")), Results(outcomes={}), tmp_path)
