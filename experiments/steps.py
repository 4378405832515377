"""A step of the comparison: what it does, what it needs, and the name under which its outcome is kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

Kind = Literal["corpus", "pretrain", "finetune", "score"]


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a training or a score stands for in the comparison."""

    target: str
    """Name of the target: es, de-real, en-shift; the source's where targets share the training."""
    system: str
    """Name of the system: scratch, ssl, ctc, uni1, uni12, mixed, or an ablation of uni1."""
    seed: int
    """Seed of the trainings."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step; two with the same key have the same outcome."""

    name: str
    """Readable, unique in a plan."""
    kind: Kind
    """What it does."""
    inputs: Mapping[str, object]
    """All that decides the outcome, plain values; "@NAME/path" is a path below the outcome of a parent."""
    parents: tuple["Step", ...] = ()
    """What it needs."""
    audio_seconds: float = 0.0
    """Audio that passes through, for the expected cost."""
    role: Role | None = field(default=None, compare=False)
    """What it stands for; None for corpora."""

    @cached_property
    def key(self) -> str:
        """Eight digits of the hash of kind, inputs and the keys of the parents."""
        content = [self.kind, self.inputs, [[parent.name, parent.key] for parent in self.parents]]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """Name of its directory."""
        return f"{self.name}-{self.key}"

    def resolved(self, work: Path) -> dict[str, object]:
        """The inputs with the parents' directories in place of their names.

        Args:
            work: Folder of the outcomes.

        Returns:
            A copy.
        """
        places = {parent.name: str(work / parent.label) for parent in self.parents}
        return {key: _resolve(value, places) for key, value in self.inputs.items()}


def _resolve(value: object, places: Mapping[str, str]) -> object:
    if isinstance(value, str) and value.startswith("@"):
        name, _, rest = value[1:].partition("/")
        return f"{places[name]}/{rest}" if rest else places[name]
    if isinstance(value, Mapping):
        return {key: _resolve(item, places) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, places) for item in value]
    return value
