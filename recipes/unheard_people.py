"""Sentences by people whom no training here has heard, to measure on: Czech and Dutch actors of a game.

    python recipes/unheard_people.py UNPACKED -o data/people
    unispeech prepare data/people/cs.jsonl -o data/multi/people-cs --g2p espeak
    unispeech prepare data/people/nl.jsonl -o data/multi/people-nl --g2p espeak

Fish Fillets Next Generation (ALTAR interactive; GPL-2) says its dialogues aloud in Czech and Dutch, and
carries their texts. UNPACKED is a folder with its packages, such as Debian's:

    for package in fillets-ng-data fillets-ng-data-cs fillets-ng-data-nl
    do apt download $package && dpkg-deb -x ${package}_*.deb UNPACKED; done

It is acted: voices of fish, statues and a parrot, some with effects, and the actor may stray from the text.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LANGUAGES = ("cs", "nl")
DIALOGUE = re.compile(r'dialogId\("([^"]+)",\s*"([^"]+)",.*\)\s*dialogStr\("((?:[^"\\]|\\.)+)"\)')
"""A line of the game: its name, the font that stands for who says it, the English text; then the text."""
GAME = Path("usr/share/games/fillets-ng")


def main() -> None:
    """Write a manifest of each language."""
    parser = argparse.ArgumentParser(description="Manifests of Fish Fillets' Czech and Dutch dialogues.")
    parser.add_argument("unpacked", type=Path, help="the folder that the game's packages are unpacked in")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=250, help="of each language, drawn at random")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = list(spoken(arguments.unpacked / GAME, language))
        if not lines:
            sys.exit(
                f"{arguments.unpacked}: no {language} dialogue; unpack fillets-ng-data and -{language} there"
            )
        drawn = random.Random(7).sample(lines, min(arguments.utterances, len(lines)))
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in drawn)
        (arguments.output / f"{language}.jsonl").write_text(text, encoding="utf-8")
        print(f"{arguments.output / language}.jsonl: {len(drawn)} of {len(lines)} lines", file=sys.stderr)


def spoken(game: Path, language: str) -> Iterator[dict[str, str]]:
    """Dialogues with a recording.

    Yields:
        A line of the manifest for every one whose text is fixed and holds a word.
    """
    for script in sorted((game / "script").rglob(f"*dialogs_{language}.lua")):
        folder = game / "sound" / script.parent.relative_to(game / "script")
        for name, font, text in DIALOGUE.findall(script.read_text("utf-8")):
            recordings = sorted(folder.glob(f"**/{language}/{name}.ogg"))
            if recordings and "%" not in text and re.search(r"\w\w", text):
                yield {
                    "audio": str(recordings[0].resolve()),
                    "text": text.replace("\\", ""),
                    "language": language,
                    "speaker": f"{language}-{font.removeprefix('font_')}",
                }


if __name__ == "__main__":
    main()
