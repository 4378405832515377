"""`unispeech pretrain`: learn speech representations from labelled and unlabelled speech."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def pretrain(
    recipe: Path | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    resume: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Learn representations as a recipe says: from labelled speech, unlabelled speech, or both.

    data.labelled learns phones and contrast (stage 1 of the paper), data.unlabelled contrast alone (stage 2);
    a recipe with both mixes them. The run directory gets the complete recipe, the log, and the models best/
    (by the dev data) and last/. Fine-tune from it: unispeech finetune ... --set model.init=RUN (stage 3).
    SIGINT and SIGTERM save and leave with status 130 and 143; --resume goes on from there as if nothing had
    happened. Several processes: torchrun --nproc-per-node 2 -m unispeech pretrain ...

    Examples:
      unispeech pretrain recipes/pretrain-small.yaml -o runs/stage-1
      unispeech pretrain recipes/continue-small.yaml -o runs/stage-2 --set model.init=runs/stage-1
      unispeech pretrain -o runs/stage-1 --resume

    Args:
        recipe: The recipe, a YAML file. --resume takes that of the run.
        output: The run directory.
        settings: section.key=value, wins over the recipe; repeat it for more.
        resume: Go on with the run in the directory.
    """
    from unispeech.cli.interruption import ended_by_signals

    with ended_by_signals():
        from unispeech.training.pretrain import run_pretraining
        from unispeech.training.processes import leave_processes

        outcome = run_pretraining(recipe, output, settings, resume=resume)
        leave_processes()
    return 128 + outcome.signal if outcome.signal else 0
