"""`unispeech finetune`: train a recogniser or a classifier on labelled speech."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def finetune(
    recipe: Path | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    resume: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a recogniser or a classifier as a recipe says.

    The run directory gets the complete recipe, the log, and the models best/ (by the dev data) and last/.
    SIGINT and SIGTERM save and leave with status 130 and 143; --resume goes on from there as if nothing had
    happened. Several processes: torchrun --nproc-per-node 2 -m unispeech finetune ...

    Examples:
      unispeech finetune recipes/fsdd-keywords.yaml -o runs/keywords
      unispeech finetune recipes/speechocean-phones.yaml -o runs/en --set data.train=en --set data.dev=en-dev
      unispeech finetune -o runs/keywords --resume

    Args:
        recipe: The recipe, a YAML file. --resume takes that of the run.
        output: The run directory.
        settings: section.key=value, wins over the recipe; repeat it for more.
        resume: Go on with the run in the directory.
    """
    from unispeech.cli.interruption import ended_by_signals

    with ended_by_signals():
        from unispeech.training.finetune import run_finetuning
        from unispeech.training.processes import leave_processes

        outcome = run_finetuning(recipe, output, settings, resume=resume)
        leave_processes()
    return 128 + outcome.signal if outcome.signal else 0
