"""`python -m experiments.jobs DIRECTORY TEXTS MANIFEST`: a step that is no training, in its own process."""

import sys
from pathlib import Path

from experiments.corpora import Sources, make_corpus
from experiments.runner import read_json, write_json
from experiments.scoring import score_model


def carry_out(directory: Path, sources: Sources) -> None:
    """Make a corpus or score a model, as the step in a directory says.

    Args:
        directory: With `step.json`; gets `result.json`.
        sources: What corpora are made of.
    """
    step = read_json(directory / "step.json")
    inputs = step["inputs"]
    if step["kind"] == "corpus":
        result = make_corpus(inputs, directory, sources)
    else:
        result = score_model(Path(inputs["model"]), Path(inputs["test"]))
    write_json(directory / "result.json", result)


if __name__ == "__main__":
    place, texts, manifest = map(Path, sys.argv[1:])
    carry_out(place, Sources(texts=texts, manifest=manifest))
