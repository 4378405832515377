"""Write the phones of a prepared corpus in the shared set of the multilingual recogniser, to measure it.

unispeech prepare corpus -o data/corpus --language cs --g2p espeak
python recipes/shared_phones.py data/corpus -o data/corpus-shared
unispeech evaluate examples/checkpoint data/corpus-shared
"""

import argparse
import sys
from pathlib import Path

from multilingual_data import TABLE, read_cuts, read_table, write_cuts


def main() -> None:
    """Read, rewrite by `multilingual-phones.tsv`, and write."""
    parser = argparse.ArgumentParser(description="The phones of a prepared corpus in the shared set.")
    parser.add_argument("data", type=Path, help="a folder that `unispeech prepare` made")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not (arguments.data / "cuts.jsonl.gz").is_file():
        sys.exit(f"{arguments.data}: no cuts.jsonl.gz; run `unispeech prepare` first")
    cuts = list(read_cuts(arguments.data, read_table()))
    if not cuts:
        sys.exit(f"{arguments.data}: no utterance whose phones are all in {TABLE.name}")
    write_cuts(arguments.output, cuts)


if __name__ == "__main__":
    main()
