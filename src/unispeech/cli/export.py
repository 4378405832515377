"""`unispeech export`: a recogniser as files for other programs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    model: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    to: Literal["onnx", "openvino", "sherpa"],
) -> Literal[0]:
    """Write a recogniser as files for another program, and say how closely they follow the plain path.

    What is written is read back and run on six carried sentences; parity.json beside it tells the largest
    difference of a log-probability and the share of frames whose best symbol is the same. onnx and openvino
    take utterances without padding, `waveforms` (B, S), and give `log_probs` (B, T, N). sherpa is a folder
    for sherpa-onnx, whose slot for omnilingual CTC models takes model.onnx and tokens.txt.

    Examples:
      unispeech export examples/checkpoint -o phones-onnx --to onnx
      unispeech export examples/checkpoint -o phones-sherpa --to sherpa

    Args:
        model: A model directory.
        output: A folder, made where it is not there.
        to: For which program.

    Returns:
        0.
    """
    from unispeech.engines.export import export_recogniser

    parity = export_recogniser(model, output, to)
    print(
        f"{output}: {100 * parity.frame_agreement:.2f} % of frames agree, "
        f"largest difference {parity.largest_difference:.1e}"
    )
    return 0
