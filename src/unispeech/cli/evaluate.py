"""`unispeech evaluate`: error rates on labelled speech."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from unispeech.metrics import Accuracy, Confusion, ErrorRate
    from unispeech.pipelines.evaluation import Evaluation, Scores

NOTHING = "-"
"""Stands opposite an insertion or a deletion."""


def evaluate(
    model: str,
    data: Path,
    /,
    *,
    by: Literal["language", "speaker"] | None = None,
    top: int = 20,
    calibrate: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    batch_seconds: float = 60.0,
) -> int:
    """Measure error rates on labelled speech.

    Recognisers get a phone error rate, or character and word error rates, by greedy CTC; classifiers get
    their accuracy. Each with a 95 % interval over utterances, and the most frequent confusions. An
    utterance whose audio cannot be read is reported, the rest is done, and the exit status is 1.

    ECE is the expected calibration error of a recogniser's scores: how far the score of a phone is, over 15
    bins, from the share of phones with such scores that are right, which are those that the alignment with
    the fewest errors pairs with the same phone of the reference. Chance is the ECE that true probabilities
    of so many phones would have: no fewer percent can be told from 0. --calibrate fits a map from scores to
    probabilities and writes it beside the model, where transcribe finds it; what is recognised stays.

    Examples:
      unispeech evaluate examples/checkpoint data/dev
      unispeech evaluate runs/keywords/best data/fsdd-dev --by speaker
      unispeech evaluate runs/sv/best data/sv/cuts.jsonl.gz --json > sv.json
      unispeech evaluate runs/sv/best data/sv --calibrate

    Args:
        model: A model directory or a Hub id.
        data: A folder that unispeech prepare or synthesise made, or its cuts.jsonl.gz.
        by: Give the rates of each language or speaker as well.
        top: How many kinds of confusion to list.
        calibrate: Fit a calibration of the scores and write it to MODEL/calibration.json.
        json: Write everything as one JSON object.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        batch_seconds: Most seconds of audio that run at once.
    """
    from dataclasses import asdict
    from json import dumps

    from unispeech.cli import one_line
    from unispeech.cli.progress import audio_progress
    from unispeech.data.cuts import CutFiles
    from unispeech.decoding.calibration import CALIBRATION, write_calibration
    from unispeech.pipelines.evaluation import evaluate_model

    if calibrate and not Path(model).is_dir():
        raise ValueError(
            f"`model` must be a directory for {CALIBRATION} to be written to, but is {model}; download it."
        )
    with audio_progress(lambda: sum(cut.duration for cut in CutFiles(data))) as advance:
        evaluation = evaluate_model(
            model,
            data,
            by=by,
            top=top,
            calibrate=calibrate,
            device=device,
            precision=precision,
            batch_seconds=batch_seconds,
            on_progress=advance,
        )
    if evaluation.fit is not None:
        write_calibration(model, evaluation.fit.calibration)
    for reason in evaluation.unreadable.values():
        print(f"unispeech: {one_line(reason)}", file=sys.stderr)
    if json:
        print(dumps(asdict(evaluation), ensure_ascii=False, indent=2))
    else:
        _print(evaluation)
    return 1 if evaluation.unreadable else 0


def _print(evaluation: "Evaluation") -> None:
    """Show an evaluation as tables."""
    from rich.console import Console

    # A pipe has no width; tables there are as wide as they need to be.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    scores = evaluation.scores
    print(f"{evaluation.model} on {evaluation.data}")
    print(f"{scores.num_utterances} utterances, {evaluation.audio_seconds:.1f} s of audio")
    if evaluation.num_unlabelled:
        print(f"{evaluation.num_unlabelled} utterances left out: they have no transcript of the model's kind")
    if evaluation.unreadable:
        print(f"{len(evaluation.unreadable)} utterances left out: their audio cannot be read")
    console.print(_rates_table(evaluation))
    if evaluation.fit is not None:
        fit, calibration = evaluation.fit, evaluation.fit.calibration
        print(
            f"calibrated: slope {calibration.slope:.3f}, bias {calibration.bias:+.3f} by {fit.num_symbols} "
            f"symbols; ECE {fit.held_out_ece * 100:.2f} % on utterances that the fit did not see "
            f"(chance {fit.chance_ece * 100:.2f} %)"
        )
    if evaluation.confusions:
        console.print(_confusions_table(evaluation.confusions))


def _rates_table(evaluation: "Evaluation") -> "Table":
    """A row per group and rate, all utterances last."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(evaluation.by or "")
    for name in ("", "%", "95 % interval", "substituted", "inserted", "deleted", "of", "utterances"):
        table.add_column(name, justify="left" if name in {"", "95 % interval"} else "right")
    for name, scores in [*evaluation.groups.items(), ("all", evaluation.scores)]:
        table.add_section() if name == "all" else None
        for cells in _rows(scores):
            table.add_row(name, *cells, str(scores.num_utterances))
    return table


def _rows(scores: "Scores") -> list[list[str]]:
    """The cells of each rate."""
    rows = []
    rates: list[tuple[str, ErrorRate | None]] = [
        ("PER", scores.per),
        ("CER", scores.cer),
        ("WER", scores.wer),
    ]
    for name, rate in rates:
        if rate is not None:
            counts = (rate.substitutions, rate.insertions, rate.deletions, rate.num_reference)
            rows.append([name, *_share(rate), *map(str, counts)])
    if scores.ece is not None and scores.chance_ece is not None:
        rows.append(["ECE", f"{scores.ece * 100:.2f}", f"chance {scores.chance_ece * 100:.2f}", *[""] * 4])
    if scores.accuracy is not None:
        rows.append(["accuracy", *_share(scores.accuracy), "", "", "", str(scores.accuracy.num_total)])
    return rows


def _share(rate: "ErrorRate | Accuracy") -> tuple[str, str]:
    """A rate and its interval in percent."""
    return f"{rate.rate * 100:.2f}", f"{rate.low * 100:.2f} to {rate.high * 100:.2f}"


def _confusions_table(confusions: "list[Confusion]") -> "Table":
    """The most frequent errors."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("times", justify="right")
    table.add_column("said")
    table.add_column("recognised")
    for confusion in confusions:
        said, heard = (
            Text(NOTHING if unit is None else unit) for unit in (confusion.reference, confusion.hypothesis)
        )
        table.add_row(str(confusion.count), said, heard)
    return table
