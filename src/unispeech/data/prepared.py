"""Cuts that were prepared or synthesised before -> utterances: to select from, or to put into shards."""

from collections.abc import Iterator
from pathlib import Path

from unispeech.data.cuts import CUTS, find_shard_folder, read_cut, read_lines
from unispeech.data.utterances import Item, Utterance
from unispeech.errors import ManifestError


def is_prepared(source: Path) -> bool:
    """Tell cuts from other corpora.

    Args:
        source: File or folder.

    Returns:
        Whether it is a file of cuts, or a folder with cuts or shards.
    """
    if source.is_dir():
        return (source / CUTS).is_file() or find_shard_folder(source) is not None
    return source.name.endswith(".jsonl.gz")


def read_prepared(source: Path, part: str | None = None) -> Iterator[Item]:
    """Read cuts whose recordings are files; phones, label and known times are kept.

    Args:
        source: A file of cuts, or a folder with a `cuts.jsonl.gz`.
        part: Not used; cuts have no parts.

    Yields:
        An item per cut.

    Raises:
        ManifestError: If the cuts lie in shards, or a line is no cut.
    """
    if find_shard_folder(source) is not None:
        raise ManifestError(
            f"{source}: recordings must be files, but lie in shards; prepare the corpus that it is of."
        )
    path = source / CUTS if source.is_dir() else source
    for number, line in read_lines(path):
        cut = read_cut(line, path, number)
        supervision = cut.supervisions[0]
        custom = supervision.custom or {}
        is_whole = cut.start == 0 and abs(cut.duration - cut.recording.duration) < 1e-3
        alignment = supervision.alignment or {}
        fields = {"language": supervision.language, "speaker": supervision.speaker, "text": supervision.text}
        yield Utterance(
            id=cut.id,
            audio=Path(cut.recording.sources[0].source),
            source=f"{path}:{number}",
            start=cut.start,
            duration=cut.duration,
            is_segment=not is_whole,
            text=custom.get("orthography") or supervision.text,
            phones=custom.get("phones"),
            is_separated=True,
            label=custom.get("label"),
            language=supervision.language,
            speaker=supervision.speaker,
            alignment={tier: [list(item) for item in items] for tier, items in alignment.items()},
            fields={name: value for name, value in {**custom, **fields}.items() if value is not None},
        )
