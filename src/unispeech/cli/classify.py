"""`unispeech classify`: which labels fit recordings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.results import Classification


def classify(
    audio: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    top: int = 5,
    format: Annotated[Literal["txt", "json", "tsv"] | None, Parameter(name=["--format", "-f"])] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    list: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    batch_seconds: float = 60.0,
    window_seconds: float = 30.0,
) -> int:
    """Say which labels fit recordings, with scores.

    txt is a label a line, its score behind a tab; for several recordings each line is the path, the best
    label and its score. json is an object with audio, duration and labels (label, score); tsv is a table.
    Scores of models with one label per recording add up to 1.

    Recordings above --window-seconds go through the network in windows without overlap, cut where it is
    quietest; what the windows say is averaged, each weighted by its length, and told for each window too
    (json, tsv). A recording that cannot be read is reported, the rest is done, and the exit status is 1.

    Examples:
      unispeech classify yes.wav -m runs/keywords/best
      unispeech classify clips/ 'more/**/*.flac' -m runs/keywords/best --top 1
      unispeech classify day.wav -m runs/keywords/best --window-seconds 1 -f tsv > words.tsv
      unispeech classify clips/ -m runs/keywords/best -o labels.jsonl --resume

    Args:
        audio: Recordings of any kind and rate, folders of them, patterns in quotes, or manifests (.jsonl with
            audio in each line); - reads one recording from standard input.
        model: A model directory or a Hub id.
        top: How many labels to give at most.
        format: What to write of each recording; txt unless the output is a .jsonl file.
        output: Folder for a file per recording, or a .jsonl file to which each result is added as it comes.
            Without it all goes to standard output, in the order given.
        list: A file with a path a line, - for standard input.
        resume: Leave out what the output holds already.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        batch_seconds: Most seconds of audio that run at once; lower it if memory runs out.
        window_seconds: Most seconds that the network hears at once.
    """
    from unispeech.cli import visible
    from unispeech.cli.processes import own_device
    from unispeech.cli.recordings import Layout, carry_out, open_job, place_results, show_result
    from unispeech.formats.labels import LABEL_FORMATS, labels_to_jsonl
    from unispeech.pipelines.classifier import Classifier

    def best_line(found: "Classification") -> str:
        best = f"{found.labels[0].label}\t{found.labels[0].score:.4f}" if found.labels else "\t"
        return f"{visible(found.audio)}\t{best}"

    if top < 1:
        raise ValueError(f"`--top` must be at least 1, but is {top}.")
    layout = Layout(formats=LABEL_FORMATS, streamed={"txt": best_line, "json": labels_to_jsonl})
    job = open_job(
        audio,
        list,
        output,
        lambda recordings, process: place_results(output, layout, format, recordings, process, resume=resume),
        resume=resume,
    )
    classifier = Classifier(
        model,
        device=own_device(device, job.process),
        precision=precision,
        batch_seconds=batch_seconds,
        window_seconds=window_seconds,
    )
    return carry_out(
        job,
        lambda recordings, advance: classifier.classify_recordings(
            recordings, top_k=top, on_progress=advance
        ),
        show_result(layout, format, is_alone=len(job.paths) == 1),
    )
