"""`unispeech export`: a recogniser as files for other programs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    model: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    to: Literal["onnx", "openvino", "sherpa", "ct2"],
    corpus: Path | None = None,
) -> int:
    """Write a recogniser as files for another program, and say how closely they follow the plain path.

    What is written is read back and run on six carried sentences beside torch in float32. parity.json beside
    the files and the lines printed tell the largest difference of a log-probability, the share of frames
    whose best symbol is the same, the speed of both here in seconds of audio per second, and with --corpus
    the error rates of both by greedy CTC, whole utterances. An utterance whose audio cannot be read is left
    out and counted, and the exit status is 1.

    onnx and openvino take utterances without padding, waveforms (B, S), and give log_probs (B, T, N). sherpa
    is a folder for sherpa-onnx, whose slot for omnilingual CTC models takes model.onnx and tokens.txt. ct2 is
    a folder for ctranslate2.models.Wav2Vec2; it takes networks of the kind of the large size only.

    Examples:
      unispeech export examples/checkpoint -o phones-onnx --to onnx
      unispeech export examples/checkpoint -o phones-sherpa --to sherpa --corpus data/dev

    Args:
        model: A model directory.
        output: A folder, made where it is not there.
        to: For which program.
        corpus: A folder that unispeech prepare or synthesise made, or its cuts.jsonl.gz.
    """
    from unispeech.cli.progress import audio_progress
    from unispeech.data.cuts import CutFiles
    from unispeech.engines.export import export_recogniser

    def corpus_seconds() -> float:
        return 0.0 if corpus is None else sum(cut.duration for cut in CutFiles(corpus))

    with audio_progress(corpus_seconds) as advance:
        report = export_recogniser(model, output, to, corpus=corpus, on_progress=advance)
    print(
        f"{output}: {100 * report.parity.frame_agreement:.2f} % of frames agree, "
        f"largest difference {report.parity.largest_difference:.1e}"
    )
    print(f"speed: {report.speed.export:.1f} s of audio per second, torch {report.speed.plain:.1f}")
    errors = report.error_rates
    if errors is None:
        return 0
    plain, exported = (f"{100 * rate:.2f} %" for rate in errors.rates)
    name = "PER" if errors.unit == "phones" else "CER"
    print(f"{name}: {exported}, torch {plain}, {errors.num_utterances} utterances of {corpus}")
    if errors.num_unreadable:
        print(f"{errors.num_unreadable} utterances left out: their audio cannot be read")
    return 1 if errors.num_unreadable else 0
