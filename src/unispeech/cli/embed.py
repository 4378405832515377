"""`unispeech embed`: the representations of recordings, for those who train a head of their own."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def embed(
    audio: Annotated[list[str] | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    layer: Annotated[str, Parameter(allow_leading_hyphen=True)] = "context",
    pooling: Literal["none", "mean", "mean+std"] = "none",
    dtype: Literal["float32", "float16"] = "float32",
    format: Annotated[Literal["npy", "safetensors"] | None, Parameter(name=["--format", "-f"])] = None,
    list: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    batch_seconds: float = 60.0,
    window_seconds: float = 20.0,
    overlap_seconds: float = 1.0,
) -> int:
    """Write the representations of recordings: a vector for each 20 ms, or one for the whole.

    A folder gets a file for each recording and embeddings.json, which says what the vectors are: model,
    layer, pooling, dtype, frames a second, and the time of the first frame's centre. A .safetensors file gets
    a tensor for each recording, named after it, and the same as metadata. A recording that cannot be read is
    reported, the rest is done, and the exit status is 1.

    Recordings above --window-seconds go through the network in windows and to the disk block by block, so
    that memory does not grow with their length.

    Examples:
      unispeech embed clips/ -m examples/checkpoint -o vectors
      unispeech embed clips/ -m examples/checkpoint -o clips.safetensors --layer 3 --pooling mean+std
      unispeech embed talk.wav -m examples/checkpoint -o mixed --layer 2=0.25,4=0.75 --dtype float16
      find talks -name '*.wav' | unispeech embed --list - -m examples/checkpoint -o vectors --resume

    Args:
        audio: Recordings of any kind and rate, folders of them, patterns in quotes, or manifests (.jsonl with
            audio in each line); - reads one recording from standard input.
        model: A model directory or a Hub id, with any head or none.
        output: Folder for a file per recording, or a .safetensors file for all.
        layer: context (what heads see), a hidden state from 0 (input of the first layer) to the number of
            layers, -1 the last of them, or a weighted sum such as 4=0.5,8=0.5.
        pooling: none keeps every frame; mean is their mean; mean+std has the standard deviation behind it.
        dtype: Number format of the vectors.
        format: Of the files of a folder; npy if nothing is said.
        list: A file with a path a line, - for standard input.
        resume: Leave out what the output holds already.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        batch_seconds: Most seconds of audio that run at once; lower it if memory runs out.
        window_seconds: Most seconds that the network hears at once of one recording.
        overlap_seconds: Seconds at either side of a window that are heard but not kept.
    """
    from unispeech.cli.processes import own_device, this_process
    from unispeech.cli.recordings import carry_out, open_job
    from unispeech.cli.vector_destinations import VectorFile, VectorFolder
    from unispeech.pipelines.embedder import Embedder, parse_layer

    is_file = output.suffix == ".safetensors" and not output.is_dir()
    if is_file and format == "npy":
        raise ValueError(
            f"`--format` must be safetensors where `--output` is {output}, but is npy; name a folder."
        )
    if output.suffix.lower() in {".npy", ".npz", ".pt"} and not output.is_dir():
        raise ValueError(
            f"`--output` must be a folder or a .safetensors file, but is {output}; name a folder."
        )
    embedder = Embedder(
        model,
        layer=parse_layer(layer),
        pooling=pooling,
        dtype=dtype,
        device=own_device(device, this_process()),
        precision=precision,
        batch_seconds=batch_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )
    about = embedder.describe()
    job = open_job(
        audio,
        list,
        output,
        lambda recordings, process: (
            VectorFile(output, recordings, process, about, resume=resume)
            if is_file
            else VectorFolder(output, recordings, format or "npy", about)
        ),
        resume=resume,
    )
    status = carry_out(
        job, lambda recordings, advance: embedder.embed_recordings(recordings, on_progress=advance)
    )
    if isinstance(job.destination, VectorFile):
        job.destination.finish()
    return status
