"""`unispeech transcribe`: the phones of recordings, with times."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.pipelines.transcriber import Transcriber
    from unispeech.results import Transcript

Format = Literal["txt", "json", "srt", "vtt", "ctm", "tsv"]
"""The names of `unispeech.formats.FORMATS`, told here without importing it."""

STREAMED = ("txt", "json", "ctm")
"""Formats in which several recordings can stand one behind the other."""

STDIN = "-"
"""The path that stands for standard input."""


def transcribe(
    audio: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "txt",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    batch_seconds: float = 60.0,
) -> int:
    """Write the phones of recordings, with times.

    txt is the text alone; for several recordings each line is the path (its control characters
    as escapes), a tab and the text. json is an
    object with audio, duration, text, phones (each with phone, start, end, score) and, where the model
    writes word boundaries, words; for several recordings each line is such an object. Seconds count from
    the start of the recording. srt and vtt are subtitles, ctm and tsv tables with a word or a phone a line;
    docs/formats.md tells what is in each. CTC names a phone where it is surest, often in one frame of
    20 ms: start and end say where a phone is, not how long it lasts.

    A recording that cannot be read is reported, the rest is done, and the exit status is 1.

    Examples:
      unispeech transcribe talk.wav -m examples/checkpoint
      unispeech transcribe *.flac -m examples/checkpoint -f json -o transcripts
      sox talk.mp3 -t wav - | unispeech transcribe - -m examples/checkpoint -f json

    Args:
        audio: Recordings of any kind and rate; - reads one from standard input.
        model: A model directory or a Hub id.
        format: What to write of each recording.
        output: Folder for a file per recording, named after it. Without it all goes to standard output, in
            the order given.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        batch_seconds: Most seconds of audio that run at once; lower it if memory runs out.
    """
    from unispeech.cli import describe, visible
    from unispeech.cli.progress import audio_progress
    from unispeech.formats import FORMATS
    from unispeech.formats.files import write_file
    from unispeech.formats.json import to_jsonl
    from unispeech.pipelines.recordings import total_seconds
    from unispeech.pipelines.transcriber import Transcriber

    # A lone dash is a path, so cyclopts lets misspelt options through as paths too.
    for path in audio:
        if path.startswith("-") and path != STDIN:
            raise ValueError(f"there is no option {path}; write ./{path} for a recording of this name.")
    paths = list(dict.fromkeys(audio))
    if STDIN in paths and sys.stdin is None:
        raise ValueError("`audio` must not be - where standard input is closed; name a file.")
    if output is None and len(paths) > 1 and format not in STREAMED:
        raise ValueError(
            f"`--output` must be given for several recordings as {format}, but is missing; add -o FOLDER."
        )
    if output is not None and output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: `--output` must be a folder, but is a file; name another.")
    places = _places(paths, output, format) if output is not None else {}
    transcriber = Transcriber(model, device=device, precision=precision, batch_seconds=batch_seconds)
    num_failed = 0
    with audio_progress(lambda: total_seconds(path for path in paths if path != STDIN)) as advance:
        outcomes = _outcomes(transcriber, paths, advance)
        for path, outcome in outcomes if places else _in_order(paths, outcomes):
            if isinstance(outcome, Exception):
                print(f"unispeech: {describe(outcome, about=Path(path).name)}", file=sys.stderr)
                num_failed += 1
            elif places:
                write_file(places[path], FORMATS[format](outcome) + "\n")
            elif len(paths) == 1:
                print(FORMATS[format](outcome))
            elif format == "txt":
                print(f"{visible(path)}\t{outcome.text}", flush=True)
            elif written := (to_jsonl if format == "json" else FORMATS[format])(outcome):
                print(written, flush=True)
    return 1 if num_failed else 0


def _places(paths: Sequence[str], folder: Path, ending: str) -> dict[str, Path]:
    """Where the result of each recording goes; two may not go to the same place."""
    owners: dict[Path, str] = {}
    for path in paths:
        place = folder / f"{'stdin' if path == STDIN else Path(path).stem}.{ending}"
        if place in owners:
            raise ValueError(
                f"`audio` must differ in file names where `--output` is given, but {owners[place]} and "
                f"{path} would both be {place}; transcribe them into folders of their own."
            )
        owners[place] = path
    return {path: place for place, path in owners.items()}


def _outcomes(
    transcriber: "Transcriber", paths: Sequence[str], advance: Callable[[float], None]
) -> Iterator[tuple[str, "Transcript | Exception"]]:
    """Transcribe, standard input first.

    Yields:
        Each path with its outcome, as they finish.
    """
    from unispeech.pipelines.recordings import read_stream
    from unispeech.results import Transcript

    files: list[str | Path] = [path for path in paths if path != STDIN]
    streams = []
    if STDIN in paths:
        try:
            streams.append(read_stream(sys.stdin.buffer, name=STDIN))
        except ValueError as error:
            yield STDIN, error
    results = chain(transcriber.transcribe_recordings(streams), transcriber.transcribe_many(files))
    for path, outcome in results:
        if isinstance(outcome, Transcript):
            advance(outcome.duration)
        yield str(path), outcome


def _in_order(
    paths: Sequence[str], outcomes: Iterable[tuple[str, "Transcript | Exception"]]
) -> Iterator[tuple[str, "Transcript | Exception"]]:
    """Hold outcomes back until all of the paths before have theirs.

    Yields:
        Each path with its outcome, in the order of `paths`.
    """
    waiting: dict[str, Transcript | Exception] = {}
    remaining = deque(paths)
    for path, outcome in outcomes:
        waiting[path] = outcome
        while remaining and remaining[0] in waiting:
            first = remaining.popleft()
            yield first, waiting.pop(first)
