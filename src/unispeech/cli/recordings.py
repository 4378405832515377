"""What the verbs over many recordings share: what is asked for, what is left to do, where results go."""

import errno
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from unispeech.cli.destinations import Destination, FolderDestination, LinesDestination
from unispeech.cli.processes import Process, this_process

if TYPE_CHECKING:
    from unispeech.pipelines.listing import Listed
    from unispeech.pipelines.recordings import OnProgress, Recording

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Layout(Generic[R]):
    """How the results of a verb are written."""

    formats: Mapping[str, Callable[[R], str]]
    """Name of a format -> what writes a result in it, without a line end; txt and json among them."""
    streamed: Mapping[str, Callable[[R], str]]
    """The formats in which results can stand one behind the other, and how they are written there."""
    ending: Callable[[str], str] = str
    """Name of a format -> ending of its files."""


@dataclass(frozen=True, kw_only=True)
class Job(Generic[R]):
    """Recordings that are to be done in this process."""

    process: Process
    """This process."""
    paths: list[str]
    """The recordings."""
    destination: Destination[R] | None
    """Where results go; None for standard output."""


def open_job(
    audio: Sequence[str] | None,
    list_path: str | None,
    output: Path | None,
    open_destination: "Callable[[list[Listed], Process], Destination[R] | None]",
    *,
    resume: bool,
) -> Job[R]:
    """Find what is to be done.

    Args:
        audio: What was asked for by arguments.
        list_path: A file with a path a line, `-` for standard input; None: no such list.
        output: What `--output` says; None is standard output.
        open_destination: Opens the place for the results of all the recordings; None is standard output.
        resume: Whether to leave out what the destination holds.

    Returns:
        The share of this process.

    Raises:
        ValueError: If nothing was asked for, or the arguments contradict each other.
        OSError: If a list or a manifest cannot be read, or the destination cannot be opened.
    """
    from unispeech.pipelines.listing import STDIN, list_recordings, take_shard

    process = this_process()
    recordings = list_recordings(_sources(audio or [], list_path))
    if process.num_ranks > 1 and (output is None or any(listed.path == STDIN for listed in recordings)):
        raise ValueError(
            f"`--output` and files must be given where {process.num_ranks} processes share the work, but "
            f"{'`--output` is missing' if output is None else 'standard input is one of the recordings'}."
        )
    if output is None and resume:
        raise ValueError("`--output` must be given with `--resume`; standard output keeps nothing.")
    destination = open_destination(recordings, process)
    if destination is not None:
        recordings = take_shard(recordings, process.rank, process.num_ranks)
        if resume:
            recordings = [listed for listed in recordings if not destination.is_done(listed)]
    return Job(process=process, paths=[listed.path for listed in recordings], destination=destination)


def place_results(
    output: Path | None,
    layout: Layout[R],
    format: str | None,
    recordings: "Sequence[Listed]",
    process: Process,
    *,
    resume: bool,
) -> Destination[R] | None:
    """Open the place that `--output` names for results that are texts.

    Args:
        output: A folder, or a .jsonl file that results are added to; None is standard output.
        layout: How results are written.
        format: The format asked for; None: txt, or json for a .jsonl file.
        recordings: All that are to be done, in all processes.
        process: This process.
        resume: Whether to go on with what is there.

    Returns:
        The destination; None for standard output.

    Raises:
        ValueError: If the format does not go there.
        OSError: If it cannot be opened.
    """
    if output is None:
        if len(recordings) > 1 and format not in {None, *layout.streamed}:
            raise ValueError(
                f"`--format` must be {', '.join(layout.streamed)} where {len(recordings)} recordings go to "
                f"standard output, but is {format}; give --output."
            )
        return None
    if output.suffix == ".jsonl" and not output.is_dir():
        if format not in {None, "json"}:
            raise ValueError(
                f"`--format` must be json where `--output` is a .jsonl file, but is {format}; name a folder."
            )
        return LinesDestination(output, process, layout.streamed["json"], resume=resume)
    endings = {f".{layout.ending(name).lower()}" for name in layout.formats}
    if output.suffix.lower() in endings and not output.exists():
        raise ValueError(
            f"`--output` must be a folder or a .jsonl file, but is {output}; name a folder, or leave "
            f"--output out and write > {output}."
        )
    name = format or "txt"
    return FolderDestination(output, recordings, layout.ending(name), layout.formats[name])


def carry_out(
    job: Job[R],
    run: "Callable[[Iterable[Recording], OnProgress], Iterator[tuple[str | Path, R | Exception]]]",
    show: Callable[[R], None] = print,
) -> int:
    """Do what is to be done, with progress on stderr; what cannot be read is reported there.

    Args:
        job: The recordings.
        run: Gives the source of each recording with its result, or with what reading it raised.
        show: Prints a result, where there is no destination; results come in the order of the recordings.

    Returns:
        Exit status: 1 if a recording could not be read.

    Raises:
        OSError: If a result cannot be written.
    """
    from unispeech.cli import describe, visible
    from unispeech.cli.progress import audio_progress
    from unispeech.pipelines.listing import STDIN
    from unispeech.pipelines.recordings import total_seconds

    num_failed = 0
    paths, destination = job.paths, job.destination
    with audio_progress(lambda: total_seconds(path for path in paths if path != STDIN)) as advance:
        outcomes = _outcomes(paths, lambda recordings: run(recordings, advance))
        for path, outcome in _in_order(paths, outcomes) if destination is None else outcomes:
            if isinstance(outcome, Exception):
                told = describe(outcome, about=Path(path).name)
                if isinstance(outcome, IsADirectoryError):
                    told = f"{visible(path)}: must hold recordings, but holds none."
                print(f"unispeech: {told}", file=sys.stderr)
                num_failed += 1
            elif destination is not None:
                num_failed += not _is_written(destination, path, outcome)
            else:
                show(outcome)
    return 1 if num_failed else 0


def _is_written(destination: "Destination[R]", path: str, result: R) -> bool:
    """Write a result; one whose file cannot have its name is reported and stops no other."""
    from unispeech.cli import describe

    try:
        destination.write(path, result)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"unispeech: {describe(error)}", file=sys.stderr)
        return False
    return True


def show_result(layout: Layout[R], format: str | None, *, is_alone: bool) -> Callable[[R], None]:
    """Choose how results are printed.

    Args:
        layout: How results are written.
        format: The format asked for; None is txt.
        is_alone: Whether there is one result only.

    Returns:
        What prints a result; an empty one of several leaves no line.
    """

    def show(result: R) -> None:
        text = (layout.formats if is_alone else layout.streamed)[format or "txt"](result)
        if text or is_alone:
            print(text, flush=True)

    return show


def _sources(audio: Sequence[str], list_path: str | None) -> list[str]:
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
        if hasattr(sys.stdin, "reconfigure"):  # names of files may be any bytes
            sys.stdin.reconfigure(errors="surrogateescape")
        listed = read_list(sys.stdin)
    elif list_path is not None:
        text = Path(list_path).read_text(encoding="utf-8-sig", errors="surrogateescape")
        listed = read_list(text.splitlines())
    if not audio and not listed:
        raise ValueError("AUDIO requires an argument; name a recording, a folder, or a list by --list.")
    return [*audio, *listed]


def _outcomes(
    paths: Sequence[str],
    run: "Callable[[Iterable[Recording]], Iterator[tuple[str | Path, R | Exception]]]",
) -> Iterator[tuple[str, R | Exception]]:
    """Do the recordings, standard input first.

    Yields:
        Each path with its outcome, as they finish.
    """
    from unispeech.pipelines.listing import STDIN
    from unispeech.pipelines.recordings import read_stream, run_paths

    streams = []
    if STDIN in paths:
        try:
            streams.append(read_stream(sys.stdin.buffer, name=STDIN))
        except ValueError as error:
            yield STDIN, error
    results = chain(run(streams), run_paths([path for path in paths if path != STDIN], run))
    yield from ((str(path), outcome) for path, outcome in results)


def _in_order(
    paths: Sequence[str], outcomes: Iterable[tuple[str, R | Exception]]
) -> Iterator[tuple[str, R | Exception]]:
    """Hold outcomes back until all of the paths before have theirs.

    Yields:
        Each path with its outcome, in the order of `paths`.
    """
    waiting: dict[str, R | Exception] = {}
    remaining = deque(paths)
    for path, outcome in outcomes:
        waiting[path] = outcome
        while remaining and remaining[0] in waiting:
            first = remaining.popleft()
            yield first, waiting.pop(first)
