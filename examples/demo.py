"""Transcribe the example recordings with the example checkpoint: `make demo`, or `python examples/demo.py`.

Shows, of each recording, the phones that were said and those that were recognised with the seconds at which
they start; then phone error rates; and draws each recording with its phones.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import kaldialign
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unispeech import Transcriber
from unispeech.audio import load_audio
from unispeech.errors import CheckpointError
from unispeech.formats.picture import draw
from unispeech.metrics import ErrorRate, error_rate
from unispeech.results import Phone, Transcript
from unispeech.text import Vocabulary

EXAMPLES = Path(__file__).resolve().parent
GAP = "-"
CELL_WIDTH = 5
TOLERANCE = 0.02
"""Seconds, one frame: reference times are not better than that, nor is a frame."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A recording with what was said in it and what was recognised."""

    path: Path
    text: str
    said: list[Phone]
    heard: Transcript

    @property
    def pairs(self) -> list[tuple[Phone | None, Phone | None]]:
        """What was said beside what was heard, None opposite an insertion or a deletion."""
        said, heard = iter(self.said), iter(self.heard.phones)
        symbols = [phone.phone for phone in self.said], [phone.phone for phone in self.heard.phones]
        return [
            (None if one == GAP else next(said), None if other == GAP else next(heard))
            for one, other in kaldialign.align(*symbols, GAP)
        ]


def demo(
    output: Path = Path(".demo"),
    *,
    checkpoint: Path = EXAMPLES / "checkpoint",
    recordings: Path = EXAMPLES / "recordings",
) -> int:
    """Transcribe the example recordings, measure the result and draw it.

    Args:
        output: Folder for the pictures.
        checkpoint: A model directory.
        recordings: A folder with recordings and their `reference.json`.
    """
    started = time.perf_counter()
    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    try:
        if not checkpoint.is_dir():
            raise CheckpointError(f"{checkpoint}: there is no model; name another one with --checkpoint.")
        examples = transcribe_examples(Transcriber(checkpoint), recordings)
        for example in examples:
            show(example, console)
        console.print(rates_table(examples))
        console.print(times_line(examples))
        for example in examples:
            picture = output / f"{example.path.stem}.png"
            draw(example.heard, load_audio(example.path), picture, reference=example.said)
    except (ValueError, OSError, ImportError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    seconds = sum(example.heard.duration for example in examples)
    console.print(
        f"{seconds:.1f} s of speech from a synthesiser, which is easier than human speech; "
        f"{time.perf_counter() - started:.1f} s in all."
    )
    console.print(f"Pictures: {output}/*.png")
    return 0


def transcribe_examples(transcriber: Transcriber, folder: Path) -> list[Example]:
    """Transcribe what `reference.json` lists."""
    entries = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    outcomes = dict(transcriber.transcribe_many([folder / entry["audio"] for entry in entries]))
    examples = []
    for entry in entries:
        outcome = outcomes[folder / entry["audio"]]
        if isinstance(outcome, Exception):
            raise outcome
        said = [
            phone
            for item in entry["phones"]
            for phone in in_symbols(item["phone"], item["start"], item["end"], transcriber.vocabulary)
        ]
        path = folder / entry["audio"]
        examples.append(Example(path=path, text=entry["text"], said=said, heard=outcome))
    return examples


def in_symbols(phone: str, start: float, end: float, vocabulary: Vocabulary) -> list[Phone]:
    """Spell a reference phone as the vocabulary does; several symbols share its time."""
    symbols = vocabulary.segment(phone)
    step = (end - start) / max(len(symbols), 1)
    return [
        Phone(phone=symbol, start=start + i * step, end=start + (i + 1) * step, score=1.0)
        for i, symbol in enumerate(symbols)
    ]


def show(example: Example, console: Console) -> None:
    """Print phones in blocks as wide as the terminal; what differs is red and in brackets."""
    console.rule(f"[bold]{example.path.name}[/bold]  {example.heard.duration:.2f} s", align="left")
    console.print(f"[italic]{example.text}[/italic]", highlight=False)
    pairs = example.pairs
    num_columns = max((console.width - 10) // (CELL_WIDTH + 1), 1)
    for first in range(0, len(pairs), num_columns):
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=9)
        block = pairs[first : first + num_columns]
        for _ in block:
            table.add_column(width=CELL_WIDTH, no_wrap=True)
        table.add_row(Text("said", "dim"), *[cell(said, "yellow") for said, _ in block])
        table.add_row(Text("at (s)", "dim"), *[start_cell(said) for said, _ in block])
        table.add_row(Text("heard", "dim"), *[heard_cell(said, heard) for said, heard in block])
        table.add_row(Text("at (s)", "dim"), *[start_cell(heard) for _, heard in block])
        console.print(table)
        console.print()


def cell(phone: Phone | None, style: str) -> Text:
    """A phone, or a gap."""
    return Text(GAP, "dim") if phone is None else Text(phone.phone, style)


def start_cell(phone: Phone | None) -> Text:
    """When a phone starts."""
    return Text("" if phone is None else f"{phone.start:.2f}", "dim")


def heard_cell(said: Phone | None, heard: Phone | None) -> Text:
    """What was recognised, marked where something else was said."""
    if said is not None and heard is not None and said.phone == heard.phone:
        return cell(heard, "bold cyan")
    return Text(f"[{GAP if heard is None else heard.phone}]", "bold red")


def rate_of(examples: list[Example]) -> ErrorRate:
    """Phone error rate over some recordings."""
    return error_rate(
        [[phone.phone for phone in example.said] for example in examples],
        [[phone.phone for phone in example.heard.phones] for example in examples],
    )


def rates_table(examples: list[Example]) -> Table:
    """Phone error rate of each recording and of all."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    total = rate_of(examples)
    interval = f"95 % interval {total.low * 100:.1f} to {total.high * 100:.1f}"
    counts = (total.substitutions, total.insertions, total.deletions, total.num_reference)
    table.add_column("recording", footer="all")
    table.add_column("PER (%)", footer=f"{total.rate * 100:.1f}", justify="right")
    for name, count in zip(("substituted", "inserted", "deleted", "phones"), counts, strict=True):
        table.add_column(name, footer=str(count), justify="right")
    table.add_column("", footer=interval)
    for example in examples:
        rate = rate_of([example])
        counts = (rate.substitutions, rate.insertions, rate.deletions, rate.num_reference)
        table.add_row(example.path.name, f"{rate.rate * 100:.1f}", *map(str, counts))
    return table


def times_line(examples: list[Example]) -> str:
    """Say how many of the right phones are heard where they were said."""
    right = [
        (said, (heard.start + heard.end) / 2)
        for example in examples
        for said, heard in example.pairs
        if said is not None and heard is not None and said.phone == heard.phone
    ]
    within = sum(said.start - TOLERANCE <= middle <= said.end + TOLERANCE for said, middle in right)
    return (
        f"{within} of the {len(right)} phones that were recognised lie within their true extent, "
        f"give or take {TOLERANCE * 1000:.0f} ms."
    )


if __name__ == "__main__":
    app = cyclopts.App(name="demo", default_command=demo, help_format="plaintext")
    sys.exit(app(result_action="return_value"))
