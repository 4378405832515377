"""Transcript -> ELAN annotation file (EAF 3.0), tiers `words` and `phones`."""

import mimetypes
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from unispeech.formats.spans import clean, lay_out, tiers
from unispeech.results import Transcript

TYPE = "default-lt"
"""Linguistic type of all tiers: free intervals of time, ELAN's own default."""

CONSTRAINTS = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, "
    "no time gaps allowed within this interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. "
    "Annotations refering to the same parent are ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, "
    "gaps are allowed",
}
"""The stereotypes that every EAF file declares, in the words of the format."""


def to_eaf(transcript: Transcript) -> str:
    """Write a transcript as an ELAN annotation file.

    Tiers are `words`, where the vocabulary has word boundaries, and `phones`; they are independent, so that a
    boundary can be moved without moving another tier's. Times are whole milliseconds; ELAN's annotations
    cannot be empty, so a phone of no length gets one, as `spans.lay_out` says. The recording is linked by its
    absolute path, and by its name beside the file for those who move both.

    Args:
        transcript: What a recording gave.

    Returns:
        An XML document without a line end, to be written in UTF-8.

    Raises:
        ValueError: If a time or a score is not finite.
    """
    levels = {
        name: (spans, lay_out(spans, ticks_per_second=1000, duration=transcript.duration))
        for name, spans in tiers(transcript).items()
    }
    # Every annotation has two time slots of its own; slots are listed in the order of time.
    times = [time for _, bounds in levels.values() for pair in bounds for time in pair]
    slots = iter(_slot_names(times))
    slot_lines = [
        f'        <TIME_SLOT TIME_SLOT_ID="ts{i}" TIME_VALUE="{time}"/>'
        for i, time in enumerate(sorted(times), start=1)
    ]
    layers: list[str] = []
    num_annotations = 0
    for name, (spans, _) in levels.items():
        annotations = []
        for span in spans:
            num_annotations += 1
            annotations.append(_annotation(num_annotations, next(slots), next(slots), span.label))
        tag = f'TIER LINGUISTIC_TYPE_REF="{TYPE}" TIER_ID="{name}"'
        layers.append(
            "\n".join([f"    <{tag}>", *annotations, "    </TIER>"]) if annotations else f"    <{tag}/>"
        )
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<ANNOTATION_DOCUMENT AUTHOR="unispeech" DATE="{datetime.now(UTC).isoformat(timespec="seconds")}" '
        'FORMAT="3.0" VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">',
        '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
        *_media(transcript.audio),
        f'        <PROPERTY NAME="lastUsedAnnotationId">{num_annotations}</PROPERTY>',
        "    </HEADER>",
        *(["    <TIME_ORDER>", *slot_lines, "    </TIME_ORDER>"] if slot_lines else ["    <TIME_ORDER/>"]),
        *layers,
        f'    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="{TYPE}" '
        'TIME_ALIGNABLE="true"/>',
        *(
            f"    <CONSTRAINT DESCRIPTION={quoteattr(description)} STEREOTYPE={quoteattr(stereotype)}/>"
            for stereotype, description in CONSTRAINTS.items()
        ),
        "</ANNOTATION_DOCUMENT>",
    ]
    return "\n".join(lines)


def _slot_names(times: list[int]) -> list[str]:
    """Name the slot of each time by its place among all in the order of time."""
    names = [""] * len(times)
    for place, index in enumerate(sorted(range(len(times)), key=times.__getitem__), start=1):
        names[index] = f"ts{place}"
    return names


def _annotation(number: int, first_slot: str, last_slot: str, label: str) -> str:
    return (
        f'        <ANNOTATION>\n            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" '
        f'TIME_SLOT_REF1="{first_slot}" TIME_SLOT_REF2="{last_slot}">\n'
        f"                <ANNOTATION_VALUE>{escape(label)}</ANNOTATION_VALUE>\n"
        "            </ALIGNABLE_ANNOTATION>\n        </ANNOTATION>"
    )


def _media(audio: str) -> list[str]:
    """The link to the recording; none where it came from no file."""
    if audio in {"", "-"}:
        return []
    path = Path(audio)
    kind = "audio/x-wav" if path.suffix.lower() == ".wav" else mimetypes.guess_type(path.name)[0]
    return [
        f"        <MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(path.absolute().as_uri())} "
        f"MIME_TYPE={quoteattr(kind or 'audio/*')} RELATIVE_MEDIA_URL={quoteattr('./' + clean(path.name))}/>"
    ]
