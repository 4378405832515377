"""Error rates of several recognisers of one checkpoint on labelled speech, by greedy CTC.

Shapes in this file: S samples, T frames, N vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unispeech.audio import Waveform, normalise_waveform
from unispeech.decoding.decoder import LogProbs
from unispeech.decoding.greedy import greedy
from unispeech.errors import ManifestError
from unispeech.frames import SAMPLE_RATE, Seconds, receptive_field
from unispeech.metrics import error_rate
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

if TYPE_CHECKING:
    from lhotse import MonoCut

Recognise = Callable[[Waveform], LogProbs]
"""(S,) samples of an utterance, scaled as the model wants them -> (T, N) log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """How many errors recognisers make on the same speech."""

    unit: str
    """What is counted: "phones" or "characters"."""
    num_utterances: int
    """Utterances that were recognised, at least 1."""
    num_unreadable: int
    """Utterances that were left out because their audio cannot be read."""
    audio_seconds: Seconds
    """Length of those that were recognised."""
    rates: tuple[float, ...]
    """Errors per unit of the references, in the order in which the recognisers were given."""


class LabelledSpeech:
    """Utterances with what was said in them, in the symbols of a recogniser.

    Args:
        data: A file of cuts, or a folder with a `cuts.jsonl.gz`.
        checkpoint: The directory of the recogniser.

    Raises:
        FileNotFoundError: If there are no such cuts.
        ManifestError: If a line is not a cut.
        ValueError: If no utterance has a transcript of the recogniser's kind.
        ImportError: If lhotse is not installed.
    """

    def __init__(self, data: Path, checkpoint: Path) -> None:
        try:
            from unispeech.data.collation import load_cut
            from unispeech.data.cuts import CutFiles
        except ImportError as error:
            raise ImportError(
                f"labelled speech needs {error.name}; install it with pip install 'unispeech[train]'."
            ) from error

        self._load = load_cut
        self.vocabulary = Vocabulary.load(checkpoint)
        self.do_normalize = read_do_normalize(checkpoint)
        self.cuts = [cut for cut in CutFiles(data) if self._transcript(cut)]
        if not self.cuts:
            raise ValueError(
                f"{data}: must hold an utterance with {self.vocabulary.kind}, but holds none; "
                "give one that unispeech evaluate takes."
            )

    def measure(
        self,
        recognisers: Sequence[Recognise],
        kernels: Sequence[int],
        strides: Sequence[int],
        on_progress: Callable[[Seconds], None],
    ) -> ErrorRates:
        """Recognise every utterance as a whole, with each recogniser.

        Args:
            recognisers: What is compared.
            kernels: Kernel size of each convolution: what is shorter than a frame gives no symbols.
            strides: Stride of each convolution.
            on_progress: Told the seconds of each utterance when it is done.

        Returns:
            The error rates.

        Raises:
            ManifestError: If no utterance can be read.
        """
        references: list[list[str]] = []
        hypotheses: list[list[list[str]]] = [[] for _ in recognisers]
        num_samples, failures = 0, []
        for cut in self.cuts:
            try:
                waveform = self._load(cut)
            except (ValueError, OSError) as error:
                failures.append(error)
                continue
            references.append(self._reference(cut))
            num_samples += len(waveform)
            is_heard = len(waveform) >= receptive_field(kernels, strides)
            if self.do_normalize and is_heard:
                waveform = normalise_waveform(waveform)
            for recognise, found in zip(recognisers, hypotheses, strict=True):
                found.append(self._read(recognise(waveform)) if is_heard else [])
            on_progress(cut.duration)
        if not references:
            raise ManifestError(f"no utterance can be read: {failures[0]}")
        return ErrorRates(
            unit=self.vocabulary.kind,
            num_utterances=len(references),
            num_unreadable=len(failures),
            audio_seconds=num_samples / SAMPLE_RATE,
            rates=tuple(error_rate(references, found).rate for found in hypotheses),
        )

    def _transcript(self, cut: "MonoCut") -> str:
        """What was said, as the cut has it; empty where it does not say."""
        supervision = cut.supervisions[0]
        is_phones = self.vocabulary.kind == "phones"
        return ((supervision.custom or {}).get("phones") if is_phones else supervision.text) or ""

    def _reference(self, cut: "MonoCut") -> list[str]:
        """What was said, in symbols, without word boundaries."""
        symbols = self.vocabulary.segment(self._transcript(cut), language=cut.supervisions[0].language)
        return [symbol for symbol in symbols if symbol != self._boundary]

    def _read(self, log_probs: LogProbs) -> list[str]:
        """The symbols that the best path names, without word boundaries."""
        vocabulary = self.vocabulary
        tokens = [span.token for span in greedy(log_probs, vocabulary.blank)]
        symbols = [vocabulary.symbols[token] for token in tokens if token not in vocabulary.special]
        return [symbol for symbol in symbols if symbol != self._boundary]

    @property
    def _boundary(self) -> str | None:
        """The symbol that stands between words."""
        boundary = self.vocabulary.word_boundary
        return None if boundary is None else self.vocabulary.symbols[boundary]
