"""`unispeech convert`: a fairseq UniSpeech checkpoint becomes a Hugging Face directory."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def convert(
    file: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    vocab: Path | None = None,
    pretrained: Path | None = None,
) -> Literal[0]:
    """Turn a fairseq UniSpeech checkpoint into a Hugging Face directory.

    Reads stage-1, stage-2 and fine-tuned files without fairseq, and runs nothing that a file holds: one
    whose pickle would call anything is refused. Dropouts, masks, loss weights, the blank and the
    normalisation are those that the file states.

    Example: unispeech convert unispeech_large_en.pt -o models/large-en --vocab vocab.json

    Args:
        file: The checkpoint, a .pt file.
        output: The directory to write; an older model there is replaced once the new one is whole.
        vocab: The dictionary that the checkpoint was trained with: vocab.json of the release, or a dict.txt,
            in which the special symbols are taken to come first.
        pretrained: The checkpoint that a fine-tuned one started from, where it does not repeat its settings;
            beside FILE it is found by its name.

    Returns:
        0.
    """
    from rich.console import Console

    from unispeech.checkpoints.fairseq import convert_fairseq

    with Console(stderr=True).status(f"converting {file}"):
        converted = convert_fairseq(file, output, vocab=vocab, pretrained=pretrained)
    for note in converted.notes:
        print(f"{file}: {note}", file=sys.stderr)
    model = converted.model
    print(
        f"{output}: {type(model).__name__} ({converted.stage}), {model.num_parameters():,} parameters, "
        f"{model.config.vocab_size} classes, blank {model.config.pad_token_id}, "
        f"waveforms {'normalised' if converted.do_normalize else 'as they are'}"
    )
    return 0
