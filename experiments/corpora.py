"""The speech of the comparison: for each language train, labelled, valid, test and a vocabulary.

`train` is all there is to listen to; `labelled` the few minutes of it whose transcripts may be looked at.
`valid` and `test` hold other phrases; in synthetic speech, voices of their own as well.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unispeech.data.cuts import CUTS, open_cut_file
from unispeech.text import Vocabulary

Cut = dict[str, Any]

HELD_OUT = 10
"""Every tenth sentence is kept for valid and test."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What corpora are made of, on this machine."""

    texts: Path
    """Folder with a text file per language, en.txt and so on, a sentence per line."""
    manifest: Path
    """JSON-lines manifest of human speech, its paths relative to it."""


@dataclass(frozen=True, kw_only=True)
class RealCorpus:
    """Which lines of the manifest make a corpus of human speech."""

    datasets: tuple[str, ...]
    """Their `dataset`."""
    languages: tuple[str, ...]
    """Their `language`."""
    voice: str
    """Language of espeak-ng that turns their text into phones."""


REAL: Mapping[str, RealCorpus] = {
    "de": RealCorpus(datasets=("kerstin-de",), languages=("de",), voice="de"),
    "zh": RealCorpus(datasets=("audio-cmn",), languages=("zh-CN",), voice="cmn"),
    "es": RealCorpus(
        datasets=("gcompris-voices", "asterisk-en-es"), languages=("es", "es-MX"), voice="es-419"
    ),
    "fr": RealCorpus(datasets=("gcompris-voices",), languages=("fr",), voice="fr-fr"),
    "ru": RealCorpus(datasets=("asterisk-ru",), languages=("ru",), voice="ru"),
}
"""Name of a language -> its human speech."""


def make_corpus(spec: Mapping[str, Any], directory: Path, sources: Sources) -> dict[str, Any]:
    """Make a corpus; what an interrupted call left is taken up.

    Args:
        spec: The inputs of its step.
        directory: Where to.
        sources: What it is made of.

    Returns:
        Utterances, minutes and speakers of each part, and the number of phones of each test utterance.

    Raises:
        ValueError: If there is no such language, or too little speech.
        OSError: If a source is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    make = _synthetic_cuts if spec["origin"] == "synthetic" else _real_cuts
    train, held_out = make(spec, directory, sources)
    valid, rest = split_minutes(held_out, spec["valid_minutes"])
    test, _ = split_minutes(rest, spec["test_minutes"])
    labelled, _ = split_minutes(train, spec["labelled_minutes"])
    parts = {"train": train, "labelled": labelled, "valid": valid, "test": test}
    for name, cuts in parts.items():
        if not cuts:
            raise ValueError(f"{directory / name}: must hold speech, but holds none; ask for fewer minutes.")
        _write(directory / name, cuts)
    phones = [phones_of(cut) for cut in train + held_out]
    Vocabulary.build([" ".join(one) for one in phones], kind="phones").save(directory / "vocabulary")
    return {
        "parts": {name: _summary(cuts) for name, cuts in parts.items()},
        "num_phones": len({phone for one in phones for phone in one}),
        "test_lengths": [len(phones_of(cut)) for cut in test],
    }


def phones_of(cut: Cut) -> list[str]:
    """The phones of a cut.

    Args:
        cut: As it stands in a file.
    """
    return str(cut["supervisions"][0]["custom"]["phones"]).split()


def split_minutes(cuts: Sequence[Cut], minutes: float) -> tuple[list[Cut], list[Cut]]:
    """Take cuts from the front until there are enough.

    Args:
        cuts: The cuts.
        minutes: How much to take.

    Returns:
        What was taken, and the rest.
    """
    ends = np.cumsum([cut["duration"] for cut in cuts]) / 60
    number = int(np.searchsorted(ends, minutes - 1e-9)) + 1
    return list(cuts[:number]), list(cuts[number:])


def phrases(lines: Iterable[str], words: tuple[int, int], seed: int) -> tuple[list[str], list[str]]:
    """Cut sentences into short phrases and part them; CTC finds its way in short utterances much sooner.

    Args:
        lines: Sentences.
        words: Shortest and longest phrase.
        seed: Of the lengths.

    Returns:
        Phrases of nine sentences in ten, and those of the others that are not among them.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[dict[str, None], dict[str, None]] = {}, {}
    for number, line in enumerate(lines):
        rest = line.split()
        while len(rest) >= words[0]:
            length = int(rng.integers(words[0], words[1] + 1))
            if len(rest) - length < words[0]:
                length = min(len(rest), words[1])
            parts[number % HELD_OUT == HELD_OUT - 1][" ".join(rest[:length])] = None
            rest = rest[length:]
    train, held_out = parts
    return list(train), [phrase for phrase in held_out if phrase not in train]


def _synthetic_cuts(
    spec: Mapping[str, Any], directory: Path, sources: Sources
) -> tuple[list[Cut], list[Cut]]:
    """Speak phrases, by one set of voices for train and by another for the rest."""
    from unispeech.data.espeak_speakers import UNSEEN_VARIANTS

    text = sources.texts / f"{spec['language']}.txt"
    lines = text.read_text(encoding="utf-8").splitlines()
    minutes = spec["valid_minutes"] + spec["test_minutes"]
    amounts = {"train": spec["hours"], "held-out": minutes / 60 + 0.005}
    made = []
    for number, (name, lot) in enumerate(zip(amounts, phrases(lines, tuple(spec["words"]), 0), strict=True)):
        path = directory / f"{name}.txt"
        path.write_text("\n".join(lot) + "\n", encoding="utf-8")
        speakers = ["--speakers", ",".join(UNSEEN_VARIANTS)] if number else []
        spoken = directory / "spoken" / name
        _run("synthesise", path, "-o", spoken, *_synthesis(spec), "--hours", amounts[name], *speakers)
        cuts = _read(spoken / "train")
        made.append([_telephoned(cut, directory) for cut in cuts] if spec.get("telephone") else cuts)
    return made[0], made[1]


def _synthesis(spec: Mapping[str, Any]) -> list[object]:
    """Options of `unispeech synthesise`."""
    options: list[object] = ["--language", spec["language"], "--seed", 1]
    options += ["--words", *spec["words"], "--rate-range", *spec["rate_range"]]
    if spec.get("noise_snr_db"):
        options += ["--noise-snr-db", *spec["noise_snr_db"], "--noise-prob", spec.get("noise_prob", 0.5)]
    return options


def _telephoned(cut: Cut, directory: Path) -> Cut:
    """Lead the recording of a cut through a telephone."""
    import soundfile

    from unispeech.audio import load_audio
    from unispeech.data.augmentation import through_telephone
    from unispeech.frames import SAMPLE_RATE

    [source] = cut["recording"]["sources"]
    place = directory / "telephone" / Path(source["source"]).relative_to(directory / "spoken")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_suffix(".new")
        narrow = np.clip(through_telephone(load_audio(source["source"])), -1, 1)
        soundfile.write(beside, narrow, SAMPLE_RATE, format="FLAC")
        beside.rename(place)
    return cut | {"recording": cut["recording"] | {"sources": [source | {"source": str(place)}]}}


def _real_cuts(spec: Mapping[str, Any], directory: Path, sources: Sources) -> tuple[list[Cut], list[Cut]]:
    """Human speech: the texts of valid and test are heard nowhere else; the speakers are too few for that."""
    corpus = REAL.get(spec["language"])
    if corpus is None:
        raise ValueError(f"`language` must be one of {', '.join(REAL)}, but is {spec['language']!r}.")
    manifest, prepared = directory / "manifest.jsonl", directory / "prepared"
    lines = _manifest(corpus, sources.manifest)
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    _run("prepare", manifest, "-o", prepared, "--g2p", f"espeak:{corpus.voice}")
    cuts = _read(prepared)
    texts = sorted({str(cut["supervisions"][0]["text"]) for cut in cuts})
    order = {texts[i]: place for place, i in enumerate(np.random.default_rng(0).permutation(len(texts)))}
    cuts.sort(key=lambda cut: (order[str(cut["supervisions"][0]["text"])], cut["id"]))
    held_out, train = split_minutes(cuts, spec["valid_minutes"] + spec["test_minutes"] + 0.1)
    heard = {cut["supervisions"][0]["text"] for cut in held_out}
    return [cut for cut in train if cut["supervisions"][0]["text"] not in heard], held_out


def _manifest(corpus: RealCorpus, manifest: Path) -> list[dict[str, Any]]:
    """The lines of a corpus, their paths absolute; syllables without a text are read as written."""
    lines = []
    with manifest.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line["dataset"] in corpus.datasets and line.get("language") in corpus.languages:
                lines.append({
                    "audio": str(manifest.parent.absolute() / line["audio"]),
                    "text": line.get("text") or line.get("phones"),
                    "language": corpus.voice,
                    "speaker": line.get("speaker"),
                    "duration": line["duration"],
                })
    return lines


def _run(verb: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "unispeech", verb, *map(str, arguments)], check=True)


def _read(folder: Path) -> list[Cut]:
    """Read cuts with phones, recordings by absolute paths."""
    with gzip.open(folder / CUTS, "rt", encoding="utf-8") as file:
        cuts = [json.loads(line) for line in file]
    for cut in cuts:
        for source in cut["recording"]["sources"]:
            source["source"] = str(folder.absolute() / source["source"])
    return [cut for cut in cuts if (cut["supervisions"][0].get("custom") or {}).get("phones")]


def _write(folder: Path, cuts: Sequence[Cut]) -> None:
    folder.mkdir(exist_ok=True)
    with open_cut_file(folder / CUTS) as file:
        file.writelines(json.dumps(cut, ensure_ascii=False) + "\n" for cut in cuts)


def _summary(cuts: Sequence[Cut]) -> dict[str, float]:
    return {
        "utterances": len(cuts),
        "minutes": round(sum(cut["duration"] for cut in cuts) / 60, 2),
        "speakers": len({cut["supervisions"][0].get("speaker") for cut in cuts}),
    }
