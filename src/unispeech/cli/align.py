"""`unispeech align`: when the phones and words of a known text are said."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

STDIN = "-"
"""The text that stands for standard input."""

Format = Literal["tsv", "txt", "json", "srt", "vtt", "ctm", "TextGrid", "short-TextGrid", "eaf"]
"""The names of `unispeech.formats.FORMATS`, which may not be imported yet."""

Switch = Annotated[bool, Parameter(negative="")]


def align(
    audio: Path,
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    phones: Switch = False,
    lexicon: Path | None = None,
    g2p: Literal["epitran", "espeak"] | None = None,
    language: str | None = None,
    wildcard: Switch = False,
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "tsv",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    window_seconds: float = 20.0,
) -> int:
    """Find when the phones and words of a known text are said.

    The text is cut into the symbols of the model: letters for a model that writes characters; for one
    that writes phones a lexicon or a g2p method says how it is spoken, or it is given as phones. Silence
    and pauses need not be written. A * stands for speech that is not in the text.

    Examples:
      unispeech align talk.wav talk.txt -m examples/checkpoint --g2p espeak --language en
      unispeech align talk.wav "ɡ ʊ d | m ɔː n ɪ ŋ" --phones -m examples/checkpoint -f json
      unispeech align talk.wav "Good * morning" --lexicon words.dict -m examples/checkpoint
      unispeech align talk.wav talk.txt -m runs/letters/best -f TextGrid -o talk.TextGrid

    Args:
        audio: A recording of any kind, rate and length.
        text: What is said in it, or a text file that holds it; - reads standard input.
        model: A model directory or a Hub id.
        phones: The text is phones separated by spaces, with | between words or without.
        lexicon: How words are spoken: a word and its phones per line.
        g2p: Make phones of the text by rules (epitran) or by espeak-ng.
        language: Language of the text, for g2p and for models with phones of their own for each language.
        wildcard: Let what cannot be spelled, such as numbers or another script, be a wildcard.
        format: What to write; tsv is a table of words and phones with start, end and score, TextGrid is for
            Praat, eaf for ELAN.
        output: File to write to; without it, standard output.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        window_seconds: Most seconds that the network hears at once; lower it if memory runs out.
    """
    from unispeech.cli.destinations import refuse_input
    from unispeech.data.g2p import open_phonemizer
    from unispeech.formats import FORMATS
    from unispeech.formats.files import write_file
    from unispeech.pipelines.aligner import Aligner

    if lexicon is not None and g2p is not None:
        raise ValueError("`lexicon` and `g2p` must not be given together; which of the two shall it be?")
    if phones and lexicon is not None:
        raise ValueError(
            "`lexicon` must be left out where the text is --phones; which of the two shall it be?"
        )
    if output is not None:
        refuse_input(output, [audio, text, *([] if lexicon is None else [lexicon])])
    said = _read_text(text)
    with ExitStack() as stack:
        phonemizer = None
        if not phones and (lexicon is not None or g2p is not None):
            opener = open_phonemizer(g2p or "lexicon", language=language, lexicon=lexicon)
            phonemizer = stack.enter_context(opener)
        aligner = Aligner(
            model,
            phonemizer=phonemizer,
            language=language,
            wildcard=wildcard,
            device=device,
            precision=precision,
            window_seconds=window_seconds,
        )
        written = FORMATS[format](aligner.align(audio, said, is_phones=phones))
    if output is None:
        print(written)
    else:
        write_file(output, written + "\n")
    return 0


def _read_text(text: str) -> str:
    """The text itself, that of the file with this name, or that of standard input."""
    if text == STDIN:
        if sys.stdin is None:
            raise ValueError("`text` must not be - where standard input is closed; name a file.")
        return sys.stdin.read()
    if text.startswith("--") and len(text.split()) == 1:
        raise ValueError(f"there is no option {text}; put a text that begins so into a file.")
    path = Path(text)
    if len(text.encode()) < 256 and path.is_file():
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: must be UTF-8 text, but is not ({error.reason}).") from error
    # What looks like a file and is none was hardly meant to be said.
    if path.suffix in {".txt", ".lab", ".phn"} and len(text.split()) == 1:
        raise FileNotFoundError(f"{path}: there is no such text file; check the path.")
    return text
