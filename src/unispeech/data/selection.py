"""Which utterances of a corpus are asked for: a part of it, and conditions on their fields."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unispeech.data.utterances import Utterance
from unispeech.errors import ManifestError
from unispeech.phones import nearest


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A test on one field of an utterance."""

    name: str
    """The field, by the corpus' own name or as id, speaker, language, label, part."""
    value: str
    """What it is compared with, as text."""
    is_equal: bool = True
    """Whether equal fields pass; else different (and missing) ones do."""

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition.

        Args:
            text: `field=value` or `field!=value`.

        Returns:
            The condition.

        Raises:
            ValueError: If `text` has no equals sign or no field.
        """
        name, sign, value = text.partition("=")
        condition = cls(name=name.removesuffix("!").strip(), value=value.strip(), is_equal=name[-1:] != "!")
        if not sign or not condition.name:
            raise ValueError(f"`where` must be field=value or field!=value, but is {text!r}.")
        return condition


class Selection:
    """Which utterances are asked for, and what there was to ask for.

    Args:
        part: The part of the corpus; None takes all.
        where: Of the conditions on one field one must hold (all, where they are `!=`).
        language: Language of the utterances that state none.
    """

    def __init__(self, part: str | None, where: Iterable[Condition], language: str | None = None) -> None:
        self._part = part
        self._language = language
        self._where: dict[str, list[Condition]] = {}
        for condition in where:
            self._where.setdefault(condition.name, []).append(condition)
        self._parts: set[str] = set()
        self._fields: set[str] = set()
        self._values: dict[str, set[str]] = {name: set() for name in self._where}

    def takes(self, utterance: Utterance) -> bool:
        """Tell whether an utterance is asked for.

        Args:
            utterance: Any utterance of the corpus.

        Returns:
            True where it is of the part and every condition holds.
        """
        if utterance.part is not None:
            self._parts.add(utterance.part)
        fields = {
            "id": utterance.id,
            "language": utterance.language or self._language,
            "speaker": utterance.speaker,
            "label": utterance.label,
            "part": utterance.part,
            **utterance.fields,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        self._fields.update(fields)
        is_taken = self._part is None or utterance.part == self._part
        for name, conditions in self._where.items():
            value = str(fields[name]) if name in fields else None
            if value is not None:
                self._values[name].add(value)
            wanted = [condition.value for condition in conditions if condition.is_equal]
            unwanted = [condition.value for condition in conditions if not condition.is_equal]
            is_taken &= (not wanted or value in wanted) and value not in unwanted
        return is_taken

    def check_found(self, source: Path) -> None:
        """Refuse a part, a field or a value that no utterance had: it is misspelt.

        Args:
            source: The corpus, for the message.

        Raises:
            ManifestError: If there is no such part.
            ValueError: If there is no such field, or no utterance has the value.
        """
        if self._part is not None and self._part not in self._parts:
            offered = ", ".join(sorted(self._parts)) or "none, it has no parts"
            raise ManifestError(f"{source}: `part` must be one of {offered}, but is {self._part}.")
        for name, conditions in self._where.items():
            if name not in self._fields:
                raise ValueError(
                    f"`where` must name a field of {source}, but names {name!r}{nearest(name, self._fields)}"
                )
            values = self._values[name]
            for condition in conditions:
                if condition.value not in values:
                    offered = f" ({', '.join(sorted(values))})" if len(values) <= 12 else ""
                    raise ValueError(
                        f"`where` must name a value that {name!r} has in {source}{offered}, "
                        f"but names {condition.value!r}{nearest(condition.value, values)}"
                    )
