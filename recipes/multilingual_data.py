"""Prepare the data of the multilingual phone recogniser: real recordings and synthetic speech, one phone set.

    python recipes/multilingual_data.py SPEECH TEXT WORDFREQ -o data/multi

SPEECH is a folder with recordings and a manifest.jsonl (a line per recording: audio, text, phones where
there are any, language, speaker, dataset, part, duration). TEXT is a folder of en.txt, es.txt, ... with
a sentence per line. WORDFREQ is the folder `wordfreq/data` of the Python package wordfreq 3.1.1 (its words
are used as text to be spoken; reading them needs the package msgpack). Needs the extra `espeak`.

Everything under the output folder can be made again; what is already there is kept. The last step writes

* train-syn, dev-syn: synthetic speech with phone times; train-syn-part: 9/20 of train-syn; train-more: with
  `--more N`, N times the hours of train-syn, of sentences in which nothing of dev-syn occurs;
* train-real: each recording as often as `COPIES` says, each time to be augmented anew;
* train-mixed: real speech (`MIXED_COPIES`) and half of train-syn-part in one random order. Order matters:
  batches are drawn from a window of 20,000 utterances that moves along the sets, so that of train-syn and
  train-real, named one after the other, the first thousands of batches hold hardly any real speech;
* train-voices, dev-voices: what `recipes/recorded_voices.py` and `unispeech prepare` put into OUTPUT/voices,
  if they did; `UNSEEN_VOICES` speak in dev-voices alone;
* train-syllables, dev-gcin-5: what `recipes/mandarin_syllables.py` and `unispeech prepare` put into
  OUTPUT/syllables; train-stamps, dev-stamps-el, dev-stamps-da: likewise of `recipes/stamps.py`;
* dev-NAME: held-out recordings of each data set; dev-joint: a few of each, to validate on during training;
* vocab: the phones that multilingual-phones.tsv maps all sources to.
"""

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("multilingual-phones.tsv")
"""What espeak-ng and the corpora write -> symbols of the shared set."""

VOICES = {"en": "en-us", "en-US": "en-us", "es-MX": "es-419", "zh-CN": "cmn", "fr": "fr-fr"}
"""Language of the manifest -> voice of espeak-ng, where they differ."""

NAMES = {
    "gcompris-voices": "gcompris-{}", "asterisk-en-es": "asterisk-{}", "speechocean762": "speechocean",
    "arabic-speech-commands": "arabic", "kerstin-de": "kerstin", "picovoice-wakeword": "wakeword",
}  # fmt: skip
"""Data set of the manifest -> name, where they differ; {} is the language."""

COPIES = {
    "speechocean": 3, "fsdd": 3, "arabic": 2, "wakeword": 2, "asterisk-en": 3, "asterisk-es": 3,
    "asterisk-ru": 3, "gcompris-de": 3, "gcompris-es": 3, "gcompris-fr": 3, "kerstin": 2, "audio-cmn": 2,
}  # fmt: skip
"""How often an epoch holds each recording."""

MIXED_COPIES = {"speechocean": 2, "fsdd": 2, "wakeword": 2}
"""How often train-mixed holds each recording; 1 of the data sets not named here."""

MOST = {"wakeword": 360, "arabic": 1300}
"""Recordings taken at most: few words, said many hundred times."""

JOINT = {"speechocean": 40, "kerstin": 15, "fsdd": 25, "arabic": 25}
"""Recordings of the joint dev set; 12 of the data sets not named here."""

SENTENCES = {"en-us": 0.8} | dict.fromkeys(
    ("es", "fr-fr", "it", "nl", "ru", "cmn", "sv", "tr", "ky", "tt"), 0.4
)
"""Voice -> hours of sentences."""

WORDS = (
    {language: (language, 0.15) for language in (
        "it", "nl", "ru", "sv", "tr", "fi", "hu", "ro", "da", "nb", "ca", "el", "bg", "uk", "he", "sk", "lv",
        "mk", "hi", "id", "ar", "fa", "ko", "lt", "ja", "vi", "bn", "ta", "ur", "is",
    )}
    | {"en": ("en-us", 0.3), "de": ("de", 0.3), "pt": ("pt-br", 0.3), "pl": ("pl", 0.3), "cs": ("cs", 0.3)}
    | {"es": ("es-419", 0.15), "fr": ("fr-fr", 0.15), "sh": ("hr", 0.15)}
)  # fmt: skip
"""Language of wordfreq -> voice and hours of one to four words."""

UNSEEN_VOICES = {
    "festival-hy_fi_mv_diphone": 40, "flite-rms": 60, "rhvoice-irina": 40, "rhvoice-natan": 60
}  # fmt: skip
"""Voices that dev-voices alone has, and how many utterances of each."""

UNSEEN_READERS = {"syllables": ("gcin-5",), "stamps": ("stamps-da", "stamps-el")}
"""Folder -> speakers that no training hears."""

LONGEST = 14.0
"""Seconds; longer recordings are left out of training."""

Cut = dict[str, Any]


@dataclass(frozen=True)
class Synthetic:
    """What espeak-ng speaks in one language."""

    name: str
    """Of the folder."""
    text: Path
    """A sentence, or some words, per line."""
    voice: str
    """Of espeak-ng."""
    hours: float
    """Of train-syn and dev-syn."""
    longest: int
    """Words of an utterance."""
    dev: float
    """Share of dev-syn."""

    def command(self, text: Path, output: Path, hours: float, seed: int) -> list[str]:
        """The command that speaks a text."""
        return [
            *("synthesise", str(text), "-o", str(output), "--language", self.voice, "--hours", f"{hours:g}"),
            *("--words", "1", str(self.longest), "--seed", str(seed), "--rate-range", "100", "240"),
            *("--noise-snr-db", "5", "30", "--noise-prob", "0.4", "--reverb-prob", "0.25"),
        ]


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("speech", "text", "wordfreq"):
        parser.add_argument(name, type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--more", type=float, default=0.0, help="hours of train-more, in those of train-syn")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    output: Path = arguments.output
    commands = prepare_commands(arguments.speech, output)
    corpora = synthetic_corpora(arguments.text, arguments.wordfreq, output)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, commands + synthesis_commands(corpora, output)))
        list(pool.map(run, more_commands(corpora, output, arguments.more)))
    write_data(output)


def run(command: list[str]) -> None:
    """Run a command of unispeech; a failure ends the script with the command's own message."""
    subprocess.run([sys.executable, "-m", "unispeech", *command], check=True)


def prepare_commands(speech: Path, output: Path) -> list[list[str]]:
    """Part the recordings by data set, train and dev, and say how their phones are made."""
    lines = [json.loads(line) for line in (speech / "manifest.jsonl").read_text("utf-8").splitlines()]
    speakers = sorted({line["speaker"] for line in lines if line["dataset"] == "arabic-speech-commands"})
    unseen = {"nicolas", *speakers[::8]}
    parts: defaultdict[str, list[Cut]] = defaultdict(list)
    for line in lines:
        text = line.get("text") or (line.get("phones") if line["dataset"] == "audio-cmn" else None)
        if not text or re.search(r"[\[\]<>{}_@#*/\\=+]", text):
            continue
        parts[part_of(line, unseen)].append(manifest_line(line, text, speech))
    folder = output / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    commands = []
    for name, entries in parts.items():
        manifest = folder / f"{name}.jsonl"
        manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        goal = output / "real" / name
        if not (goal / "cuts.jsonl.gz").exists():
            commands.append(["prepare", str(manifest), "-o", str(goal), "--g2p", "espeak"])
    return commands


def part_of(line: Cut, unseen: set[str]) -> str:
    """The data set of a recording, with -train or -dev: unseen speakers where there are several, else 4 %."""
    dataset = line["dataset"]
    is_dev = line["part"] == "dev"
    if dataset in {"fsdd", "arabic-speech-commands"}:
        is_dev = is_dev or line["speaker"] in unseen
    elif dataset not in {"speechocean762", "kerstin-de"}:
        is_dev = is_dev or zlib.crc32(line["audio"].encode()) % 100 < 4
    name = NAMES.get(dataset, dataset).format(line["language"][:2])
    return f"{name}-{'dev' if is_dev else 'train'}"


def manifest_line(line: Cut, text: str, speech: Path) -> Cut:
    """What `unispeech prepare` needs of a recording. Only Arabic keeps the corpus' own phones."""
    name = NAMES.get(line["dataset"], line["dataset"]).format(line["language"][:2])
    entry = {
        "id": f"{name}-{zlib.crc32(line['audio'].encode()):08x}",
        "audio": str((speech / line["audio"]).absolute()),
        "text": text.lower() if name == "speechocean" else text,
        "language": VOICES.get(line["language"], line["language"]),
        "duration": line["duration"],
    }
    if line.get("speaker"):
        entry["speaker"] = line["speaker"]
    if name == "arabic":
        entry["phones"] = line["phones"]
    return entry


def synthetic_corpora(text: Path, wordfreq: Path, output: Path) -> list[Synthetic]:
    """Say what espeak-ng is to speak."""
    corpora = []
    for voice, hours in SENTENCES.items():
        name = {"cmn": "zh"}.get(voice, voice.split("-")[0])
        corpora.append(Synthetic(voice, text / f"{name}.txt", voice, hours, longest=12, dev=0.04))
    for language, (voice, hours) in WORDS.items():
        path = write_words(wordfreq, language, output)
        corpora.append(Synthetic(f"w-{language}", path, voice, hours, longest=4, dev=0.05))
    return corpora


def synthesis_commands(corpora: list[Synthetic], output: Path) -> list[list[str]]:
    """The commands of train-syn and dev-syn."""
    return [
        [*one.command(one.text, output / "syn" / one.name, one.hours, seed=3), "--dev", str(one.dev)]
        for one in corpora
        if not (output / "syn" / one.name / "dev" / "cuts.jsonl.gz").exists()
    ]


def more_commands(corpora: list[Synthetic], output: Path, factor: float) -> list[list[str]]:
    """The commands of train-more, once dev-syn is there."""
    commands = []
    for one in corpora if factor else ():
        goal = output / "syn-more" / one.name
        if not (goal / "train" / "cuts.jsonl.gz").exists():
            text = write_unheard(one, output)
            commands.append(one.command(text, goal, factor * one.hours, seed=4))
    return commands


def write_unheard(corpus: Synthetic, output: Path) -> Path:
    """Write the lines of a text that are not in the dev part, nor hold three words or more of it in a row."""
    with gzip.open(output / "syn" / corpus.name / "dev" / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        phrases = {json.loads(cut)["supervisions"][0]["text"] for cut in file}
    path = output / "unheard" / f"{corpus.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = corpus.text.read_text("utf-8").splitlines()
    long = [phrase for phrase in phrases if phrase.count(" ") >= 2]
    kept = (line for line in lines if line not in phrases and not any(phrase in line for phrase in long))
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return path


def write_words(wordfreq: Path, language: str, output: Path) -> Path:
    """Write the 6,000 most frequent words of a language, one to four on a line, in a random order."""
    import msgpack  # type: ignore[import-not-found]

    sizes = (wordfreq / f"{size}_{language}.msgpack.gz" for size in ("large", "small"))
    with gzip.open(next(path for path in sizes if path.exists())) as file:
        groups = msgpack.load(file, raw=False)[1:]
    words = [word for group in groups for word in group if len(word) >= 2 and is_spelled(word)][:6000]
    rng = random.Random(7)
    rng.shuffle(words)
    path = output / "words" / f"{language}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        start = 0
        while start < len(words):
            count = rng.choices([1, 2, 3, 4], [5, 3, 2, 1])[0]
            file.write(" ".join(words[start : start + count]) + "\n")
            start += count
    return path


def is_spelled(word: str) -> bool:
    """Whether a word is of letters and their marks only."""
    return all(unicodedata.category(character)[0] in "LM" for character in word)


def write_data(output: Path) -> None:
    """Bring all phones into one set and write the sets of cuts."""
    table = read_table()
    rng = random.Random(5)
    synthetic: dict[str, list[Cut]] = {"train": [], "dev": []}
    for folder in sorted((output / "syn").iterdir()):
        for part, cuts in synthetic.items():
            prefix = "w-" if folder.name.startswith("w-") else ""
            cuts += [cut for cut in read_cuts(folder / part, table, prefix) if cut["duration"] <= LONGEST]
    languages: defaultdict[str, list[Cut]] = defaultdict(list)
    for cut in synthetic["dev"]:
        languages[cut["supervisions"][0]["language"]].append(cut)
    dev = []
    for _, cuts in sorted(languages.items()):
        rng.shuffle(cuts)
        dev += cuts[:12]
    write_cuts(output / "train-syn", synthetic["train"])
    if (output / "syn-more").exists():
        write_cuts(output / "train-more", read_more(output / "syn-more", table))
    write_cuts(output / "dev-syn", dev)
    if (output / "voices").exists():
        write_voices(output, table)
    for folder, unseen in UNSEEN_READERS.items():
        if (output / folder).exists():
            write_readers(output, folder, unseen, table)
    part = list(synthetic["train"])
    random.Random(6).shuffle(part)
    part = part[: len(part) * 9 // 20]
    write_cuts(output / "train-syn-part", part)
    joint = rng.sample(dev, 60)
    real, mixed = [], []
    for folder in sorted((output / "real").glob("*-train")):
        name = folder.name.removesuffix("-train")
        cuts = [cut for cut in read_cuts(folder, table) if cut["duration"] <= LONGEST]
        if name in MOST:
            rng.shuffle(cuts)
        for cut in cuts[: MOST.get(name)]:
            repeated = list(copies(cut, COPIES[name]))
            real += repeated
            mixed += repeated[: MIXED_COPIES.get(name, 1)]
    write_cuts(output / "train-real", real)
    mixed += part[: len(part) // 2]
    random.Random(8).shuffle(mixed)
    write_cuts(output / "train-mixed", mixed)
    for folder in sorted((output / "real").glob("*-dev")):
        name = folder.name.removesuffix("-dev")
        cuts = list(read_cuts(folder, table))
        write_cuts(output / f"dev-{name}", cuts)
        rng.shuffle(cuts)
        joint += cuts[: JOINT.get(name, 12)]
    write_cuts(output / "dev-joint", joint)
    write_vocabulary(output / "vocab", synthetic["train"] + real)


def read_more(folder: Path, table: dict[str, str]) -> list[Cut]:
    """Read the cuts of train-more in one random order."""
    cuts = [
        cut
        for corpus in sorted(folder.iterdir())
        for cut in read_cuts(corpus / "train", table, f"more-{corpus.name}-")
        if cut["duration"] <= LONGEST
    ]
    random.Random(9).shuffle(cuts)
    return cuts


def write_voices(output: Path, table: dict[str, str]) -> None:
    """Part what voices made from recordings said into those of training, in a random order, and of dev."""
    voices: defaultdict[str, list[Cut]] = defaultdict(list)
    for cut in read_cuts(output / "voices", table):
        voices[speaker_of(cut)].append(cut)
    dev = [cut for voice, count in UNSEEN_VOICES.items() for cut in voices.pop(voice, [])[:count]]
    train = [cut for cuts in voices.values() for cut in cuts if cut["duration"] <= LONGEST]
    random.Random(10).shuffle(train)
    write_cuts(output / "train-voices", train)
    write_cuts(output / "dev-voices", dev)


def write_readers(output: Path, folder: str, unseen: tuple[str, ...], table: dict[str, str]) -> None:
    """Part a corpus into a set of each reader that is not trained on and one of all others, shuffled."""
    cuts = list(read_cuts(output / folder, table))
    for reader in unseen:
        write_cuts(output / f"dev-{reader}", [cut for cut in cuts if speaker_of(cut) == reader])
    train = [cut for cut in cuts if speaker_of(cut) not in unseen]
    random.Random(11).shuffle(train)
    write_cuts(output / f"train-{folder}", train)


def speaker_of(cut: Cut) -> str:
    """Who speaks."""
    return str(cut["supervisions"][0]["speaker"])


def read_table() -> dict[str, str]:
    """A phone as espeak-ng writes it -> the symbols of the shared set."""
    return dict(line.split("\t") for line in TABLE.read_text("utf-8").splitlines()[1:])


def read_cuts(folder: Path, table: dict[str, str], prefix: str = "") -> Iterator[Cut]:
    """Read cuts.

    Yields:
        Those whose phones the table has, in the shared set, the paths of their recordings absolute.
    """
    unknown: Counter[str] = Counter()
    with gzip.open(folder / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        for cut in map(json.loads, file):
            supervision = cut["supervisions"][0]
            phones = supervision["custom"]["phones"].split()
            missing = [phone for phone in phones if phone not in table]
            if missing:
                unknown[missing[0]] += 1
                continue
            supervision["custom"]["phones"] = " ".join(table[phone] for phone in phones)
            times = (supervision.get("alignment") or {}).get("phone")
            if times:
                supervision["alignment"]["phone"] = [row for item in times for row in divided(item, table)]
            cut["id"] = supervision["id"] = prefix + cut["id"]
            for source in cut["recording"]["sources"]:
                source["source"] = str((folder / source["source"]).resolve())
            yield cut
    if unknown:
        print(f"{folder}: left out because of phones that the table lacks: {dict(unknown)}", file=sys.stderr)


def divided(item: list[Any], table: dict[str, str]) -> Iterator[list[Any]]:
    """Share the time of a phone among the symbols that it is written with.

    Yields:
        Symbol, start, duration and score.
    """
    phone, start, duration, score = item
    symbols = table[phone].split()
    for number, symbol in enumerate(symbols):
        length = duration / len(symbols)
        yield [symbol, round(start + number * length, 5), round(length, 5), score]


def copies(cut: Cut, count: int) -> Iterator[Cut]:
    """Repeat a cut.

    Yields:
        It, as often as it is to be in an epoch, each time under a name of its own.
    """
    yield cut
    for number in range(2, count + 1):
        name = f"{cut['id']}-{number}"
        supervision = {**cut["supervisions"][0], "id": name}
        yield {**cut, "id": name, "supervisions": [supervision]}


def write_cuts(folder: Path, cuts: list[Cut]) -> None:
    """Write a folder that `unispeech finetune` and `evaluate` read."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut, ensure_ascii=False) + "\n" for cut in cuts)
    print(f"{folder}: {len(cuts)} utterances, {sum(cut['duration'] for cut in cuts) / 3600:.2f} h")


def write_vocabulary(folder: Path, cuts: list[Cut]) -> None:
    """Write the symbols that occur in training."""
    from unispeech.text import Vocabulary

    symbols = sorted({phone for cut in cuts for phone in cut["supervisions"][0]["custom"]["phones"].split()})
    folder.mkdir(parents=True, exist_ok=True)
    Vocabulary.build([" ".join(symbols)], kind="phones").save(folder)


if __name__ == "__main__":
    main()
