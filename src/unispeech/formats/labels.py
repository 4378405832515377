"""Classification -> text, JSON and tables: which labels fit a recording, and each window of a long one.

JSON: one object per recording: `version` (of this layout), `audio` (the path as given), `duration`, `labels`
(a list of `label`, `score`, the best first) and, where the recording was heard in windows, `windows` (a list
of `start`, `end`, `labels`). Seconds and scores are rounded to four decimals.
"""

import csv
import io
from collections.abc import Callable

from unispeech.formats.json import NUM_DECIMALS, dump, to_document
from unispeech.results import Classification

VERSION = 1
"""Version of the JSON layout."""

COLUMNS = ("tier", "start", "end", "label", "score")
"""The header line of tables, as that of transcripts."""


def labels_to_txt(classification: Classification) -> str:
    """Write a label a line, a tab and its score behind it.

    Args:
        classification: What a recording gave.

    Returns:
        The lines of the whole recording, the best label first; no line end.
    """
    return "\n".join(f"{found.label}\t{found.score:.{NUM_DECIMALS}f}" for found in classification.labels)


def labels_to_json(classification: Classification) -> str:
    """Write a classification as one JSON object over several lines, a label or a window a line.

    Args:
        classification: What a recording gave.

    Returns:
        The JSON text without a line end; the same document as `labels_to_jsonl`.
    """
    return dump(to_document(classification, VERSION), is_spread=True)


def labels_to_jsonl(classification: Classification) -> str:
    """Write a classification as one JSON object on one line.

    Args:
        classification: What a recording gave.

    Returns:
        The JSON text without a line end.
    """
    return dump(to_document(classification, VERSION))


def labels_to_tsv(classification: Classification) -> str:
    """Write a classification as a table for spreadsheets, R and pandas.

    The columns are `tier` (recording or window), `start` and `end` (seconds), `label` and `score`. The rows
    of the whole recording come first, the best label of each stretch before the others.

    Args:
        classification: What a recording gave.

    Returns:
        The header and a line for each label; no line end.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    stretches = [("recording", 0.0, classification.duration, classification.labels)]
    stretches += [
        ("window", window.start, window.end, window.labels) for window in classification.windows or ()
    ]
    for tier, start, end, labels in stretches:
        for found in labels:
            table.writerow((tier, f"{start:.4f}", f"{end:.4f}", found.label, f"{found.score:.4f}"))
    return buffer.getvalue().removesuffix("\n")


LABEL_FORMATS: dict[str, Callable[[Classification], str]] = {
    "txt": labels_to_txt,
    "json": labels_to_json,
    "tsv": labels_to_tsv,
}
"""Name of a format -> what writes a classification in it, without a line end."""
