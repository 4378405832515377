"""How far phone boundaries lie from the truth: `align`, and what `transcribe` hears, beside spike times.

    python benchmarks/boundaries.py MODEL CUTS [--half report|tune|all] [--num-utterances 1000]
        [--fold recipes/multilingual-phones.tsv]

CUTS is a folder of cuts whose phone times are exact, as `unispeech synthesise` makes them. Its speakers, in
alphabetical order, fall into two halves by turns: the settings of `unispeech.decoding.extents` were chosen on
the half "tune", so that "report", the default, says how good they are. Every phone counts with its start and
its end. What `transcribe` hears counts where it is right: phones that the edit distance pairs with the same
phone of the truth. `--fold` names a table of phones and what the model writes for them, as
`recipes/multilingual_data.py` uses it; several symbols share the time of their phone. An utterance with a
phone that the model lacks is left out.
"""

import argparse
import itertools
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import kaldialign
import numpy as np

import unispeech
from unispeech.audio import load_audio
from unispeech.data.cuts import CutFiles
from unispeech.decoding.alignment import align
from unispeech.decoding.extents import extents
from unispeech.decoding.greedy import TokenSpan, greedy
from unispeech.frames import SAMPLE_RATE, frame_to_seconds
from unispeech.pipelines.aligner import Aligner
from unispeech.pipelines.transcriber import Transcriber

NOWHERE = "-"
"""What the edit distance puts in place of a phone that is not there."""

Times = list[tuple[float, float]]
Truth = list[tuple[str, float, float]]
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


def read_table(path: Path | None) -> Mapping[str, str]:
    """What phones are written with; nothing for what stays."""
    if path is None:
        return {}
    return dict(line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:])


def divided(truth: Iterable[tuple[str, float, float]], table: Mapping[str, str]) -> Truth:
    """Share the time of each phone among the symbols that it is written with."""
    found = []
    for phone, start, end in truth:
        symbols = table.get(phone, phone).split()
        step = (end - start) / len(symbols)
        found += [(symbol, start + i * step, start + (i + 1) * step) for i, symbol in enumerate(symbols)]
    return found


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


def measure_utterance(aligner: Aligner, path: str, truth: Truth) -> list[np.ndarray]:
    """The errors of one utterance for each of `ROWS`."""
    transcriber = aligner.transcriber
    vocabulary = transcriber.vocabulary
    waveform = load_audio(path)
    phones, times = [phone for phone, _, _ in truth], [(start, end) for _, start, end in truth]
    log_probs = np.concatenate(list(transcriber.log_probs(waveform, SAMPLE_RATE)))
    known = align(log_probs, vocabulary.encode(" ".join(phones)), vocabulary.blank)
    result = aligner.align(path, " ".join(phones), is_phones=True)
    found = [
        errors(spikes(known), times),
        errors(extents(known, log_probs, vocabulary.blank), times),
        errors([(phone.start, phone.end) for phone in result.phones], times),
    ]
    heard = [s for s in greedy(log_probs, vocabulary.blank) if s.token not in vocabulary.special]
    transcript = transcriber.transcribe(path)
    right, rightly = matches(phones, [phone.phone for phone in transcript.phones])
    for each in (
        spikes(heard),
        extents(heard, log_probs, vocabulary.blank),
        [(phone.start, phone.end) for phone in transcript.phones],
    ):
        found.append(errors([each[j] for j in rightly], [times[i] for i in right]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cuts", type=Path)
    parser.add_argument("--half", choices=["report", "tune", "all"], default="report")
    parser.add_argument("--num-utterances", type=int, default=1000)
    parser.add_argument("--fold", type=Path)
    arguments = parser.parse_args()
    cuts = list(CutFiles(arguments.cuts))
    speakers = sorted({str(cut.supervisions[0].speaker) for cut in cuts})
    wanted = {"tune": speakers[::2], "report": speakers[1::2], "all": speakers}[arguments.half]
    chosen = [cut for cut in cuts if str(cut.supervisions[0].speaker) in wanted][: arguments.num_utterances]
    aligner = Aligner(Transcriber(arguments.model))
    symbols, table = set(aligner.vocabulary.symbols), read_table(arguments.fold)
    pooled: list[list[np.ndarray]] = [[] for _ in ROWS]
    seconds, lacking = 0.0, Counter[str]()
    for cut in chosen:
        items = cut.supervisions[0].alignment["phone"]
        truth = divided(((item.symbol, item.start, item.end) for item in items), table)
        missing = [phone for phone, _, _ in truth if phone not in symbols]
        if missing:
            lacking[missing[0]] += 1
            continue
        seconds += cut.duration
        for row, found in zip(
            pooled, measure_utterance(aligner, cut.recording.sources[0].source, truth), strict=True
        ):
            row.append(found)
    if lacking:
        print(f"left out for phones that the model lacks: {dict(lacking)}", file=sys.stderr)
    if not pooled[0]:
        sys.exit(f"{arguments.cuts}: no utterance has phones of the model's only; give a table by --fold.")
    print(
        f"{len(pooled[0])} utterances, {seconds:.0f} s, {len(wanted)} speakers "
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
