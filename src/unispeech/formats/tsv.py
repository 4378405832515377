"""Transcript -> a table: one word or phone a row, columns apart by tabs."""

import csv
import io

from unispeech.formats.spans import tiers
from unispeech.results import Transcript

COLUMNS = ("tier", "start", "end", "label", "score")
"""The header line."""


def to_tsv(transcript: Transcript) -> str:
    """Write a transcript as a table for spreadsheets, R and pandas.

    The columns are `tier` (words or phones), `start` and `end` (seconds), `label` and `score`; seconds and
    scores have four decimals. Words, where there are any, come first. A label with a quotation mark is quoted
    and the mark doubled, as in CSV.

    Args:
        transcript: What a recording gave.

    Returns:
        The header and a line for each word and phone; no line end.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    for tier, spans in tiers(transcript).items():
        for label, start, end, score in spans:
            table.writerow((tier, f"{start:.4f}", f"{end:.4f}", label, f"{score:.4f}"))
    return buffer.getvalue().removesuffix("\n")
