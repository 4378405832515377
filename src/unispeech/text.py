"""The alphabet: phones and characters <-> the ids of a CTC head.

A vocabulary is saved in Hugging Face's layout, beside the model, and read back from it without transformers,
so that decoding starts fast. The CTC blank is the tokenizer's pad token. Symbols are kept exactly as their
file writes them; only comparisons are normalised, phones in Unicode's decomposed form (see
`unispeech.phones`), characters in the composed one, because a reader takes an accented letter for one letter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unispeech.errors import CheckpointError
from unispeech.phones import WORD_BOUNDARY, Kind, clusters, longest_match, nearest, normalise, split_tag
from unispeech.tokenizer_files import TokenizerFields, read_tokenizer, write_tokenizer

BLANK = "<pad>"
"""Name of the CTC blank in vocabularies that are built here: what Hugging Face's tokenizers expect."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The symbols of a CTC head; N of them, and the index of a symbol is its id.

    Symbols may carry a language tag, `(en)a`: then each language has phones of its own. Untagged phones are
    shared between languages.

    Raises:
        ValueError: If a symbol is empty or occurs twice, or an id lies outside the symbols.
    """

    symbols: tuple[str, ...]
    """The symbol of each id, as the vocabulary's file writes it."""
    blank: int
    """Id of the CTC blank, the tokenizer's pad token; the config's `pad_token_id`."""
    kind: Kind
    """What the symbols are: phones are written apart, characters together."""
    word_boundary: int | None = None
    """Id of the symbol between two words, or None where the head writes no boundaries."""
    unknown: int | None = None
    """Id of the symbol that stands for anything else in vocabularies by others; it is never encoded."""
    special: frozenset[int] = frozenset()
    """Ids that are never printed and never encoded; `blank` and `unknown` always belong to them."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for symbol in self.symbols:
            if not symbol or symbol in seen:
                raise ValueError(
                    f"`symbols` must be distinct and not empty, but hold {symbol!r} twice or empty."
                )
            seen.add(symbol)
        special = {*self.special, self.blank, *(() if self.unknown is None else (self.unknown,))}
        for index in (*special, *(() if self.word_boundary is None else (self.word_boundary,))):
            if not 0 <= index < len(self):
                raise ValueError(
                    f"`symbols` must have one for every id, but are {len(self)} and none is {index}."
                )
        object.__setattr__(self, "special", frozenset(special))

    def __len__(self) -> int:
        """The number of symbols N, blank and other special ones included: the width of the head."""
        return len(self.symbols)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages of a tagged vocabulary in alphabetical order; empty where phones are shared."""
        tags = {split_tag(symbol)[0] for symbol in self._ordinary()}
        # Shared symbols beside tagged ones are the corpus' own, such as a language switch.
        return () if None in tags else tuple(sorted(tag for tag in tags if tag is not None))

    def segment(self, text: str, *, language: str | None = None) -> list[str]:
        """Cut a transcript into symbols.

        Phones: `text` is split at whitespace; a token that is not a symbol itself is cut by longest match
        over the inventory, so that unseparated IPA is read too. `|` marks a word boundary. Characters: every
        word is cut into characters (by longest match where a symbol has several), and whitespace is the word
        boundary. Where the vocabulary has no word boundary, boundaries are left out.

        Args:
            text: Transcript in phones or in orthography, as `kind` says.
            language: Tag that is put before untagged phones in a tagged vocabulary; shared phones ignore it.

        Returns:
            Symbols in the vocabulary's own spelling. What the vocabulary lacks stays in the list, normalised
            and each base letter with its marks, for the caller to count.

        Raises:
            ValueError: If the vocabulary is tagged and lacks `language`.
        """
        boundary = [] if self.word_boundary is None else [self.symbols[self.word_boundary]]
        units: list[str] = []
        for word in self._words(text):
            found = [unit for token in word for unit in self._match(token, language)]
            units += [*boundary, *found] if units and found else found
        return units

    def encode(self, text: str, *, language: str | None = None) -> list[int]:
        """Turn a transcript into ids, without blanks.

        Args:
            text: Transcript, as `segment` takes it.
            language: As in `segment`.

        Returns:
            Ids in [0, N), none of them special.

        Raises:
            ValueError: If `text` holds symbols that the vocabulary lacks; all of them are named.
        """
        units = self.segment(text, language=language)
        ids = self._ids
        unknown = list(dict.fromkeys(unit for unit in units if unit not in ids))
        if unknown:
            names = ", ".join(map(repr, unknown[:10])) + (" and more" if len(unknown) > 10 else "")
            fix = nearest(unknown[0], ids)
            if self.languages and language is None:
                fix = f"; give `language`, one of {', '.join(self.languages)}."
            raise ValueError(f"`text` must hold symbols of the vocabulary only, but holds {names}{fix}")
        return [ids[unit] for unit in units]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Turn ids into symbols and leave the special ones out; repeats stay, they are collapsed before.

        Args:
            ids: Ids in [0, N).

        Returns:
            Symbols, word boundaries among them.

        Raises:
            ValueError: If an id lies outside [0, N).
        """
        chosen = [int(index) for index in ids]
        for index in chosen:
            if not 0 <= index < len(self):
                raise ValueError(f"`ids` must lie in [0, {len(self)}), but hold {index}.")
        return [self.symbols[index] for index in chosen if index not in self.special]

    def join(self, symbols: Iterable[str]) -> str:
        """Write symbols as text, the way Hugging Face's tokenizers do.

        Args:
            symbols: Symbols from `decode` or `segment`.

        Returns:
            Phones separated by spaces, without word boundaries; characters joined, a space at every boundary.
        """
        boundary = None if self.word_boundary is None else self.symbols[self.word_boundary]
        if self.kind == "phones":
            return " ".join(symbol for symbol in symbols if symbol != boundary)
        return "".join(" " if symbol == boundary else symbol for symbol in symbols).strip()

    @classmethod
    def build(
        cls,
        transcripts: Iterable[str],
        *,
        kind: Kind,
        languages: Sequence[str] | None = None,
        word_boundary: bool | None = None,
    ) -> "Vocabulary":
        """Collect the symbols of transcripts: blank first, then the word boundary, then the symbols in order.

        Phones are taken as whitespace separates them; cut unseparated IPA with `phones.segment_ipa` before.

        Args:
            transcripts: Phones separated by spaces (`|` between words), or orthography.
            kind: What the transcripts are.
            languages: The language of each transcript, for phones tagged by language; None shares phones
                between languages.
            word_boundary: Whether the head writes word boundaries; None means always for characters, and
                for phones where a transcript has one.

        Returns:
            The vocabulary; the same for the same set of transcripts in any order.

        Raises:
            ValueError: If there is nothing to collect, `languages` differ in number from the transcripts, or
                characters are to be tagged.
        """
        texts = list(transcripts)
        if languages is not None and (len(languages) != len(texts) or kind == "characters"):
            raise ValueError(
                "`languages` must name the language of every phone transcript, "
                f"but are {len(languages)} for {len(texts)} transcripts of {kind}."
            )
        tags = [f"({language})" for language in languages] if languages is not None else [""] * len(texts)
        symbols = {
            tag + unit
            for text, tag in zip(texts, tags, strict=True)
            for word in normalise(text, kind).split()
            for unit in ([word] if kind == "phones" else word)
            if unit != WORD_BOUNDARY
        }
        if not symbols:
            raise ValueError(f"`transcripts` must hold at least one symbol, but hold none in {len(texts)}.")
        if word_boundary is None:
            word_boundary = kind == "characters" or any(WORD_BOUNDARY in text.split() for text in texts)
        head = (BLANK, WORD_BOUNDARY) if word_boundary else (BLANK,)
        return cls(
            symbols=(*head, *sorted(symbols)), blank=0, kind=kind, word_boundary=1 if word_boundary else None
        )

    @classmethod
    def load(cls, directory: str | Path, *, language: str | None = None) -> "Vocabulary":
        """Read a vocabulary in Hugging Face's layout, by whomever it was written.

        `vocab.json` gives the ids; `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`
        say which symbols are special. Tokens that a tokenizer appends behind `vocab.json` count where the
        model's head has room for them (`vocab_size` of `config.json`). `Wav2Vec2PhonemeCTCTokenizer` means
        phones, `Wav2Vec2CTCTokenizer` characters; a bare `vocab.json` holds phones if a symbol has several
        letters.

        Args:
            directory: A model directory.
            language: Which part of a nested vocabulary (one per language) to take; None takes the tokenizer's
                `target_lang`.

        Returns:
            The vocabulary.

        Raises:
            CheckpointError: If there is no vocabulary, or it is broken, ambiguous or without a blank.
        """
        fields = read_tokenizer(Path(directory), language)
        try:
            return cls(**fields)
        except ValueError as error:
            raise CheckpointError(f"{Path(directory) / 'vocab.json'}: {error}") from error

    def save(
        self, directory: str | Path, *, do_normalize: bool = True, return_attention_mask: bool = True
    ) -> None:
        """Write the vocabulary as the files from which `transformers.Wav2Vec2Processor` loads.

        `vocab.json`, `tokenizer_config.json` and `special_tokens_map.json` hold the tokenizer (phones are
        separated by spaces and never sent to espeak), `processor_config.json` and the older
        `preprocessor_config.json` the feature extractor. Each file is written beside and renamed.

        Args:
            directory: Created where it does not exist.
            do_normalize: Whether the model takes waveforms of zero mean and unit variance.
            return_attention_mask: Whether batches for the model carry an attention mask.
        """
        fields = TokenizerFields(
            symbols=self.symbols,
            blank=self.blank,
            kind=self.kind,
            word_boundary=self.word_boundary,
            unknown=self.unknown,
            special=self.special,
        )
        write_tokenizer(
            Path(directory), fields, do_normalize=do_normalize, return_attention_mask=return_attention_mask
        )

    def check_head(self, num_classes: int, blank: int | None) -> None:
        """Refuse a CTC head that writes other symbols.

        Args:
            num_classes: Of the head.
            blank: The head's blank, `pad_token_id` of its configuration.

        Raises:
            CheckpointError: If the numbers of symbols and classes differ, or the blanks do.
        """
        if len(self) != num_classes:
            raise CheckpointError(
                f"`vocabulary` must have as many symbols as the head has classes ({num_classes}), "
                f"but has {len(self)}."
            )
        if self.blank != blank:
            raise CheckpointError(
                f"`vocabulary` must have its blank at the config's `pad_token_id` ({blank}), "
                f"but has it at {self.blank}."
            )

    def _ordinary(self) -> list[str]:
        """The symbols that are neither special nor the word boundary."""
        hidden = self.special | {self.word_boundary}
        return [symbol for index, symbol in enumerate(self.symbols) if index not in hidden]

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Symbol -> id, without the special symbols."""
        return {symbol: index for index, symbol in enumerate(self.symbols) if index not in self.special}

    @cached_property
    def _inventories(self) -> dict[str | None, dict[str, str]]:
        """Language -> phone as compared -> symbol; under None all symbols with their tags."""
        inventories: dict[str | None, dict[str, str]] = {None: {}}
        for symbol in self._ordinary():
            tag, phone = split_tag(symbol) if self.languages else (None, symbol)
            # Where two symbols differ in normalisation only, the first one is written.
            inventories[None].setdefault(normalise(symbol, self.kind), symbol)
            inventories.setdefault(tag, {}).setdefault(normalise(phone, self.kind), symbol)
        return inventories

    def _words(self, text: str) -> list[list[str]]:
        """The tokens of each word, normalised."""
        text = normalise(text, self.kind)
        if self.kind == "characters":
            return [[word] for word in text.replace(WORD_BOUNDARY, " ").split()]
        boundaries = {
            WORD_BOUNDARY,
            *(() if self.word_boundary is None else (self.symbols[self.word_boundary],)),
        }
        words: list[list[str]] = [[]]
        for token in text.split():
            if token in boundaries:
                words.append([])
            else:
                words[-1].append(token)
        return words

    def _match(self, token: str, language: str | None) -> list[str]:
        """Cut one token into symbols; what is unknown keeps its text, tagged like its neighbours."""
        language = language if self.languages else None
        if language is not None and language not in self.languages:
            raise ValueError(
                f"`language` must be one of {', '.join(self.languages)}, "
                f"but is {language!r}{nearest(language, self.languages)}"
            )
        inventory, every = self._inventories[language], self._inventories[None]
        if token in every:
            return [every[token]]
        bases = clusters(token) if self.kind == "phones" else list(token)
        tag = "" if language is None else f"({language})"
        return [inventory.get(unit, tag + unit) for unit in longest_match(bases, inventory)]
