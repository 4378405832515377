"""What knowledge does for the phone error rate: beam, n-gram model, inventory, hotwords.

    python benchmarks/knowledge.py MODEL --train CUTS --tune CUTS --sets CUTS [CUTS ...]
                                   [--num-utterances 200] [--order 4] [--beam 20]

Each CUTS is a folder of cuts with phones. For each set, n-gram models are trained as `unispeech lm train`
does, on transcripts of `--train` only: those of the set's language, and those of its own corpus (what
stands before the hash in an id); and 3-grams of all languages, and of all others than the set's, with a
weight that is gentle to languages they do not know. Weight and bonus of other n-grams are those of
`transcribe`, or those that are best on `--tune`, to which none of the sets belongs. An inventory is what the
model knows of the language, or a list: the phones of the corpus's training transcripts. Hotwords are the
set's own transcripts of up to twelve phones, as a list of names or commands is known before; or as many of
other languages, which are never said.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unispeech import Transcriber
from unispeech.data.collation import load_cut
from unispeech.data.cuts import CutFiles
from unispeech.decoding.automaton import Automaton
from unispeech.decoding.beam import BeamSettings
from unispeech.decoding.beam_decoder import BeamDecoder
from unispeech.decoding.decoder import Decoder, GreedyDecoder, LogProbs
from unispeech.decoding.hotwords import Hotword, Hotwords
from unispeech.decoding.inventory import model_inventory, restrict
from unispeech.decoding.ngram import NgramModel
from unispeech.decoding.ngram_fusion import fuse
from unispeech.decoding.ngram_training import train_ngram
from unispeech.metrics import ErrorRate, error_rate
from unispeech.text import Vocabulary

LONGEST_HOTWORD = 12
GENTLE = (0.2, 1.0)
"""Weight and bonus of n-grams that may not know the language."""
GENTLE_ORDER = 3
WEIGHTS, BONUSES = (0.15, 0.3, 0.5, 0.8), (0.0, 0.5, 1.0)

Transcripts = dict[str, list[str]]
"""Phones of each recording, by its id; a recording that a corpus repeats stands once."""


class HeardSet(NamedTuple):
    """A set after the network."""

    name: str
    corpus: str
    language: str
    references: list[list[str]]
    log_probs: list[LogProbs]


def corpus_of(cut_id: str) -> str:
    """The name before the first hash of an id."""
    return re.split(r"-[0-9a-f]{8}", cut_id)[0]


def read_transcripts(folder: Path) -> tuple[dict[str, Transcripts], dict[str, Transcripts]]:
    """The training transcripts by language and by corpus."""
    by_language: dict[str, Transcripts] = defaultdict(dict)
    by_corpus: dict[str, Transcripts] = defaultdict(dict)
    for cut in CutFiles(folder):
        supervision = cut.supervisions[0]
        if phones := (supervision.custom or {}).get("phones"):
            for found in (by_language[supervision.language], by_corpus[corpus_of(cut.id)]):
                found[supervision.recording_id] = phones.split()
    return by_language, by_corpus


def hear(transcriber: Transcriber, folder: Path, num_utterances: int) -> HeardSet:
    """Run the network over a set, utterances spread over the whole of it."""
    cuts = [cut for cut in CutFiles(folder) if (cut.supervisions[0].custom or {}).get("phones")]
    chosen = np.unique(np.linspace(0, len(cuts) - 1, min(num_utterances, len(cuts))).astype(int))
    cuts = [cuts[index] for index in chosen]
    vocabulary, first = transcriber.vocabulary, cuts[0].supervisions[0]
    said = [vocabulary.segment(cut.supervisions[0].custom["phones"], language=first.language) for cut in cuts]
    log_probs = [np.concatenate(list(transcriber.log_probs(load_cut(cut), 16_000))) for cut in cuts]
    return HeardSet(folder.name, corpus_of(cuts[0].id), first.language, said, log_probs)


class Way(NamedTuple):
    """One way to decode."""

    beam: int = 0
    ngram: NgramModel | None = None
    weight: float = 0.5
    bonus: float = 0.0
    inventory: Sequence[str] | None = None
    hotwords: Sequence[Sequence[str]] = ()


def rate(heard: HeardSet, vocabulary: Vocabulary, way: Way) -> ErrorRate:
    """Decode a set and count its errors."""
    restriction = None if way.inventory is None else restrict(vocabulary, way.inventory)
    vocabulary = vocabulary if restriction is None else restriction.vocabulary
    scorers: list[Automaton] = []
    if way.ngram is not None:
        scorers.append(fuse(way.ngram, vocabulary, weight=way.weight, bonus=way.bonus))
    index = {symbol: place for place, symbol in enumerate(vocabulary.symbols)}
    words = [word for word in way.hotwords if set(word) <= set(index)]
    if words:
        hotwords = [Hotword(tuple(index[phone] for phone in word)) for word in words]
        scorers.append(Hotwords(hotwords, len(vocabulary)))
    decoder: Decoder = GreedyDecoder(vocabulary.blank)
    if way.beam:
        settings = BeamSettings(beam=way.beam)
        decoder = BeamDecoder(vocabulary.blank, vocabulary.special, settings=settings, scorers=scorers)
    written = []
    for log_probs in heard.log_probs:
        spans = decoder.decode(log_probs if restriction is None else restriction.apply(log_probs))
        written.append([vocabulary.symbols[s.token] for s in spans if s.token not in vocabulary.special])
    return error_rate(heard.references, written)


def joined(parts: Iterable[Transcripts]) -> Transcripts:
    """Several languages as one."""
    return {recording: phones for part in parts for recording, phones in part.items()}


def alike(one: str, other: str) -> bool:
    """Whether two tags are of one language, such as en and en-us."""
    return one.split("-")[0] == other.split("-")[0]


def short(transcripts: Iterable[Sequence[str]], fewest: int = 1) -> list[tuple[str, ...]]:
    """Different transcripts that can be hotwords."""
    return sorted({tuple(row) for row in transcripts if fewest <= len(row) <= LONGEST_HOTWORD})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--tune", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--num-utterances", type=int, default=200)
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--beam", type=int, default=20)
    options = parser.parse_args()
    transcriber = Transcriber(options.model, times="spikes")
    vocabulary = transcriber.vocabulary
    by_language, by_corpus = read_transcripts(options.train)

    def train(transcripts: Transcripts, order: int = options.order) -> NgramModel:
        return train_ngram(list(transcripts.values()), order=order)

    everything = train(joined(by_language.values()), GENTLE_ORDER)
    tuned = hear(transcriber, options.tune, options.num_utterances)
    ngram = train(by_language[tuned.language])
    grid = {
        pair: rate(tuned, vocabulary, Way(options.beam, ngram, *pair)).rate
        for pair in product(WEIGHTS, BONUSES)
    }
    best = min(grid, key=lambda pair: grid[pair])
    shown = ", ".join(f"{weight:g}/{bonus:g} {100 * found:.1f}" for (weight, bonus), found in grid.items())
    print(f"{tuned.name} ({len(tuned.references)} utterances), PER % by weight/bonus: {shown}\n", flush=True)

    rows: dict[str, list[str]] = defaultdict(list)
    heads = []
    for folder in options.sets:
        heard = hear(transcriber, folder, options.num_utterances)
        heads.append(f"{heard.name} ({len(heard.references)} utterances)")
        own, corpus = train(by_language[heard.language]), train(by_corpus[heard.corpus])
        others_only = train(
            joined(rows for name, rows in by_language.items() if not alike(name, heard.language)),
            GENTLE_ORDER,
        )
        known = model_inventory(options.model, vocabulary, heard.language)
        listed = sorted({phone for row in by_corpus[heard.corpus].values() for phone in row})
        said = short(heard.references)
        elsewhere = (found for language, found in by_language.items() if language != heard.language)
        others = short((row for found in elsewhere for row in found.values()), fewest=4)
        others = others[:: max(len(others) // max(len(said), 1), 1)][: len(said)]
        beam, pair = options.beam, f"{best[0]:g}/{best[1]:g}"
        ways = {
            "greedy": Way(),
            f"beam {beam}": Way(beam),
            "n-gram of the language, 0.5/0": Way(beam, own),
            f"n-gram of the language, {pair}": Way(beam, own, *best),
            f"n-gram of the corpus, {pair}": Way(beam, corpus, *best),
            f"{GENTLE_ORDER}-gram of all languages, {GENTLE[0]:g}/{GENTLE[1]:g}": Way(
                beam, everything, *GENTLE
            ),
            f"{GENTLE_ORDER}-gram of all other languages, {GENTLE[0]:g}/{GENTLE[1]:g}": Way(
                beam, others_only, *GENTLE
            ),
            "greedy, inventory of the language": Way(inventory=known),
            "greedy, list of the corpus's phones": Way(inventory=listed),
            "hotwords that are said": Way(beam, hotwords=said),
            "hotwords that are not said": Way(beam, hotwords=others),
            f"n-gram of the corpus, {pair}, and list": Way(beam, corpus, *best, listed),
        }
        for name, way in ways.items():
            found = rate(heard, vocabulary, way)
            rows[name].append(f"{100 * found.rate:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})")
        counts = f"{len(said)} hotwords, {len(known)} phones known, {len(listed)} listed"
        print(f"{heard.name}: {counts}", flush=True)
    print(f"\n| PER % | {' | '.join(heads)} |")
    print("|---|" + "---|" * len(heads))
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
