"""Windows of a long recording: what they cost, and whether they write down the same as one pass.

    python benchmarks/windows.py examples/checkpoint data/multi/dev-kerstin data/multi/dev-speechocean
                                 [--settings 30,2 20,1 10,1] [--minutes 2]

The utterances of each labelled corpus are put one behind the other, 0.2 s of faint noise between them, into
recordings of some minutes. Each is heard in one pass and in windows of SECONDS,OVERLAP. Prints the phone
error rate, the frames that name the same symbol as in one pass, the seconds that are heard for one second of
the recording, and the mean length of a window, which attention takes time in proportion to.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet

from unispeech import Transcriber
from unispeech.audio import Waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.decoding.greedy import greedy
from unispeech.frames import SAMPLE_RATE
from unispeech.metrics import error_rate

PAUSE = SAMPLE_RATE // 5
WHOLE = "one pass"


def recordings(corpus: Path, minutes: float) -> list[tuple[np.ndarray, list[str]]]:
    """Put utterances together: (S,) samples and the phones of each recording."""
    rng = np.random.default_rng(0)
    cuts = list(CutSet.from_file(corpus / "cuts.jsonl.gz"))
    rng.shuffle(cuts)  # type: ignore[arg-type]
    made, pieces, phones = [], [], []
    for number, cut in enumerate(cuts, 1):
        samples = cut.resample(SAMPLE_RATE).load_audio()[0]
        pieces += [samples, 1e-4 * rng.normal(size=PAUSE)]
        phones += cut.supervisions[0].custom["phones"].split()
        if sum(map(len, pieces)) > 60 * minutes * SAMPLE_RATE or number == len(cuts):
            made.append((np.clip(np.concatenate(pieces), -1, 1).astype(np.float32), phones))
            pieces, phones = [], []
    return made


def hear(
    transcriber: Transcriber, made: list[tuple[np.ndarray, list[str]]]
) -> tuple[list[np.ndarray], list[int]]:
    """(T, N) log-probabilities of each recording, and the samples of all windows that the engine got."""
    lengths: list[int] = []
    run = transcriber.engine.log_probs

    def counted(waveforms: Sequence[Waveform], **settings: Any) -> list[LogProbs]:
        lengths.extend(map(len, waveforms))
        return run(waveforms, **settings)

    transcriber.engine.log_probs = counted  # type: ignore[method-assign]
    return [np.concatenate(list(transcriber.log_probs(samples, SAMPLE_RATE))) for samples, _ in made], lengths


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("corpora", nargs="+", type=Path)
    parser.add_argument("--settings", nargs="+", default=["30,2", "30,1", "20,2", "20,1", "15,1", "10,1"])
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    print("| corpus | windows | PER % | frames as in one pass % | heard | window, s |")
    print("|---|---|---|---|---|---|")
    for corpus in options.corpora:
        made = recordings(corpus, options.minutes)
        duration, whole = sum(len(samples) for samples, _ in made), np.zeros(0)
        for name in [WHOLE, *options.settings]:
            seconds, overlap = (1e6, 0.0) if name == WHOLE else map(float, name.split(","))
            transcriber = Transcriber(options.model, window_seconds=seconds, overlap_seconds=overlap)
            vocabulary = transcriber.vocabulary
            rows, lengths = hear(transcriber, made)
            spans = [greedy(row, vocabulary.blank) for row in rows]
            found = [[vocabulary.symbols[span.token] for span in one] for one in spans]
            rate = error_rate([phones for _, phones in made], found).rate
            best = np.concatenate([row.argmax(axis=1) for row in rows])
            whole = best if name == WHOLE else whole
            heard, mean = sum(lengths) / duration, np.square(lengths).sum() / sum(lengths) / SAMPLE_RATE
            shares = f"{100 * rate:.2f} | {100 * (best == whole).mean():.2f} | {heard:.2f} | {mean:.1f}"
            print(f"| {corpus.name} | {name} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
