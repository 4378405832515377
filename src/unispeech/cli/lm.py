"""`unispeech lm`: small n-gram models of phones or words."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.decoding.ngram import NgramModel

STDIN = "-"
"""The path that stands for standard input."""


def lm(
    action: Literal["train", "score"],
    text: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    order: int = 3,
    smoothing: Literal["witten-bell", "kneser-ney"] = "witten-bell",
    held_out: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")] = (),
    model: Annotated[Path | None, Parameter(name=["--model", "-m"])] = None,
) -> int:
    """Train an n-gram model on text, or measure how well one predicts a text.

    A line of text is a sentence; its tokens stand between spaces, be they phones or words. Of cuts
    (.jsonl, .jsonl.gz), as prepare writes them, the phones are taken. train writes an ARPA file for
    transcribe --lm; score reads one. Both write the perplexity per token, sentence ends counted and unknown
    tokens not: train that of its text, which flatters, and of the held-out one.

    Examples:
      unispeech lm train phones.txt -o lm.arpa --order 3
      unispeech lm train corpus/train/cuts.jsonl.gz -o lm.arpa --held-out corpus/dev/cuts.jsonl.gz
      unispeech lm score other.txt -m lm.arpa

    Args:
        action: What to do.
        text: Files of text or of cuts; - reads text from standard input.
        output: The ARPA file of train; one that ends in .gz is packed.
        order: Tokens of the longest n-gram.
        smoothing: witten-bell works with any text; kneser-ney is often better with much of it.
        held_out: Text on which train measures the model, not used for training.
        model: The ARPA file of score.

    Returns:
        0.
    """
    import gzip

    from unispeech.cli.destinations import refuse_input
    from unispeech.decoding.ngram import NgramModel
    from unispeech.decoding.ngram_training import train_ngram
    from unispeech.formats.files import write_file

    if action == "score":
        if model is None:
            raise ValueError("`--model` must be given to score, but is missing; add -m lm.arpa.")
        if output is not None or held_out:
            raise ValueError("`--output` and `--held-out` must be left out to score; they are for train.")
        trained = NgramModel.load(model)
        _report("text", trained, _sentences(text))
        return 0
    if output is None:
        raise ValueError("`--output` must be given to train, but is missing; add -o lm.arpa.")
    if model is not None:
        raise ValueError("`--model` must be left out to train; it is for score.")
    refuse_input(output, [*text, *held_out])
    sentences, unseen = _sentences(text), _sentences([str(path) for path in held_out])
    trained = train_ngram(sentences, order=order, smoothing=smoothing)
    content = trained.to_arpa().encode()
    write_file(output, gzip.compress(content) if output.suffix == ".gz" else content)
    counts = [sum(len(ngram) == n for ngram in trained.log_probs) for n in range(1, order + 1)]
    print(f"{output}: {', '.join(f'{count} {n}-grams' for n, count in enumerate(counts, 1))}")
    _report("training text", trained, sentences)
    if held_out:
        _report("held-out text", trained, unseen)
    return 0


def _report(name: str, model: "NgramModel", sentences: list[list[str]]) -> None:
    """Write how well a text is predicted."""
    found = model.perplexity(sentences)
    unknown = f", {found.num_unknown} unknown tokens left out" if found.num_unknown else ""
    print(f"{name}: perplexity {found.perplexity:.2f} over {found.num_tokens} tokens{unknown}")


def _sentences(paths: list[str]) -> list[list[str]]:
    """The tokens of every line that has some, of all files."""
    from unispeech.errors import ManifestError

    found: list[list[str]] = []
    for path in paths:
        if path == STDIN:
            lines = sys.stdin.read().splitlines()
        elif path.endswith((".jsonl", ".jsonl.gz")):
            lines = _phones(Path(path))
        else:
            try:
                lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise ManifestError(f"{path}: text must be UTF-8, but is not ({error.reason}).") from None
        found += [tokens for line in lines if (tokens := line.split())]
    return found


def _phones(path: Path) -> list[str]:
    """The phones of cuts."""
    import gzip
    import json
    import zlib

    from unispeech.errors import ManifestError

    lines = []
    number = 0
    is_packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if is_packed else path.open(encoding="utf-8") as file:
        try:
            for line in file:
                number += 1
                for supervision in json.loads(line).get("supervisions", ()):
                    if phones := (supervision.get("custom") or {}).get("phones"):
                        lines.append(str(phones))
        except (
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
            EOFError,
            gzip.BadGzipFile,
            zlib.error,
        ):
            raise ManifestError(f"{path}:{number}: line must be a cut in JSON, but is not.") from None
    if not lines:
        raise ManifestError(f"{path}: cuts must have phones, but have none.")
    return lines
