"""What every decoder is to the rest of the package, and decoding of recordings that have no bounded length.

Shapes in this file: T frames, N vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from unispeech.decoding.greedy import TokenSpan, greedy

LogProbs = npt.NDArray[np.float32]

SECTION_FRAMES = 15_000
"""Frames that a decoder is given at once at least, where there are as many: five minutes."""


class Decoder(Protocol):
    """Turns the log-probabilities of one utterance into what was said."""

    def decode(self, log_probs: LogProbs) -> list[TokenSpan]:
        """Decode one utterance.

        Args:
            log_probs: (T, N) natural log-probabilities without padding; T may be 0.

        Returns:
            Spans in the order of time that do not overlap and lie within [0, T).
        """
        ...


@dataclass(frozen=True)
class GreedyDecoder:
    """The best token of every frame, repeats joined, blanks dropped: see `greedy`."""

    blank: int
    """Id of the CTC blank."""

    def decode(self, log_probs: LogProbs) -> list[TokenSpan]:
        """Decode one utterance.

        Args:
            log_probs: (T, N) natural log-probabilities without padding.

        Returns:
            Spans in the order of time.
        """
        return greedy(log_probs, self.blank)


def find_seam(log_probs: LogProbs, blank: int, *, is_late: bool = False) -> int:
    """Find where a recording can be decoded in two parts.

    The best path collapses to the same tokens in two parts as in one where its token is blank or changes.
    A blank comes first in choice, since other decoders lose least there: among the last third, the surest.

    Args:
        log_probs: (T, N) log-probabilities.
        blank: Id of the CTC blank.
        is_late: Whether the last blank is wanted instead, however sure.

    Returns:
        First frame of the second part, in (0, T); 0 where the best path stays on one token, or T is 0.
    """
    best = log_probs.argmax(axis=1)  # (T,), T may be 0
    seams = np.flatnonzero((best[1:] == blank) | (best[1:] != best[:-1])) + 1
    if not len(seams):
        return 0
    last_third = seams[seams >= len(best) * 2 // 3]
    seams = last_third if len(last_third) and not is_late else seams
    blanks = seams[best[seams] == blank]
    if not len(blanks):
        return int(seams[-1])
    return int(blanks[-1] if is_late else blanks[log_probs[blanks, blank].argmax()])


def decode_blocks(
    blocks: Iterable[LogProbs], decoder: Decoder, blank: int, *, section_frames: int = SECTION_FRAMES
) -> Iterator[TokenSpan]:
    """Decode a recording of any length whose log-probabilities come in blocks.

    Up to `section_frames` are decoded at once, longer recordings in sections that end at sure blanks: greedy
    decoding gives the same as at once; other decoders start anew at each section.

    Args:
        blocks: (T_i, N) log-probabilities that follow one another.
        decoder: Decodes a section.
        blank: Id of the CTC blank.
        section_frames: Frames that are kept back at least before a section is decoded.

    Yields:
        Spans in the order of time; frames count from the start of the recording.
    """
    waiting: list[LogProbs] = []
    num_done = num_waiting = 0
    for block in blocks:
        waiting.append(block)
        num_waiting += len(block)
        if num_waiting > section_frames:
            rows = np.concatenate(waiting)
            seam = find_seam(rows, blank)
            yield from shifted(decoder.decode(rows[:seam]), num_done)
            # A copy, or the whole section would stay in memory.
            waiting, num_waiting, num_done = [rows[seam:].copy()], len(rows) - seam, num_done + seam
    if num_waiting:
        yield from shifted(decoder.decode(np.concatenate(waiting)), num_done)


def shifted(spans: Iterable[TokenSpan], num_frames: int) -> Iterator[TokenSpan]:
    """Move spans in time.

    Args:
        spans: What was decoded.
        num_frames: Frames that come before.

    Yields:
        The spans, their frames counted from the start of the recording.
    """
    for span in spans:
        yield replace(span, start_frame=span.start_frame + num_frames, end_frame=span.end_frame + num_frames)
