"""`unispeech transcribe`: the phones of recordings, with times."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from unispeech.cli.decoding import DecodingOptions
from unispeech.cli.segments import SegmentOptions

if TYPE_CHECKING:
    from unispeech.cli.destinations import Destination
    from unispeech.cli.processes import Process
    from unispeech.cli.recordings import Layout
    from unispeech.cli.segments import Marks, Outcome
    from unispeech.pipelines.listing import Listed
    from unispeech.pipelines.recordings import OnProgress, Recording
    from unispeech.pipelines.transcriber import Transcriber
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
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto",
    precision: Literal["auto", "float32", "bf16", "int8"] = "auto",
    compile: Annotated[bool, Parameter(negative="")] = False,
    cuda_graphs: Annotated[bool, Parameter(negative="")] = False,
    batch_seconds: float = 60.0,
    window_seconds: float = 20.0,
    overlap_seconds: float = 1.0,
    vad: Literal["energy", "silero"] = "energy",
    times: Literal["extents", "spikes"] = "extents",
    segments: SegmentOptions | None = None,
    decoding: DecodingOptions | None = None,
) -> int:
    """Write the phones of recordings of any length, with times.

    txt is the text alone; for several recordings each line is the path (its control characters
    as escapes), a tab and the text. json is an
    object with audio, duration, text, phones (each with phone, start, end, score), segments between pauses
    and, where the model writes word boundaries, words; for several recordings each line is such an object.
    Seconds count from the start of the recording. srt and vtt are subtitles, ctm and tsv tables with a word
    or a phone a line, TextGrid is for Praat, eaf for ELAN; docs/formats.md tells what is in each. start and
    end are where a phone begins and ends; what is between two phones is silence.

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
      unispeech transcribe talk.wav -m examples/checkpoint -f TextGrid --segments-from talk.TextGrid --tier A
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
        engine: What runs the network; auto takes the fastest here that gives what torch gives, to rounding.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere; int8 wants the extra openvino, or
            onnx.
        compile: Let torch compile the layers first, which takes a minute and, on a CPU, a C++ compiler.
        cuda_graphs: On a GPU, replay the network's kernels for recordings of up to 10 s that run alone.
        batch_seconds: Most seconds of audio that run at once; lower it if memory runs out.
        window_seconds: Most seconds that the network hears at once of one recording.
        overlap_seconds: Seconds at either side of a window that are heard but not kept.
        vad: Where windows are cut: energy, where it is quietest; silero, where nobody speaks, by the network
            of silero-vad (extra vad).
        times: extents are from where a phone begins to where it ends; spikes are the frames (20 ms) in which
            the network names it, often one.
        segments: Where segments begin and end; None parts at pauses of more than 0.3 s.
        decoding: How log-probabilities become transcripts; None decodes greedily.
    """
    from unispeech.cli.processes import own_device
    from unispeech.cli.recordings import carry_out, open_job, place_results, show_result
    from unispeech.pipelines.transcriber import Transcriber

    segments = segments or SegmentOptions()
    marks: Marks | None = None

    def open_destination(
        recordings: "Sequence[Listed]", process: "Process"
    ) -> "Destination[Transcript] | None":
        nonlocal marks
        marks = segments.marks(recordings)
        return place_results(output, _layout(marks), format, recordings, process, resume=resume)

    job = open_job(audio, list, output, open_destination, resume=resume)
    decoder, inventory = (decoding or DecodingOptions()).prepare(model)
    is_json = format == "json" or (format is None and output is not None and output.suffix == ".jsonl")
    if decoding is not None and decoding.nbest > 1 and not is_json:
        raise ValueError(
            "`--format` must be json, or the output a .jsonl file, where --nbest asks for several."
        )
    transcriber = Transcriber(
        model,
        device=own_device(device, job.process),
        engine=engine,
        precision=precision,
        compile=compile,
        cuda_graphs=cuda_graphs,
        batch_seconds=batch_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        vad=vad,
        decoder=decoder,
        inventory=inventory,
        times=times,
        max_pause=segments.max_pause,
    )
    if engine == "auto" and sys.stderr.isatty():
        found = transcriber.engine
        print(f"unispeech: engine {found.name}, {found.precision}", file=sys.stderr)
    run = partial(_run, transcriber, marks, format)
    return carry_out(job, run, show_result(_layout(marks), format, is_alone=len(job.paths) == 1))


def _run(
    transcriber: "Transcriber",
    marks: "Marks | None",
    format: Format | None,
    recordings: "Iterable[Recording]",
    advance: "OnProgress",
) -> "Iterator[Outcome]":
    """Transcribe recordings, or what is marked in them."""
    transcribe = partial(transcriber.transcribe_recordings, on_progress=advance)
    if marks is None:
        return transcribe(recordings)
    return marks.part(recordings, transcribe, is_kept=format in {"TextGrid", "short-TextGrid"})


def _layout(marks: "Marks | None" = None) -> "Layout[Transcript]":
    """How transcripts are written; TextGrids with the tiers of those that mark their segments."""
    from unispeech.cli import visible
    from unispeech.cli.recordings import Layout
    from unispeech.formats import FORMATS, ending
    from unispeech.formats.json import to_jsonl
    from unispeech.formats.textgrid import to_short_textgrid, to_textgrid

    formats = dict(FORMATS)
    if marks is not None:
        formats["TextGrid"] = lambda transcript: to_textgrid(transcript, kept=marks.take(transcript))
        formats["short-TextGrid"] = lambda transcript: to_short_textgrid(
            transcript, kept=marks.take(transcript)
        )
    return Layout(
        formats=formats,
        streamed={
            "txt": lambda transcript: f"{visible(transcript.audio)}\t{transcript.text}",
            "json": to_jsonl,
            "ctm": FORMATS["ctm"],
        },
        ending=ending,
    )
