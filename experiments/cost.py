"""How long a step takes: as measured, else by the speed of its kind, else guessed."""

from collections import defaultdict
from collections.abc import Sequence

from experiments.results import Results
from experiments.steps import Step

GUESS = {"corpus": 40.0, "pretrain": 40.0, "finetune": 60.0, "score": 60.0}
"""Audio seconds per second before anything was measured."""


def expected_seconds(steps: Sequence[Step], results: Results) -> dict[str, tuple[float, bool]]:
    """The cost of every step.

    Args:
        steps: The plan.
        results: What has been measured.

    Returns:
        Label -> seconds, and whether they are measured.
    """
    done: dict[str, float] = {}
    audio: dict[str, float] = defaultdict(float)
    spent: dict[str, float] = defaultdict(float)
    for step in steps:
        outcome = results.of(step)
        if outcome and "result" in outcome:
            done[step.label] = outcome["seconds"]
            audio[step.kind] += step.audio_seconds
            # Beside other work a step waits more than it computes, and that says nothing about the next one.
            spent[step.kind] += min(outcome["seconds"], outcome.get("cpu_seconds", outcome["seconds"]))
    speeds = {kind: audio[kind] / spent[kind] if spent[kind] else guess for kind, guess in GUESS.items()}
    return {
        step.label: (done[step.label], True)
        if step.label in done
        else (step.audio_seconds / max(speeds[step.kind], 1e-9), False)
        for step in steps
    }
