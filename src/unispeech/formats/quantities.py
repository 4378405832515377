"""What the names in a run's log stand for: words and units for people, and which names share a panel.

The names are those of `unispeech.training.monitor`. A name behind `dev/` is the same quantity on held-out
data. A name that is not listed here takes after the listed one that it begins with (`loss/x` after `loss`,
`per/it` after `per`) or stands for itself.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

DEV = "dev/"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How a quantity is shown."""

    label: str
    """What it is, in a few words."""
    unit: str = ""
    """Of what is shown; empty for a plain number."""
    factor: float = 1.0
    """Shown value / logged value."""
    part: str = ""
    """Word before the rest of a longer name, as in "codebook" 0."""
    best: Literal["lowest", "highest"] | None = None
    """Which value on held-out data a run is judged by; None: it is not judged by it."""
    may_be_log: bool = False
    """Whether values over more than a decade go on a logarithmic axis."""
    is_schedule: bool = False
    """Whether it is set rather than measured, so that there is nothing to smooth."""
    chance: str | None = None
    """Logged name of the value that guessing would give."""


def _percent(
    label: str, best: Literal["lowest", "highest"] | None = None, chance: str | None = None
) -> Quantity:
    return Quantity(label=label, unit="%", factor=100.0, best=best, chance=chance)


def _loss(label: str, unit: str = "") -> Quantity:
    return Quantity(label=label, unit=unit, may_be_log=True)


QUANTITIES: dict[str, Quantity] = {
    "per": _percent("phone error rate", "lowest"),
    "wer": _percent("word error rate", "lowest"),
    "cer": _percent("character error rate", "lowest"),
    "accuracy": _percent("accuracy", "highest"),
    "loss": _loss("loss, per target"),
    "loss/contrastive": _loss("contrastive loss", "nats per target frame"),
    "loss/ctc": _loss("CTC loss", "nats per symbol"),
    "loss/frame": _loss("frame loss", "nats per frame"),
    "loss/diversity": _loss("diversity loss"),
    "contrastive_accuracy": _percent("contrastive accuracy", "highest", chance="contrastive_chance"),
    "frame_accuracy": _percent("frame accuracy", "highest"),
    "code_perplexity": Quantity(label="code perplexity, all codebooks"),
    "prob_perplexity": Quantity(label="softmax perplexity, all codebooks"),
    "dead_codes": Quantity(label="dead codes", part="codebook"),
    "equal_negatives": _percent("negatives equal to their positive"),
    "masked_fraction": _percent("masked frames"),
    "blank_ratio": _percent("blank frames"),
    "infeasible_fraction": _percent("too short for CTC"),
    "grad_norm": Quantity(label="gradient norm", may_be_log=True),
    "lr": Quantity(label="learning rate", is_schedule=True),
    "temperature": Quantity(label="Gumbel temperature", may_be_log=True, is_schedule=True),
    "audio_seconds_per_second": Quantity(label="speed", unit="s of audio per s"),
    "waiting_fraction": _percent("time waiting for batches"),
    "padding_fraction": _percent("padding"),
}
"""Name -> quantity, in the order of the panels."""

CHANCES = {quantity.chance: name for name, quantity in QUANTITIES.items() if quantity.chance}


def panel_of(name: str) -> str:
    """Find the panel in which a logged name is drawn.

    Args:
        name: As logged.

    Returns:
        The name without `dev/`; for a value of chance, the name that it is compared with.
    """
    bare = name.removeprefix(DEV)
    return CHANCES.get(bare, bare)


def quantity_of(panel: str) -> Quantity:
    """Find how a panel is shown.

    Args:
        panel: Its name.

    Returns:
        The quantity; of an unknown name, one with the name as its label.
    """
    if panel in QUANTITIES:
        return QUANTITIES[panel]
    parent, _, rest = panel.rpartition("/")
    while parent and parent not in QUANTITIES:
        parent, _, more = parent.rpartition("/")
        rest = f"{more}/{rest}"
    if not parent:
        return Quantity(label=panel.replace("_", " "))
    known = QUANTITIES[parent]
    words = " ".join([known.part, rest.replace("_", " ")]).strip()
    return Quantity(
        label=f"{known.label.removesuffix(', per target')}, {words}",
        unit=known.unit,
        factor=known.factor,
        best=known.best,
        may_be_log=known.may_be_log,
    )


def in_order(panels: Iterable[str]) -> list[str]:
    """Sort panels: the known as `QUANTITIES` has them, each followed by its parts, then the others by name.

    Args:
        panels: Their names.
    """
    places = {name: place for place, name in enumerate(QUANTITIES)}

    def key(panel: str) -> tuple[int, str]:
        name = panel
        while name and name not in places:
            name = name.rpartition("/")[0]
        return places.get(name, len(places)), panel

    return sorted(panels, key=key)


def choose(names: Iterable[str], only: Sequence[str]) -> set[str]:
    """Choose among logged names.

    Args:
        names: All that there are.
        only: Names of panels (`loss/ctc`: in training and on held-out data), of groups of panels
            (`dead_codes`), or logged names (`dev/loss/ctc`); empty takes all.

    Returns:
        The chosen ones.

    Raises:
        ValueError: If one of `only` is none of these.
    """
    names = set(names)
    if not only:
        return names
    panels = {panel_of(name) for name in names}
    groups: dict[str, set[str]] = {}
    for name in names:
        panel = panel_of(name)
        group = panel.partition("/")[0]
        # Where "loss" is a panel of its own it is not its parts.
        for key in {name, panel} | ({group} - panels):
            groups.setdefault(key, set()).add(name)
    chosen: set[str] = set()
    for wanted in only:
        if wanted not in groups:
            near = difflib.get_close_matches(wanted, groups, n=1)
            advice = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(in_order(groups))}."
            raise ValueError(f"`only` must name quantities that the runs have, but has `{wanted}`; {advice}")
        chosen |= groups[wanted]
    return chosen
