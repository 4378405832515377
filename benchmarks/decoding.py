"""Decoding of 100 seconds: greedy, prefix beam search, with language model and hotwords, beside flashlight.

    python benchmarks/decoding.py [--seconds 100] [--beam 20] [--symbols 60] [--repeats 5] [--quick]
                                  [--output FILE]

The log-probabilities are made up: `sure` as of a trained network (a symbol in every fifth frame, blanks
between), `unsure` with several symbols in every frame to choose from, which is as bad as it gets. The
language model is a 3-gram of random text from a Markov chain. Times are processor seconds of one core, which
other work on the machine lengthens less than the clock; the least of the repeats and their median are given.
The tables of the language model are filled as it is asked, anew in every repeat. flashlight-text is measured
where it is installed, with KenLM reading the same file, beam threshold 50, and as many symbols of a frame as
ours tries at most.
"""

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unispeech.decoding.alignment import align
from unispeech.decoding.beam import BeamSettings, beam_search
from unispeech.decoding.greedy import greedy
from unispeech.decoding.hotwords import Hotword, Hotwords
from unispeech.decoding.ngram import NgramModel
from unispeech.decoding.ngram_fusion import SymbolModel
from unispeech.decoding.ngram_training import train_ngram
from unispeech.text import Vocabulary

FRAMES_PER_SECOND = 50
LM_WEIGHT = 0.5


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def make_inputs(num_frames: int, num_symbols: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sure = rng.normal(size=(num_frames, num_symbols)) * 1.5
    sure[:, 0] += 10.0
    places = np.arange(2, num_frames, 5)
    sure[places, rng.integers(1, num_symbols, len(places))] += 10.0 + rng.normal(size=len(places)) * 2
    return {
        "sure": log_softmax(sure),
        "unsure": log_softmax(rng.normal(size=(num_frames, num_symbols)) * 2.5),
    }


def make_model(vocabulary: Vocabulary, num_sentences: int) -> NgramModel:
    rng = np.random.default_rng(1)
    phones = np.array(vocabulary.symbols[1:])
    chain = rng.dirichlet(np.full(len(phones), 0.2), size=len(phones))
    sentences = []
    for _ in range(num_sentences):
        places = [int(rng.integers(len(phones)))]
        while len(places) < 40:
            places.append(int(rng.choice(len(phones), p=chain[places[-1]])))
        sentences.append(phones[places].tolist())
    return train_ngram(sentences, order=3)


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times), statistics.median(times)


def our_ways(
    rows: np.ndarray, vocabulary: Vocabulary, model: NgramModel, beam: int
) -> dict[str, Callable[[], Any]]:
    settings = BeamSettings(beam=beam)
    words = [Hotword(tuple(range(i, i + 4))) for i in range(1, len(vocabulary) - 4)]

    def with_model() -> Any:
        return beam_search(
            [rows], 0, settings=settings, scorers=[SymbolModel(model, vocabulary, weight=LM_WEIGHT)]
        )

    def with_all() -> Any:
        scorers = [SymbolModel(model, vocabulary, weight=LM_WEIGHT), Hotwords(words, len(vocabulary))]
        return beam_search([rows], 0, settings=settings, scorers=scorers)

    [[best]] = beam_search([rows], 0, settings=settings)
    parts = np.array_split(rows, 10)
    return {
        "greedy": lambda: greedy(rows, 0),
        "beam": lambda: beam_search([rows], 0, settings=settings),
        "beam, LM": with_model,
        "beam, LM, hotwords": with_all,
        "beam, ten tenths at once": lambda: beam_search(parts, 0, settings=settings),
        "places of the best": lambda: align(rows, best.tokens, 0),
    }


def flashlight_ways(
    rows: np.ndarray, vocabulary: Vocabulary, arpa: Path, beam: int
) -> dict[str, Callable[[], Any]]:
    try:
        from flashlight.lib.text import decoder
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError:
        return {}

    def search(lm: Any, weight: float, num_tokens: int) -> Callable[[], Any]:
        options = decoder.LexiconFreeDecoderOptions(
            beam_size=beam,
            beam_size_token=num_tokens,
            beam_threshold=50.0,
            lm_weight=weight,
            sil_score=0.0,
            log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )
        searcher = decoder.LexiconFreeDecoder(options, lm, 0, 0, [])
        return lambda: searcher.decode(rows.ctypes.data, *rows.shape)

    num_tokens = BeamSettings().max_tokens
    lm = KenLM(str(arpa), Dictionary(list(vocabulary.symbols)))
    return {
        "flashlight, beam": search(decoder.ZeroLM(), 0.0, num_tokens),
        "flashlight, beam, LM": search(lm, LM_WEIGHT * np.log(10.0), num_tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--symbols", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seconds, repeats = (4.0, 1) if options.quick else (options.seconds, options.repeats)
    phones = tuple(f"p{i}" for i in range(1, options.symbols))
    vocabulary = Vocabulary(symbols=("<pad>", *phones), blank=0, kind="phones")
    model = make_model(vocabulary, 50 if options.quick else 2000)
    inputs = make_inputs(round(seconds * FRAMES_PER_SECOND), options.symbols)
    lines = [
        f"# Decoding, {datetime.date.today()}",
        "",
        f"`python benchmarks/decoding.py --seconds {seconds:g} --beam {options.beam}"
        f" --symbols {options.symbols} --repeats {repeats}`: Python {platform.python_version()}, "
        f"numpy {np.__version__}, {platform.machine()}. {seconds:g} s of speech, "
        f"{options.symbols} symbols, beam {options.beam}; a 3-gram of {len(model.log_probs)} n-grams. "
        "Processor seconds of one core.",
        "",
        "| input | way | least | median |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        arpa.write_text(model.to_arpa())
        for name, rows in inputs.items():
            ways = our_ways(rows, vocabulary, model, options.beam)
            ways |= flashlight_ways(rows, vocabulary, arpa, options.beam)
            for way, work in ways.items():
                least, median = measure(work, repeats)
                lines.append(f"| {name} | {way} | {least:.3f} | {median:.3f} |")
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if not options.quick or options.output:
        path = options.output or Path(__file__).parent / "results" / f"{datetime.date.today()}-decoding.md"
        path.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
