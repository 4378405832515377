"""N-gram language models: read from ARPA files and written to them, asked with back-off.

Log-probabilities are natural here; in the files they are decimal.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from unispeech.errors import ManifestError

SENTENCE_START, SENTENCE_END, UNKNOWN = "<s>", "</s>", "<unk>"

LOG_10 = math.log(10.0)

NEVER_IN_ARPA = -99.0
"""What files write for the log-probability of `<s>`, which is never predicted."""

Ngram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well a model predicts a text."""

    perplexity: float
    """Exponent of the mean loss per token, sentence ends counted, unknown tokens not."""
    num_tokens: int
    """Tokens that were predicted, sentence ends among them."""
    num_unknown: int
    """Tokens that the model lacks."""


class NgramModel:
    """The probability of a word (or a phone) behind those before it.

    An n-gram that the model lists has the listed probability; any other has that of its last n - 1 words,
    times the back-off weight of the first n - 1.

    Args:
        log_probs: N-gram -> natural log-probability, of all orders.
        backoffs: Context -> natural log of its back-off weight; contexts without one have 0.

    Raises:
        ValueError: If there is no n-gram.
    """

    def __init__(self, log_probs: Mapping[Ngram, float], backoffs: Mapping[Ngram, float]) -> None:
        if not log_probs:
            raise ValueError("`log_probs` must hold at least one n-gram, but hold none.")
        self.log_probs = dict(log_probs)
        """N-gram -> natural log-probability."""
        self.backoffs = dict(backoffs)
        """Context -> natural log of its back-off weight."""
        self.order = max(map(len, self.log_probs))
        """Words of the longest n-gram."""
        unigrams = {ngram[0]: log_prob for ngram, log_prob in self.log_probs.items() if len(ngram) == 1}
        self.words = frozenset(unigrams) - {SENTENCE_START, SENTENCE_END, UNKNOWN}
        """What the model knows, without `<s>`, `</s>` and `<unk>`."""
        rarest = min((unigrams[word] for word in self.words), default=0.0)
        self.unknown_log_prob = unigrams.get(UNKNOWN, rarest - LOG_10)
        """What an unknown word has: `<unk>`, or without one a tenth of the rarest word."""
        self._contexts: set[Ngram] = {()}
        self._followers: dict[Ngram, dict[str, float]] = {}
        for ngram, log_prob in self.log_probs.items():
            self._followers.setdefault(ngram[:-1], {})[ngram[-1]] = log_prob
            self._contexts.update(ngram[:size] for size in range(1, min(len(ngram), self.order - 1) + 1))

        self._continued: dict[Ngram, list[str]] = {}
        for context in sorted(self._contexts - {()}):
            self._continued.setdefault(context[:-1], []).append(context[-1])

    @property
    def start(self) -> Ngram:
        """The context at the start of a sentence."""
        return self.context((SENTENCE_START,))

    def context(self, words: Sequence[str]) -> Ngram:
        """Cut what was said down to what the model can heed.

        Args:
            words: Words so far.

        Returns:
            The longest end of `words` that begins an n-gram of the model.
        """
        tail = tuple(words[len(words) - min(len(words), self.order - 1) :])
        while tail not in self._contexts:
            tail = tail[1:]
        return tail

    def log_prob(self, context: Ngram, word: str) -> float:
        """Ask for the probability of a word.

        Args:
            context: The words before it; more than the model can heed do no harm.
            word: The word, or `</s>`.

        Returns:
            Natural log-probability; that of unknown words is `unknown_log_prob` without a context.
        """
        context = self.context(context)
        penalty = 0.0
        while True:
            found = self._followers.get(context, {}).get(word)
            if found is not None:
                return penalty + found
            if not context:
                return penalty + self.unknown_log_prob
            penalty += self.backoffs.get(context, 0.0)
            context = context[1:]

    def followers(self, context: Ngram) -> Mapping[str, float]:
        """List the words that n-grams name behind a context.

        Args:
            context: Words.

        Returns:
            Word -> natural log-probability, as listed.
        """
        return self._followers.get(context, {})

    def continued(self, context: Ngram) -> Sequence[str]:
        """List the words that make a context longer.

        Args:
            context: Words, as `context` gives them.

        Returns:
            Every word with which the context is one that the model heeds.
        """
        return self._continued.get(context, ())

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> Perplexity:
        """Measure how well the model predicts a text.

        Args:
            sentences: Words of each sentence.

        Returns:
            Perplexity; without tokens it is 1.
        """
        total, num_tokens, num_unknown = 0.0, 0, 0
        has_end = (SENTENCE_END,) in self.log_probs
        for sentence in sentences:
            context = self.start
            for word in [*sentence, *([SENTENCE_END] if has_end else [])]:
                if word in self.words or word == SENTENCE_END:
                    total += self.log_prob(context, word)
                    num_tokens += 1
                else:
                    num_unknown += 1
                context = self.context((*context, word))
        return Perplexity(
            perplexity=math.exp(-total / max(num_tokens, 1)), num_tokens=num_tokens, num_unknown=num_unknown
        )

    @classmethod
    def load(cls, path: str | Path) -> "NgramModel":
        """Read an ARPA file, as SRILM, KenLM and `unispeech lm train` write it.

        Args:
            path: The file; one whose name ends in .gz is unpacked.

        Returns:
            The model.

        Raises:
            ManifestError: If the file is not ARPA; the message names the line.
            OSError: If it cannot be read.
        """
        path = Path(path)
        try:
            with _open(path) as file:
                log_probs, backoffs = _ArpaReader(path, file).read()
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ManifestError(
                f"{path}: must be an ARPA file in UTF-8, but is not; KenLM's binary files cannot be read."
            ) from error
        return cls(log_probs, backoffs)

    def to_arpa(self) -> str:
        """Write the model as an ARPA file.

        Returns:
            The file's text.
        """
        by_order: list[list[Ngram]] = [[] for _ in range(self.order)]
        for ngram in self.log_probs:
            by_order[len(ngram) - 1].append(ngram)
        lines = ["\\data\\", *(f"ngram {n}={len(ngrams)}" for n, ngrams in enumerate(by_order, 1))]
        for n, ngrams in enumerate(by_order, 1):
            lines += ["", f"\\{n}-grams:"]
            for ngram in sorted(ngrams):
                is_start = ngram == (SENTENCE_START,)
                decimal = NEVER_IN_ARPA if is_start else self.log_probs[ngram] / LOG_10
                backoff = f"\t{self.backoffs[ngram] / LOG_10:.7g}" if ngram in self.backoffs else ""
                lines.append(f"{decimal:.7g}\t{' '.join(ngram)}{backoff}")
        return "\n".join([*lines, "", "\\end\\", ""])


def _open(path: Path) -> TextIO:
    """Open a text file that may be packed."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


class _ArpaReader:
    """Reads one file and knows the line it is at."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._number = 0
        self._last = ""
        self._lines = self._numbered(file)

    def read(self) -> tuple[dict[Ngram, float], dict[Ngram, float]]:
        """Read the counts, then every order."""
        counts = self._read_counts()
        log_probs: dict[Ngram, float] = {}
        backoffs: dict[Ngram, float] = {}
        for order, count in enumerate(counts, 1):
            if self._last != f"\\{order}-grams:":
                raise self._error(f"line must be \\{order}-grams:, but is {self._last!r}.")
            self._read_order(order, count, order == len(counts), log_probs, backoffs)
        if self._last != "\\end\\":
            raise self._error(f"line must be \\end\\, but is {self._last!r}.")
        return log_probs, backoffs

    def _numbered(self, file: TextIO) -> Iterator[str]:
        """The lines that are not empty.

        Yields:
            Each line without the space around it.
        """
        for self._number, line in enumerate(file, 1):
            if stripped := line.strip(" \t\r\n"):
                self._last = stripped
                yield stripped
        self._last = "the end of the file"

    def _error(self, what: str) -> ManifestError:
        """An error with the line's number."""
        return ManifestError(f"{self._path}:{max(self._number, 1)}: {what}")

    def _read_counts(self) -> list[int]:
        """The lines `ngram N=count`; what stands before the line `data` is a comment."""
        if not any(line == "\\data\\" for line in self._lines):
            raise self._error("file must have a line \\data\\, but has none; is it an ARPA file?")
        counts: list[int] = []
        for line in self._lines:
            name, _, count = line.partition("=")
            if not name.startswith("ngram "):
                break
            if name.split() != ["ngram", str(len(counts) + 1)] or not count.strip().isdecimal():
                raise self._error(f"line must be `ngram {len(counts) + 1}=COUNT`, but is {line!r}.")
            counts.append(int(count))
        if not counts:
            raise self._error("\\data\\ must be followed by `ngram 1=COUNT`, but is not.")
        return counts

    def _read_order(
        self,
        order: int,
        count: int,
        is_last: bool,
        log_probs: dict[Ngram, float],
        backoffs: dict[Ngram, float],
    ) -> None:
        """The n-grams of one order, up to the next line that begins with a backslash."""
        num_read = 0
        for line in self._lines:
            # A word may begin with a backslash too, but no n-gram's line does: it begins with a number.
            if line.startswith("\\"):
                break
            fields = line.split()
            if not len(fields) == order + 1 and not (len(fields) == order + 2 and not is_last):
                raise self._error(
                    f"line must be a log-probability, {order} word{'s' * (order > 1)}"
                    f"{'' if is_last else ' and at most a back-off weight'}, but is {line[:80]!r}."
                )
            ngram = tuple(fields[1 : order + 1])
            log_prob = self._number_in(fields[0], "log-probability")
            if log_prob > 1e-4:
                raise self._error(f"log-probability must be at most 0, but is {fields[0]}.")
            if ngram in log_probs:
                raise self._error(f"n-gram must be listed once, but {' '.join(ngram)!r} is listed again.")
            for word in ngram if order > 1 else ():
                if (word,) not in log_probs:
                    raise self._error(f"word must be among the 1-grams, but {word!r} is not.")
            log_probs[ngram] = min(log_prob, 0.0) * LOG_10
            if len(fields) == order + 2:
                backoffs[ngram] = self._number_in(fields[-1], "back-off weight") * LOG_10
            num_read += 1
        if num_read != count:
            raise self._error(f"{order}-grams must be {count}, as \\data\\ says, but are {num_read}.")

    def _number_in(self, text: str, name: str) -> float:
        """A decimal number."""
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise self._error(f"{name} must be a number, but is {text!r}.")
        return number
