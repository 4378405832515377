"""The options by which `unispeech transcribe` decodes: beam, language model, hotwords, inventory."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unispeech.decoding.automaton import Automaton
    from unispeech.decoding.beam_decoder import BeamDecoder
    from unispeech.decoding.inventory import Restriction
    from unispeech.text import Vocabulary


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How log-probabilities become transcripts."""

    beam: int | None = None
    """Hypotheses of the beam search; 0 is greedy. By default 20 for lm, hotword and nbest, and else 0."""
    lm: Path | None = None
    """An n-gram model (ARPA) of the model's symbols, or of words where the model writes word boundaries."""
    lm_weight: float = 0.5
    """Factor of the language model's log-probabilities."""
    lm_bonus: float = 0.0
    """Nats for every symbol or word that the language model scores; raise it where too little is written."""
    lexicon: Path | None = None
    """How words are said, for lm and hotword: lines of a word, then its phones, separated by spaces."""
    hotword: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Words of the lexicon, or symbols, to listen for; TEXT=WEIGHT says by how many nats each symbol."""
    nbest: int = 1
    """Transcripts to list in json; from 2 on each phone has its alternatives too."""
    inventory: Path | None = None
    """Symbols that may come out: a text file of IPA symbols, or a PHOIBLE table (.csv)."""
    inventory_mode: Literal["mask", "map"] = "mask"
    """Symbols outside the inventory are impossible, or count as its nearest ones (extra inventory)."""
    language: str | None = None
    """Language whose inventory to take: of the PHOIBLE table, or without a table of those the model knows."""

    def prepare(self, model: str) -> "tuple[BeamDecoder | None, Restriction | None]":
        """Read what the options name.

        Args:
            model: A model directory or a Hub id.

        Returns:
            What `Transcriber` takes as `decoder` and `inventory`; None where the options ask for nothing.

        Raises:
            ValueError: If options contradict one another.
        """
        is_searched = self.lm is not None or self.hotword or self.nbest > 1
        self._refuse_idle()
        beam = self.beam if self.beam is not None else (max(20, self.nbest) if is_searched else 0)
        if beam == 0 and is_searched:
            raise ValueError("`--beam` must be above 0 where --lm, --hotword or --nbest is given, but is 0.")
        if beam == 0 and self.inventory is None and self.language is None:
            return None, None
        from unispeech.checkpoints.hub import model_files
        from unispeech.decoding.beam import BeamSettings
        from unispeech.decoding.beam_decoder import BeamDecoder
        from unispeech.text import Vocabulary

        directory = model_files(model)
        vocabulary = Vocabulary.load(directory)
        restriction = self._restrict(vocabulary, directory)
        vocabulary = vocabulary if restriction is None else restriction.vocabulary
        if beam == 0:
            return None, restriction
        settings = BeamSettings(beam=beam, nbest=self.nbest)
        scorers = self._scorers(vocabulary)
        decoder = BeamDecoder(vocabulary.blank, vocabulary.special, settings=settings, scorers=scorers)
        return decoder, restriction

    def _refuse_idle(self) -> None:
        """Refuse what would change nothing."""
        if self.nbest < 1:
            raise ValueError(f"`--nbest` must be at least 1, but is {self.nbest}.")
        is_weighted = (self.lm_weight, self.lm_bonus) != (DecodingOptions.lm_weight, DecodingOptions.lm_bonus)
        if is_weighted and self.lm is None:
            raise ValueError("`--lm` must be given with --lm-weight and --lm-bonus, but is missing.")
        if self.lexicon is not None and self.lm is None and not self.hotword:
            raise ValueError("`--lm` or `--hotword` must be given with --lexicon, but both are missing.")
        if self.inventory_mode == "map" and self.inventory is None and self.language is None:
            raise ValueError(
                "`--inventory` or `--language` must be given with --inventory-mode map, but both are missing."
            )

    def _restrict(self, vocabulary: "Vocabulary", directory: Path) -> "Restriction | None":
        """The inventory, told where it maps."""
        from unispeech.decoding.inventory import model_inventory, read_inventory, restrict

        if self.inventory is not None:
            symbols = read_inventory(self.inventory, language=self.language)
        elif self.language is not None:
            symbols = model_inventory(directory, vocabulary, self.language)
        else:
            return None
        found = restrict(vocabulary, symbols, mode=self.inventory_mode, language=self.language)
        if shown := found.describe():
            print(f"unispeech: inventory: {shown}", file=sys.stderr)
        return found

    def _scorers(self, vocabulary: "Vocabulary") -> "list[Automaton]":
        """The language model and the hotwords."""
        from unispeech.decoding.hotwords import Hotwords, read_hotword
        from unispeech.decoding.ngram import NgramModel
        from unispeech.decoding.ngram_fusion import fuse

        lexicon = None if self.lexicon is None else read_lexicon(self.lexicon)
        language = self.language if self.language in vocabulary.languages else None
        scorers: list[Automaton] = []
        if self.lm is not None:
            scorers.append(
                fuse(
                    NgramModel.load(self.lm),
                    vocabulary,
                    weight=self.lm_weight,
                    bonus=self.lm_bonus,
                    lexicon=lexicon,
                    language=language,
                )
            )
        hotwords = [
            hotword
            for text in self.hotword
            for hotword in read_hotword(text, vocabulary, lexicon=lexicon, language=language)
        ]
        if hotwords:
            scorers.append(Hotwords(hotwords, len(vocabulary), word_boundary=vocabulary.word_boundary))
        return scorers


def read_lexicon(path: Path) -> Mapping[str, Sequence[str]]:
    """Read how words are said.

    Args:
        path: Lines of a word, white space, and its phones; a word with several spellings has several lines.

    Returns:
        Word -> its spellings.

    Raises:
        ManifestError: If a line has no phones, or the file is empty or not UTF-8.
    """
    from unispeech.errors import ManifestError

    found: dict[str, list[str]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: text must be UTF-8, but is not ({error.reason}).") from None
    for number, line in enumerate(text.splitlines(), 1):
        word, *phones = line.split() or [""]
        if word and not phones:
            raise ManifestError(f"{path}:{number}: line must be a word and its phones, but is {word!r}.")
        if word:
            found.setdefault(word, []).append(" ".join(phones))
    if not found:
        raise ManifestError(f"{path}: lexicon must hold at least one word, but is empty.")
    return found
