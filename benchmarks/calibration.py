"""How far the scores of phones are from probabilities: as they are, and calibrated by one set or by each.

    python benchmarks/calibration.py MODEL CUTS [CUTS ...] [--num-utterances 300]

Each CUTS is a folder of cuts. The table has the expected calibration error (15 bins) of each set: of the raw
scores; with a temperature, and with the map of `decoding.calibration`, each fitted on one half of the
utterances and measured on the other, by turns, beside what chance gives where these scores are probabilities;
and, from the second set on, with the map that was fitted on all of the first. Nothing is written beside the
model.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unispeech import Transcriber
from unispeech.data.collation import load_cut
from unispeech.data.cuts import CutFiles
from unispeech.decoding.calibration import (
    Calibration,
    chance_calibration_error,
    expected_calibration_error,
    fit_calibration,
    is_right,
)
from unispeech.pipelines.recordings import Recording
from unispeech.results import Transcript

Scored = list[tuple[float, bool]]
"""Raw score of each phone of an utterance, and whether it is right."""


def score_set(transcriber: Transcriber, folder: Path, num_utterances: int) -> list[Scored]:
    """Transcribe a set."""
    cuts = [cut for cut in CutFiles(folder) if (cut.supervisions[0].custom or {}).get("phones")]
    cuts = cuts[:num_utterances]
    recordings = [
        Recording(source=str(i), duration=cut.duration, load=lambda cut=cut: load_cut(cut))
        for i, cut in enumerate(cuts)
    ]
    found = {}
    for source, outcome in transcriber.transcribe_recordings(recordings):
        assert isinstance(outcome, Transcript), outcome
        supervision = cuts[int(str(source))].supervisions[0]
        said = transcriber.vocabulary.segment(supervision.custom["phones"], language=supervision.language)
        rights = is_right(said, [phone.phone for phone in outcome.phones])
        found[int(str(source))] = [(p.score, right) for p, right in zip(outcome.phones, rights, strict=True)]
    return [found[i] for i in sorted(found)]


def flat(utterances: Sequence[Scored]) -> tuple[list[float], list[bool]]:
    """Scores and rights of all phones."""
    return [s for phones in utterances for s, _ in phones], [r for phones in utterances for _, r in phones]


def error(utterances: Sequence[Scored], calibration: Calibration) -> float:
    """The expected calibration error in percent."""
    scores, rights = flat(utterances)
    return 100 * expected_calibration_error([calibration.apply(score) for score in scores], rights)


def fit_temperature(scores: Sequence[float], rights: Sequence[bool]) -> Calibration:
    """The slope with the highest likelihood, without a bias."""

    def surprise(slope: float) -> float:
        probs = np.array([Calibration(slope=slope).apply(score) for score in scores])
        return float(-np.log(np.where(rights, probs, 1 - probs) + 1e-12).mean())

    return Calibration(slope=min(np.geomspace(0.2, 5.0, 60).tolist(), key=surprise))


def held_out(
    utterances: Sequence[Scored], fit: Callable[[Sequence[float], Sequence[bool]], Calibration]
) -> list[Scored]:
    """The scores of each half by what was fitted on the other."""
    mapped: list[Scored] = []
    for half, other in ((utterances[::2], utterances[1::2]), (utterances[1::2], utterances[::2])):
        calibration = fit(*flat(other))
        mapped += [[(calibration.apply(score), right) for score, right in phones] for phones in half]
    return mapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cuts", type=Path, nargs="+")
    parser.add_argument("--num-utterances", type=int, default=10_000)
    arguments = parser.parse_args()
    transcriber = Transcriber(arguments.model, times="spikes", calibration=Calibration())
    first: Calibration | None = None
    name = arguments.cuts[0].name
    print(
        f"| set | phones | right | ECE raw | temperature | calibrated | chance | slope | bias | by {name} |"
    )
    print("|---" * 10 + "|")
    for folder in arguments.cuts:
        utterances = score_set(transcriber, folder, arguments.num_utterances)
        scores, rights = flat(utterances)
        own = fit_calibration(scores, rights)
        temperature, mapped = held_out(utterances, fit_temperature), held_out(utterances, fit_calibration)
        by_first = "" if first is None else f"{error(utterances, first):.1f} %"
        first = first or own
        cells = [
            folder.name,
            str(len(scores)),
            f"{100 * np.mean(rights):.0f} %",
            f"{error(utterances, Calibration()):.1f} %",
            f"{error(temperature, Calibration()):.1f} %",
            f"{error(mapped, Calibration()):.1f} %",
            f"{100 * chance_calibration_error(flat(mapped)[0]):.1f} %",
            f"{own.slope:.2f}",
            f"{own.bias:+.2f}",
            by_first,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
