"""Write phrases from a program's message catalogues, for languages of which there is no other text.

    apt install libreoffice-l10n-{eo,mr,te}
    python recipes/catalogue_texts.py /usr/lib/libreoffice/program/resource -o data/multi/unheard \
      --languages eo mr te

Writes LANGUAGE.txt: the translations of two to twelve words, each once, in a random order. LibreOffice's are
under MPL-2.0. It needs Python alone, as `recipes/recorded_voices.py` does, which reads the texts.
"""

import argparse
import gettext
import random
import re
import sys
from pathlib import Path


def main() -> None:
    """Read all catalogues of each language, and write its text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("catalogues", type=Path, help="folder of LANGUAGE/LC_MESSAGES/*.mo")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for language in arguments.languages:
        lines = sorted(phrases(arguments.catalogues / language / "LC_MESSAGES"))
        if not lines:
            sys.exit(f"{arguments.catalogues}: no translations to {language}")
        random.Random(language).shuffle(lines)
        text = "".join(f"{line}\n" for line in lines)
        (arguments.output / f"{language}.txt").write_text(text, encoding="utf-8")
        print(f"{language}: {len(lines)} phrases", file=sys.stderr)


def phrases(folder: Path) -> set[str]:
    """The translations of two to twelve words and nothing but letters, as one line each."""
    latin = "" if folder.parent.name == "eo" else "|[A-Za-z]{2}"
    foreign = r"[\d<>{}%$&/\\()=|@]" + latin
    found = set()
    for path in folder.glob("*.mo"):
        with path.open("rb") as file:
            messages = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for original, message in messages.items():
            words = str(message).replace("~", "").replace("_", "").strip(" .:…!").split()
            odd = re.search(foreign, str(message))
            if original and not odd and 2 <= len(words) <= 12:
                found.add(" ".join(words))
    return found


if __name__ == "__main__":
    main()
