"""What a decoder finds, and the sound that it found it in -> when every symbol begins and ends.

Shapes in this file: S samples, T frames, N vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from unispeech.audio import Waveform
from unispeech.decoding.decoder import Decoder, LogProbs
from unispeech.decoding.extents import extents
from unispeech.decoding.extents_acoustics import measure
from unispeech.decoding.greedy import TokenSpan
from unispeech.frames import SAMPLE_RATE, Seconds, hop, receptive_field


class Sound:
    """The samples of one recording, from the first frame on that has not been taken.

    Args:
        kernels: Kernel size of each of the network's convolutions.
        strides: Stride of each.
    """

    def __init__(self, kernels: Sequence[int], strides: Sequence[int]) -> None:
        self.kernels, self.strides = kernels, strides
        self._pieces: list[Waveform] = []

    def hear(self, block: Waveform) -> None:
        """Hold what comes next.

        Args:
            block: (S_i,) samples.
        """
        self._pieces.append(block)

    def listen(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """Hold what goes by.

        Args:
            blocks: (S_i,) samples that follow one another.

        Yields:
            The same blocks.
        """
        for block in blocks:
            self.hear(block)
            yield block

    def take(self, num_frames: int) -> Waveform:
        """Give the samples that the next frames see, and let go of what no later frame sees.

        Args:
            num_frames: How many, at least 1; their samples have gone by.

        Returns:
            (S,) samples.
        """
        held, step = np.concatenate(self._pieces), hop(self.strides)
        end = num_frames * step
        # A copy, or all that is held would stay in memory.
        self._pieces = [held[end:].copy()]
        return held[: end - step + receptive_field(self.kernels, self.strides)]


class TimingDecoder:
    """A `Decoder` of one recording that remembers, section by section, how long each symbol lasts.

    What is usual for the recording, its loudness for one, is found in each section by itself; a symbol lasts
    no longer than its section, which ends at a sure blank.

    Args:
        decoder: Does the work.
        blank: Id of the CTC blank.
        sound: The recording, as far as it has been decoded or further.
    """

    def __init__(self, decoder: Decoder, blank: int, sound: Sound) -> None:
        self.times: list[tuple[Seconds, Seconds]] = []
        """Start and end of every span that was given, in seconds from the start of the recording."""
        self._decoder, self._blank, self._sound = decoder, blank, sound
        self._num_done = 0

    def decode(self, log_probs: LogProbs) -> list[TokenSpan]:
        """Decode the next section.

        Args:
            log_probs: (T, N) natural log-probabilities without padding; T is at least 1.

        Returns:
            Spans in the order of time.
        """
        spans = self._decoder.decode(log_probs)
        kernels, strides = self._sound.kernels, self._sound.strides
        waveform = self._sound.take(len(log_probs))
        acoustics = measure(waveform, len(log_probs), kernels, strides) if spans else None
        found = extents(spans, log_probs, self._blank, acoustics=acoustics, kernels=kernels, strides=strides)
        start = self._num_done * hop(strides) / SAMPLE_RATE
        self.times += [(start + first, start + last) for first, last in found]
        self._num_done += len(log_probs)
        return spans
