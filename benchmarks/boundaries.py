"""How far phone boundaries lie from the truth: `align`, and what `transcribe` hears, beside spike times.

    python benchmarks/boundaries.py MODEL CUTS [--half report|tune|all] [--num-utterances 1000]

CUTS is a folder of cuts whose phone times are exact, as `unispeech synthesise` makes them. Its speakers, in
alphabetical order, fall into two halves by turns: the settings of `unispeech.decoding.extents` were chosen on
the half "tune", so that "report", the default, says how good they are. Every phone counts with its start and
its end. What `transcribe` hears counts where it is right: phones that the edit distance pairs with the same
phone of the truth.
"""

import argparse
import itertools
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import kaldialign
import numpy as np

import unispeech
from unispeech.audio import load_audio
from unispeech.data.cuts import CutFiles
from unispeech.decoding.alignment import align
from unispeech.decoding.extents import extents
from unispeech.decoding.extents_acoustics import measure
from unispeech.decoding.greedy import TokenSpan, greedy
from unispeech.frames import SAMPLE_RATE, frame_to_seconds
from unispeech.pipelines.aligner import Aligner
from unispeech.pipelines.transcriber import Transcriber

NOWHERE = "-"
"""What the edit distance puts in place of a phone that is not there."""

Times = list[tuple[float, float]]
ROWS = (
    "align: spikes",
    "align: extents by the network alone",
    "align",
    "transcribe: spikes",
    "transcribe: extents by the network alone",
    "transcribe: extents",
)


def spikes(spans: Sequence[TokenSpan]) -> Times:
    """The frames in which CTC names a phone, each 20 ms around its centre."""
    return [
        (frame_to_seconds(span.start_frame - 0.5), frame_to_seconds(span.end_frame - 0.5)) for span in spans
    ]


def matches(truth: Sequence[str], heard: Sequence[str]) -> tuple[list[int], list[int]]:
    """The numbers of the phones that were heard rightly, in the truth and in what was heard."""
    places = itertools.count(), itertools.count()
    pairs = [
        (a, b, next(places[0]) if a != NOWHERE else -1, next(places[1]) if b != NOWHERE else -1)
        for a, b in kaldialign.align(truth, heard, NOWHERE)
    ]
    return [i for a, b, i, _ in pairs if a == b], [j for a, b, _, j in pairs if a == b]


def errors(found: Iterable[tuple[float, float]], true: Iterable[tuple[float, float]]) -> np.ndarray:
    """Milliseconds from the truth, of starts and of ends."""
    return 1e3 * np.abs(np.array(list(found)) - np.array(list(true))).reshape(-1)


def measure_utterance(
    aligner: Aligner, path: str, truth: Sequence[tuple[str, float, float]]
) -> list[np.ndarray]:
    """The errors of one utterance for each of `ROWS`."""
    transcriber = aligner.transcriber
    vocabulary = transcriber.vocabulary
    waveform = load_audio(path)
    phones, times = [phone for phone, _, _ in truth], [(start, end) for _, start, end in truth]
    log_probs = np.concatenate(list(transcriber.log_probs(waveform, SAMPLE_RATE)))
    sound = measure(waveform, len(log_probs))
    known = align(log_probs, vocabulary.encode(" ".join(phones)), vocabulary.blank)
    result = aligner.align(path, " ".join(phones), is_phones=True)
    found = [
        errors(spikes(known), times),
        errors(extents(known, log_probs, vocabulary.blank), times),
        errors([(phone.start, phone.end) for phone in result.phones], times),
    ]
    heard = greedy(log_probs, vocabulary.blank)
    right, rightly = matches(phones, [vocabulary.symbols[span.token] for span in heard])
    for each in (
        spikes(heard),
        extents(heard, log_probs, vocabulary.blank),
        extents(heard, log_probs, vocabulary.blank, acoustics=sound),
    ):
        found.append(errors([each[j] for j in rightly], [times[i] for i in right]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cuts", type=Path)
    parser.add_argument("--half", choices=["report", "tune", "all"], default="report")
    parser.add_argument("--num-utterances", type=int, default=1000)
    arguments = parser.parse_args()
    cuts = list(CutFiles(arguments.cuts))
    speakers = sorted({str(cut.supervisions[0].speaker) for cut in cuts})
    wanted = {"tune": speakers[::2], "report": speakers[1::2], "all": speakers}[arguments.half]
    chosen = [cut for cut in cuts if str(cut.supervisions[0].speaker) in wanted][: arguments.num_utterances]
    aligner = Aligner(Transcriber(arguments.model))
    pooled: list[list[np.ndarray]] = [[] for _ in ROWS]
    for cut in chosen:
        items = cut.supervisions[0].alignment["phone"]
        truth = [(item.symbol, item.start, item.end) for item in items]
        for row, found in zip(
            pooled, measure_utterance(aligner, cut.recording.sources[0].source, truth), strict=True
        ):
            row.append(found)
    print(
        f"{len(chosen)} utterances, {sum(cut.duration for cut in chosen):.0f} s, {len(wanted)} speakers "
        f"(half: {arguments.half}); unispeech {unispeech.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}\n"
    )
    print("| times | boundaries | median, ms | mean, ms | within 10 ms | 20 ms | 50 ms |")
    print("|---|---|---|---|---|---|---|")
    for name, row in zip(ROWS, pooled, strict=True):
        all_errors = np.concatenate(row)
        shares = " | ".join(f"{np.mean(all_errors <= limit):.1%}" for limit in (10, 20, 50))
        middle, mean = np.median(all_errors), all_errors.mean()
        print(f"| {name} | {len(all_errors)} | {middle:.1f} | {mean:.1f} | {shares} |")


if __name__ == "__main__":
    main()
