"""The command line of the comparison."""

import os
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from experiments.corpora import Sources
from experiments.cost import expected_seconds
from experiments.plan import make_plan
from experiments.report import draw_picture, write_report
from experiments.results import FOLDER, load_results, record
from experiments.runner import Workshop, reopen, run_steps
from experiments.settings import load
from experiments.steps import Step

ROOT = Path(__file__).parents[1]

app = App(name="python -m experiments", help=__doc__, result_action="return_value")


@app.command
def run(
    *,
    size: str = "long",
    minutes: float | None = None,
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    jobs: int | None = None,
    retry: bool = False,
    work: Path = Path("runs/experiments"),
    data: Path = ROOT.parent / "shared" / "data",
) -> int:
    """Carry out the comparison, or go on with it.

    Args:
        size: Settings: long, tiny, base, or a file.
        minutes: Stop after so long; running trainings save. Without it, everything.
        only: Scores to reach, by patterns such as 'es-0-*'; repeat it for more.
        jobs: Steps at a time. Without it, one on a GPU, else one per core.
        retry: Carry out failed steps once more; a training goes on from its last checkpoint.
        work: Folder of the outcomes.
        data: Folder with text/*.txt and speech/manifest.jsonl.
    """
    jobs = jobs or _num_jobs()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    workshop = _workshop(work, data)
    steps = select(make_plan(load(size)), only)
    results = _results(size)
    if retry:
        for step in steps:
            if workshop.state(step) == "failed":
                reopen(step, workshop)
    for step in steps:
        if workshop.state(step) in {"done", "failed"} and load_results(results).of(step) is None:
            record(step, workshop, results, num_jobs=jobs)
    is_complete = run_steps(
        steps,
        workshop,
        num_jobs=jobs,
        seconds=None if minutes is None else 60 * minutes,
        on_done=lambda step: record(step, workshop, results, num_jobs=jobs),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    failed = [step.name for step in steps if workshop.state(step) == "failed"]
    done = sum(workshop.state(step) == "done" for step in steps)
    print(f"{done} of {len(steps)} steps done, {len(failed)} failed" + (": " if failed else ""), *failed)
    return 0 if is_complete and not failed else 1


@app.command
def plan(
    *,
    size: str = "long",
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    work: Path = Path("runs/experiments"),
) -> int:
    """List all steps, done or not, with their cost.

    Args:
        size: Settings: long, tiny, base, or a file.
        only: Scores to reach, by patterns; repeat it for more.
        work: Folder of the outcomes.
    """
    everything = make_plan(load(size))
    workshop, results = _workshop(work, work), load_results(_results(size))
    costs = expected_seconds(everything, results)
    rest = 0.0
    for step in select(everything, only):
        seconds, is_measured = costs[step.label]
        outcome = results.of(step)
        state = "failed" if outcome and "message" in outcome else "done" if outcome else workshop.state(step)
        rest += 0.0 if outcome else seconds
        print(f"{state:8} {'' if is_measured else '~'}{seconds:6.0f} s  {step.label}")
    print(f"to do: about {rest / 60:.0f} min of one step at a time")
    return 0


@app.command
def report(
    *,
    size: str = "long",
    output: Path | None = None,
    work: Path = Path("runs/experiments"),
) -> int:
    """Write docs/results.md and, where the runs are, the picture of the curves.

    Args:
        size: Settings: long, tiny, base, or a file.
        output: The page. Without it, docs/results.md for long, docs/results-SIZE.md for others.
        work: Folder of the outcomes.
    """
    settings = load(size)
    steps = make_plan(settings)
    name = Path(size).stem
    output = output or ROOT / "docs" / ("results.md" if name == "long" else f"results-{name}.md")
    picture = output.with_suffix(".png")
    draw_picture(steps, _workshop(work, work), picture)
    write_report(size, settings, steps, load_results(_results(size)), output, picture)
    print(output)
    return 0


@app.command
def gradients(runs: tuple[Path, ...], *, num_batches: int = 16) -> int:
    """Print how hard contrast and CTC pull at the weights that stage 1 ended with.

    Args:
        runs: Run directories of stage 1, such as runs/experiments/en-0-uni1-d38b7048/run.
        num_batches: Batches of their labelled data.
    """
    from experiments.gradients import measure

    print("| run | part | contrast to CTC, mean gradient | single batches | cosine |\n|---|---|---|---|---|")
    for run in runs:
        for part, pull in measure(run, num_batches).items():
            numbers = f"{pull.ratio:.2f} | {pull.ratio_of_batches:.2f} | {pull.cosine:.2f}"
            print(f"| {run.parent.name} | {part} | {numbers} |", flush=True)
    return 0


def select(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """The scores whose names match, with all that they need.

    Args:
        steps: The plan.
        only: Patterns; none takes all.

    Returns:
        Steps in the order of the plan.

    Raises:
        ValueError: If a pattern matches no score.
    """
    if not only:
        return list(steps)
    scores = [step for step in steps if step.kind == "score"]
    wanted: set[str] = set()
    for pattern in only:
        found = [step for step in scores if fnmatch(step.name.removesuffix("-score"), pattern)]
        if not found:
            names = ", ".join(step.name.removesuffix("-score") for step in scores[:3])
            raise ValueError(f"`--only` must match a score, but is {pattern!r}; there are {names} and so on.")
        for step in found:
            _want(step, wanted)
    return [step for step in steps if step.label in wanted]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its status: 0 all done, 1 not all, 2 wrong usage, 130 interrupted.

    Args:
        argv: Arguments; None takes the process's own.
    """
    try:
        status = app(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError) as error:
        print(f"experiments: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def _want(step: Step, wanted: set[str]) -> None:
    wanted.add(step.label)
    for parent in step.parents:
        _want(parent, wanted)


def _workshop(work: Path, data: Path) -> Workshop:
    sources = Sources(texts=data / "text", manifest=data / "speech" / "manifest.jsonl")
    return Workshop(work=work, sources=sources)


def _results(size: str) -> Path:
    return FOLDER / f"{Path(size).stem}.json"


def _num_jobs() -> int:
    """One step per core, or one on a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else max(min(os.cpu_count() or 1, 8), 1)
