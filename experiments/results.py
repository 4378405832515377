"""results/SIZE.json: the outcomes of all steps of a size, which are small and kept in the repository."""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runner import Workshop
from experiments.statistics import Scored
from experiments.steps import Step

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Results:
    """What is known of the steps of a plan."""

    outcomes: dict[str, dict[str, Any]]
    """Key of a step -> its name, `seconds`, and `result` or the `message` of its failure."""

    def of(self, step: Step) -> dict[str, Any] | None:
        """The outcome of a step; None where it has not been carried out.

        Args:
            step: The step.
        """
        return self.outcomes.get(step.key)

    def scored(self, steps: list[Step], target: str, system: str) -> Scored | None:
        """A system on a target, with the seeds that there are.

        Args:
            steps: The plan.
            target: Name of the target.
            system: Name of the system.

        Returns:
            The errors; None where there is no seed yet.
        """
        errors: dict[int, list[int]] = {}
        lengths: list[int] = []
        for step in steps:
            role, outcome = step.role, self.of(step)
            if step.kind != "score" or role is None or (role.target, role.system) != (target, system):
                continue
            corpus = self.of(step.parents[1])
            if outcome and "result" in outcome and corpus and "result" in corpus:
                errors[role.seed] = outcome["result"]["errors"]
                lengths = corpus["result"]["test_lengths"]
        return Scored(target=target, errors=errors, lengths=lengths) if errors else None


def load_results(path: Path) -> Results:
    """Read what is known.

    Args:
        path: The file; it may be missing.
    """
    outcomes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Results(outcomes=outcomes)


def record(step: Step, workshop: Workshop, path: Path, *, num_jobs: int) -> None:
    """Add the outcome of a step; a line for each, in the order of names, so that differences can be read.

    A failure does not take the place of a result that was found elsewhere.

    Args:
        step: A step that was done or has failed.
        workshop: Where its outcome is.
        path: The file.
        num_jobs: Steps that were carried out at a time.
    """
    outcomes = load_results(path).outcomes
    outcome = workshop.outcome(step)
    if "result" in outcomes.get(step.key, {}) and "result" not in outcome:
        return
    outcomes[step.key] = outcome | {"jobs": num_jobs, "machine": machine()}
    rows = sorted(outcomes.items(), key=lambda item: (item[1]["name"], item[0]))
    lines = [f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(beside, path)


def machine() -> str:
    """The kind of the device that trainings ran on."""
    try:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    except ImportError:
        pass
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
