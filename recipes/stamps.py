"""Write manifests of the descriptions that people read for Tux Paint's stamps, in nine languages.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb data/stamps/package
    python recipes/stamps.py data/stamps/package/usr/share/tuxpaint/stamps -o data/stamps
    unispeech prepare data/stamps/stamps.jsonl -o data/multi/stamps --g2p espeak

A recording NAME_desc_LANGUAGE.ogg stands beside NAME.txt, which has a line for each language. Some were made
of other words than the line has now: what would be read much too fast or too slowly is left out, and so is
what holds digits. One person reads each language, but two French. Licence: GPL-2 (the package's copyright
file).
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

import soundfile

LANGUAGES = {
    "be": "be", "bg": "bg", "ca": "ca", "da": "da", "el": "el", "es": "es", "fr": "fr-fr",
    "ro": "ro", "ru": "ru",
}  # fmt: skip
"""Language of a recording -> espeak-ng's. Nynorsk is left out: a synthesiser reads it."""

LETTERS_PER_SECOND = (5.0, 22.0)
"""Least and greatest pace that may be true."""


def main() -> None:
    """Read all descriptions, write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stamps", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    lines, counts = [], Counter[str]()
    for path in sorted(arguments.stamps.absolute().rglob("*_desc_*.ogg")):
        name, language = path.stem.rsplit("_desc_", 1)
        if language not in LANGUAGES:
            continue
        text, seconds = read_text(path.with_name(f"{name}.txt"), language), soundfile.info(path).duration
        counts[f"{language}, all"] += 1
        if text is None or not is_possible(text, seconds):
            continue
        counts[language] += 1
        place = "-".join(path.relative_to(arguments.stamps.absolute()).with_name(name).parts)
        entry = {
            "id": f"{language}-{place}",
            "audio": str(path),
            "text": text,
            "language": LANGUAGES[language],
        }
        lines.append(json.dumps(entry | {"speaker": f"stamps-{language}"}, ensure_ascii=False) + "\n")
    if not lines:
        sys.exit(f"{arguments.stamps}: no NAME_desc_LANGUAGE.ogg beside a NAME.txt that has its words")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "stamps.jsonl").write_text("".join(lines), encoding="utf-8")
    told = ", ".join(
        f"{language} {counts[language]} of {counts[f'{language}, all']}" for language in LANGUAGES
    )
    print(f"{len(lines)} recordings: {told}", file=sys.stderr)


def read_text(path: Path, language: str) -> str | None:
    """The words of a description; None if they are not there."""
    if not path.is_file():
        return None
    found = re.search(rf"^{language}\.utf8=(.+)$", path.read_text("utf-8", errors="replace"), re.MULTILINE)
    return found[1].strip() if found else None


def is_possible(text: str, seconds: float) -> bool:
    """Whether a text can be read as it is spelled, in this time."""
    letters = sum(character.isalpha() for character in text)
    slowest, fastest = LETTERS_PER_SECOND
    return not re.search(r"[\d$€£(){}\[\]<>_@#*/\\=+]", text) and slowest <= letters / seconds <= fastest


if __name__ == "__main__":
    main()
