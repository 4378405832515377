"""`unispeech draw`: a picture of a recording."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def draw(
    audio: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    transcript: Annotated[Path | None, Parameter(name=["--transcript", "-t"])] = None,
    start: float = 0.0,
    end: float | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
) -> int:
    """Draw the waveform, the spectrogram and what is said (extra draw), and write the path of the picture.

    A model adds tiers of the words and phones that it hears and, below, how probable each symbol is for it
    over time. A transcript adds its own tiers; beside a model, to compare. Thirty seconds fit into a picture;
    of longer recordings a part can be drawn, and a model then hears this part alone.

    Examples:
      unispeech draw talk.wav -m examples/checkpoint -o talk.png
      unispeech draw talk.wav -t talk.TextGrid -o talk.svg --start 12.5 --end 15

    Args:
        audio: A recording of any kind and rate.
        output: The picture, .png, .svg or .pdf.
        model: A model directory or a Hub id.
        transcript: A JSON file of `unispeech transcribe`, or a TextGrid.
        start: Where to begin, in seconds.
        end: Where to end; without it, the end of the recording.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.

    Returns:
        0.
    """
    from unispeech.formats.drawing import draw_recording

    transcriber = None
    if model is not None:
        from unispeech.pipelines.transcriber import Transcriber

        transcriber = Transcriber(model, device=device, precision=precision)
    draw_recording(audio, output, transcriber=transcriber, transcript=transcript, start=start, end=end)
    print(output)
    return 0
