"""`unispeech prepare`: a corpus to cuts or shards, and a list of what cannot be trained on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.data.checks import Phonemise
    from unispeech.data.corpora import CorpusReport

Format = Literal["auto", "folder", "jsonl", "common-voice", "fairseq", "kaldi", "audiofolder", "cuts"]

Switch = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which utterances."""

    format: Format = "auto"
    """How the corpus is laid out."""
    part: str | None = None
    """The part to take, such as train or dev. Without it, everything (Common Voice: validated)."""
    where: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Take utterances with field=value or field!=value. Repeat it: values of one field are alternatives."""
    max_seconds: float | None = None
    """Reject longer utterances."""
    dictionary: Path | None = None
    """What the numbers of a fairseq table stand for: vocab.json, or dict.txt; else the one beside it."""
    recordings: Path | None = None
    """Folder of the recordings of a fairseq table, in place of the one that it names; mp3 do for wav."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be learnt."""

    units: Literal["phones", "characters", "label", "none"] = "phones"
    """What a model is to tell apart; none for speech without transcripts, which pre-training learns from."""
    language: str | None = None
    """Language of the utterances that state none."""
    lexicon: Path | None = None
    """Look phones up in this lexicon where the corpus gives none: a word and its phones per line."""
    g2p: str | None = None
    """Make phones where the corpus gives none: epitran or espeak. epitran:deu-Latn names a code as well."""
    word_boundaries: Switch = False
    """Keep | between the phones of two words."""
    as_written: Switch = False
    """Keep ARPAbet phones; without it they become IPA."""
    tag_languages: Switch = False
    """Give each language phones of its own, (en)a; without it languages share phones."""
    vocabulary: Path | None = None
    """Keep to the vocabulary or the classes in this folder: what lies outside is rejected by name."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where the audio lies."""

    relative_paths: Switch = False
    """Write paths of recordings relative to the output, so that both can be moved."""
    shards: int | None = None
    """Write the audio, too: tar files of this many utterances in OUTPUT/shar, as flac (lhotse's Shar)."""
    shard_hours: float | None = None
    """Write the audio, too: tar files of this many hours in OUTPUT/shar."""


def prepare(
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    choice: Choice = Choice(),
    target: Target = Target(),
    storage: Storage = Storage(),
    check_audio: Switch = False,
) -> int:
    """Make training data of a corpus: cuts.jsonl.gz (or shards), rejected.jsonl and the vocabulary.

    Every line of the corpus is in the one or the other file, or was not asked for. Exit status 1 means
    that files are missing or broken, or lines cannot be read; the rest is done.

    Examples:
      unispeech prepare corpus -o data/train --language en --units characters
      unispeech prepare recordings -o data/unlabelled --language ky --units none
      unispeech prepare cv-corpus/sv -o data/sv-dev --part dev --g2p epitran --vocabulary data/sv-train
      unispeech prepare speech.jsonl -o data/fsdd --units label --where dataset=fsdd --where speaker!=nicolas
      unispeech prepare cv-corpus/en -o data/en --g2p espeak --shards 5000
      unispeech prepare ky/train.tsv -o data/ky --dictionary ky/vocab.json --recordings cv-corpus/ky/clips

    Args:
        source: Folder of recordings with transcripts, manifest, Common Voice folder, Kaldi directory, cuts.
        output: Folder to write to.
        choice: Which utterances.
        target: What is to be learnt.
        storage: Where the audio lies.
        check_audio: Decode every recording, which finds damage that headers do not show.
    """
    from unispeech.data.corpora import Preparation, prepare_corpus
    from unispeech.data.inventory import read_labels
    from unispeech.data.selection import Condition
    from unispeech.text import Vocabulary

    preparation = Preparation(
        units=target.units,
        format=None if choice.format == "auto" else choice.format,
        language=target.language,
        part=choice.part,
        dictionary=choice.dictionary,
        recordings=choice.recordings,
        where=tuple(Condition.parse(text) for text in choice.where),
        word_boundaries=target.word_boundaries,
        as_written=target.as_written,
        tag_languages=target.tag_languages,
        max_seconds=choice.max_seconds,
        check_audio=check_audio,
        relative_paths=storage.relative_paths,
        shard_utterances=storage.shards,
        shard_hours=storage.shard_hours,
    )
    is_label = target.units == "label"
    folder = target.vocabulary
    with ExitStack() as stack:
        report = prepare_corpus(
            source,
            output,
            preparation,
            phonemise=_phonemiser(target, stack),
            vocabulary=Vocabulary.load(folder) if folder is not None and not is_label else None,
            label2id=read_labels(folder) if folder is not None and is_label else None,
            on_progress=stack.enter_context(_progress()),
        )
    print("\n".join(_summary(report, output)), file=sys.stderr)
    return 1 if report.num_broken else 0


def _phonemiser(target: Target, stack: ExitStack) -> "Phonemise | None":
    """One way from text to phones for all languages of the corpus; processes end with the stack."""
    from unispeech.data.g2p import Method, Phonemizer, open_phonemizer

    if target.lexicon is None and target.g2p is None:
        return None
    if target.lexicon is not None and target.g2p is not None:
        raise ValueError("`lexicon` and `g2p` must not be given together; which of the two shall it be?")
    name, _, code = (target.g2p or "lexicon").partition(":")
    choices: dict[str, Method] = {"lexicon": "lexicon", "epitran": "epitran", "espeak": "espeak"}
    if name not in choices:
        raise ValueError(f"`g2p` must be epitran or espeak, but is {name!r}.")
    opened: dict[str | None, Phonemizer] = {}
    refused: dict[str | None, str] = {}

    def phonemise(text: str, language: str | None) -> list[list[str]]:
        key = None if target.lexicon else (code or language)
        # Asking takes a process or seconds: once for a language, not for each of its utterances.
        if key in refused:
            raise ValueError(refused[key])
        if key not in opened:
            opener = open_phonemizer(choices[name], language=key, lexicon=target.lexicon)
            try:
                opened[key] = stack.enter_context(opener)
            except ValueError as error:
                refused[key] = str(error)
                raise
        return opened[key].phones(text)

    if target.lexicon or code:
        # What does not depend on an utterance fails now, not a thousand times.
        phonemise("", None)
    return phonemise


@contextmanager
def _progress() -> "Iterator[Callable[[CorpusReport], None]]":
    """Show lines and hours so far on a terminal's stderr; gone when done.

    Yields:
        What takes the count so far.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading")

        def show(report: "CorpusReport") -> None:
            hours = sum(amount.duration for amount in report.kept.values()) / 3600
            progress.update(task, description=f"{report.num_lines} lines read, {hours:.2f} h kept")

        yield show


def _summary(report: "CorpusReport", output: Path) -> list[str]:
    """The report as lines of text."""
    from unispeech.data.corpora import REJECTED

    lines = [
        f"{report.num_lines} lines: {report.num_kept} kept, {report.num_rejected} rejected, "
        f"{report.num_left_out} not asked for"
    ]
    for language, amount in sorted(report.kept.items()):
        lines.append(f"  {language:8} kept {amount.num_utterances:8} {amount.duration / 3600:9.3f} h")
    for (language, reason), amount in sorted(report.rejected.items()):
        hours = f"{amount.duration / 3600:9.3f} h"
        lines.append(f"  {language:8} rejected {amount.num_utterances:4} {hours}  {reason}")
    if report.num_restated:
        lines.append(
            f"  {report.num_restated} stated durations are off by more than 0.1 s; the recordings' own count"
        )
    if report.num_rejected:
        lines.append(f"  reasons line by line: {output / REJECTED}")
    return lines
