"""Whether a model can write the targets of a corpus: looked at before the first update, reported together."""

from collections import Counter
from collections.abc import Callable

from lhotse import MonoCut

from unispeech.data.collation import CutBatches
from unispeech.data.cuts import CutFiles
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary

_MAX_SHOWN = 20


class TargetCheck:
    """Looks at the targets of one corpus or several and counts the symbols that a vocabulary lacks.

    Args:
        vocabulary: What must have the symbols; None looks only whether the targets can be read.
    """

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._symbols = frozenset() if vocabulary is None else frozenset(vocabulary.symbols)
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._places: dict[str, None] = {}

    def of(self, batches: CutBatches, cuts: CutFiles) -> Callable[[MonoCut], None]:
        """What looks at the cuts of a corpus.

        Args:
            batches: What will read them.
            cuts: The files, for the report.

        Returns:
            A function of a cut; it raises a ValueError where the cut has no target that can be read.
        """

        def look(cut: MonoCut) -> None:
            target = batches.target(cut)
            if not target or self._vocabulary is None:
                batches.target_ids(cut)
                return
            units = self._vocabulary.segment(target, language=cut.supervisions[0].language)
            for unit in units:
                if unit not in self._symbols:
                    self._counts[unit] += 1
                    self._first.setdefault(unit, cut.id)
                    self._places.update(dict.fromkeys(map(str, cuts.paths)))

        return look

    def finish(self) -> None:
        """Report what the vocabulary lacks.

        Raises:
            ManifestError: If it lacks a symbol; all are listed, the commonest first.
        """
        if not self._counts:
            return
        assert self._vocabulary is not None
        listed = [
            f"{symbol} ({count} time{'s' * (count > 1)}, first in {self._first[symbol]})"
            for symbol, count in self._counts.most_common(_MAX_SHOWN)
        ]
        more = f" and {len(self._counts) - len(listed)} more" if len(self._counts) > len(listed) else ""
        tagged = self._vocabulary.languages
        fix = f"cuts must have one of the languages {', '.join(tagged)}, or " if tagged else ""
        raise ManifestError(
            f"{', '.join(self._places)}: {self._vocabulary.kind} must be in the vocabulary, "
            f"but these are not: {', '.join(listed)}{more}; {fix}prepare the corpus with --vocabulary."
        )
