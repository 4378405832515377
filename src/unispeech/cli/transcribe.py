"""`unispeech transcribe`: the phones of recordings, with times."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from unispeech.cli.decoding import DecodingOptions

if TYPE_CHECKING:
    from unispeech.cli.destinations import Destination
    from unispeech.cli.processes import Process
    from unispeech.pipelines.listing import Listed
    from unispeech.pipelines.transcriber import OnProgress, Transcriber
    from unispeech.results import Transcript

Format = Literal["txt", "json", "srt", "vtt", "ctm", "tsv", "TextGrid", "short-TextGrid", "eaf"]
"""The names of `unispeech.formats.FORMATS`, which may not be imported yet."""


def transcribe(
    audio: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    format: Annotated[Format | None, Parameter(name=["--format", "-f"])] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    list: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    batch_seconds: float = 60.0,
    window_seconds: float = 30.0,
    overlap_seconds: float = 2.0,
    decoding: DecodingOptions | None = None,
) -> int:
    """Write the phones of recordings of any length, with times.

    txt is the text alone; for several recordings each line is the path (its control characters
    as escapes), a tab and the text. json is an
    object with audio, duration, text, phones (each with phone, start, end, score) and, where the model
    writes word boundaries, words; for several recordings each line is such an object. Seconds count from
    the start of the recording. srt and vtt are subtitles, ctm and tsv tables with a word or a phone a line,
    TextGrid is for Praat, eaf for ELAN; docs/formats.md tells what is in each. CTC names a phone where it is
    surest, often in one frame of 20 ms: start and end say where a phone is, not how long it lasts.

    A recording that cannot be read is reported, the rest is done, and the exit status is 1. Recordings
    above --window-seconds go through the network in windows that are cut where it is quietest.

    Under torchrun or accelerate launch every process does its share of the recordings and writes them.

    Examples:
      unispeech transcribe talk.wav -m examples/checkpoint
      unispeech transcribe *.flac -m examples/checkpoint -f json -o transcripts
      unispeech transcribe talks/ 'more/**/*.mp3' list.jsonl -m examples/checkpoint -o all.jsonl --resume
      find talks -name '*.wav' | unispeech transcribe --list - -m examples/checkpoint -o transcripts
      unispeech transcribe talk.wav -m examples/checkpoint --lm phones.arpa --hotword 'k a f eː=2'
      unispeech transcribe talk.wav -m examples/checkpoint --inventory swahili.txt --inventory-mode map
      sox talk.mp3 -t wav - | unispeech transcribe - -m examples/checkpoint -f json

    Args:
        audio: Recordings of any kind and rate, folders of them, patterns in quotes, or manifests (.jsonl with
            audio in each line); - reads one recording from standard input.
        model: A model directory or a Hub id.
        format: What to write of each recording; txt unless the output is a .jsonl file.
        output: Folder for a file per recording, named after it and its place in the folder it was found in;
            or a .jsonl file, to which each result is added as it comes. Without it all goes to standard
            output, in the order given.
        list: A file with a path a line, - for standard input.
        resume: Leave out what the output holds already.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        batch_seconds: Most seconds of audio that run at once; lower it if memory runs out.
        window_seconds: Most seconds that the network hears at once of one recording.
        overlap_seconds: Seconds at either side of a window that are heard but not kept.
        decoding: How log-probabilities become transcripts; None decodes greedily.
    """
    from unispeech.cli import describe, visible
    from unispeech.cli.processes import this_process
    from unispeech.cli.progress import audio_progress
    from unispeech.pipelines.listing import STDIN, list_recordings, take_shard
    from unispeech.pipelines.recordings import total_seconds
    from unispeech.pipelines.transcriber import Transcriber

    process = this_process()
    recordings = list_recordings(_sources(audio or [], list))
    destination = _destination(output, recordings, format, process, resume=resume)
    if destination is not None:
        recordings = take_shard(recordings, process.rank, process.num_ranks)
        if resume:
            recordings = [listed for listed in recordings if not destination.is_done(listed)]
    paths = [listed.path for listed in recordings]
    decoder, inventory = (decoding or DecodingOptions()).prepare(model)
    transcriber = Transcriber(
        model,
        device=_own_device(device, process),
        precision=precision,
        batch_seconds=batch_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        decoder=decoder,
        inventory=inventory,
    )
    num_failed = 0
    with audio_progress(lambda: total_seconds(path for path in paths if path != STDIN)) as advance:
        outcomes = _outcomes(transcriber, paths, advance)
        for path, outcome in _in_order(paths, outcomes) if destination is None else outcomes:
            if isinstance(outcome, Exception):
                print(f"unispeech: {describe(outcome, about=Path(path).name)}", file=sys.stderr)
                num_failed += 1
            elif destination is not None:
                destination.write(path, outcome)
            else:
                _show(outcome, format, visible(path) if len(paths) > 1 else None)
    return 1 if num_failed else 0


def _sources(audio: Sequence[str], list_path: str | None) -> "list[str]":
    """What was asked for, by arguments and by a list."""
    from unispeech.pipelines.listing import STDIN, read_list

    # A lone dash is a path, so cyclopts lets misspelt options through as paths too.
    for path in audio:
        if path.startswith("-") and path != STDIN:
            raise ValueError(f"there is no option {path}; write ./{path} for a recording of this name.")
    if STDIN in {*audio, list_path} and sys.stdin is None:
        raise ValueError("`audio` must not be - where standard input is closed; name a file.")
    listed: Sequence[str] = []
    if list_path == STDIN:
        if STDIN in audio:
            raise ValueError("`audio` must not be - where `--list` is - too; standard input is one of them.")
        listed = read_list(sys.stdin)
    elif list_path is not None:
        listed = read_list(Path(list_path).read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    if not audio and not listed:
        raise ValueError("AUDIO requires an argument; name a recording, a folder, or a list by --list.")
    return [*audio, *listed]


def _destination(
    output: Path | None,
    recordings: "Sequence[Listed]",
    format: Format | None,
    process: "Process",
    *,
    resume: bool,
) -> "Destination | None":
    """Where results go; None for standard output."""
    from unispeech.cli.destinations import FolderDestination, LinesDestination
    from unispeech.formats import FORMATS, STREAMED, ending
    from unispeech.pipelines.listing import STDIN

    if process.num_ranks > 1 and (output is None or any(listed.path == STDIN for listed in recordings)):
        raise ValueError(
            f"`--output` and files must be given where {process.num_ranks} processes share the work, but "
            f"{'`--output` is missing' if output is None else 'standard input is one of the recordings'}."
        )
    if output is None:
        if resume:
            raise ValueError("`--output` must be given with `--resume`; standard output keeps nothing.")
        if len(recordings) > 1 and format not in {None, *STREAMED}:
            raise ValueError(
                f"`--format` must be {', '.join(STREAMED)} where {len(recordings)} recordings go to standard "
                f"output, but is {format}; give --output."
            )
        return None
    if output.suffix == ".jsonl" and not output.is_dir():
        if format not in {None, "json"}:
            raise ValueError(
                f"`--format` must be json where `--output` is a .jsonl file, but is {format}; name a folder."
            )
        return LinesDestination(output, process, resume=resume)
    name = format or "txt"
    return FolderDestination(output, recordings, ending(name), FORMATS[name])


def _own_device(device: str, process: "Process") -> str:
    """The device of this process: each has a GPU of its own where there are GPUs."""
    if device != "auto" or process.num_ranks == 1:
        return device
    import torch

    return f"cuda:{process.local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def _show(transcript: "Transcript", format: Format | None, path: str | None) -> None:
    """Print a result; with a path it is one of several, a line each."""
    from unispeech.formats import FORMATS
    from unispeech.formats.json import to_jsonl

    if path is None:
        print(FORMATS[format or "txt"](transcript))
    else:
        line = f"{path}\t{transcript.text}"
        if format in {"json", "ctm"}:
            line = to_jsonl(transcript) if format == "json" else FORMATS[format](transcript)
        if line:
            print(line, flush=True)


def _outcomes(
    transcriber: "Transcriber", paths: Sequence[str], advance: "OnProgress"
) -> Iterator[tuple[str, "Transcript | Exception"]]:
    """Transcribe, standard input first.

    Yields:
        Each path with its outcome, as they finish.
    """
    from unispeech.pipelines.listing import STDIN
    from unispeech.pipelines.recordings import read_stream

    files = [path for path in paths if path != STDIN]
    streams = []
    if STDIN in paths:
        try:
            streams.append(read_stream(sys.stdin.buffer, name=STDIN))
        except ValueError as error:
            yield STDIN, error
    results = chain(
        transcriber.transcribe_recordings(streams, on_progress=advance),
        transcriber.transcribe_many(files, on_progress=advance),
    )
    yield from ((str(path), outcome) for path, outcome in results)


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
