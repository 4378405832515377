"""A fine-tuned model on a test set -> errors utterance by utterance."""

from pathlib import Path
from typing import Any

import kaldialign

from unispeech.data.collation import load_cut
from unispeech.data.cuts import CutFiles
from unispeech.pipelines.recordings import Recording
from unispeech.pipelines.transcriber import Transcriber
from unispeech.results import Transcript


def score_model(model: Path, test: Path) -> dict[str, Any]:
    """Recognise a test set greedily and count the errors.

    Args:
        model: A fine-tuned model.
        test: A folder with cuts.

    Returns:
        `per`, its parts `substitutions`, `insertions`, `deletions`, and the `errors` of each utterance in the
        order of the cuts.

    Raises:
        ValueError: If an utterance cannot be read.
    """
    transcriber = Transcriber(model)
    cuts = list(CutFiles(test))
    recordings = (
        Recording(source=str(i), duration=cut.duration, load=lambda cut=cut: load_cut(cut))  # type: ignore[misc]
        for i, cut in enumerate(cuts)
    )
    counts: dict[int, dict[str, int]] = {}
    num_phones = 0
    for source, outcome in transcriber.transcribe_recordings(recordings):
        index = int(str(source))
        if not isinstance(outcome, Transcript):
            raise ValueError(f"{cuts[index].id}: {outcome}")
        said = cuts[index].supervisions[0].custom["phones"].split()
        counts[index] = kaldialign.edit_distance(said, [phone.phone for phone in outcome.phones])
        num_phones += len(said)
    parts = {
        long: sum(count[short] for count in counts.values())
        for long, short in (("substitutions", "sub"), ("insertions", "ins"), ("deletions", "del"))
    }
    errors = [counts[i]["total"] for i in range(len(cuts))]
    return {"per": sum(errors) / num_phones, **parts, "num_phones": num_phones, "errors": errors}
