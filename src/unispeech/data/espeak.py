"""Text -> phones, and text -> speech with phone times, by espeak-ng in a process of its own (extra `espeak`).

espeak-ng is under the GPL: this module starts `unispeech.data.espeak_worker` and talks to it over pipes; the
library is never loaded into the caller's process. A boundary is espeak-ng's own mark, right to about 10 ms,
except in two cases, where it is a fixed share of a known stretch: inside what espeak-ng fuses into one sound
(English "-le", "or"), and before a phone to which it gives no time because the vowel ahead contains it (an l
before a consonant).
"""

import json
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from unispeech.data.espeak_phones import (
    PhoneError,
    language_of,
    normalise_phone,
    without_region,
    without_stress,
)
from unispeech.frames import Seconds

VOICES = {"en": "en-us", "zh": "cmn", "zh-HK": "yue"}
"""Language -> the voice that is meant where espeak-ng has several or calls it otherwise."""

RATE_RANGE = (80, 450)
"""Words per minute that espeak-ng speaks."""

_SECOND_SHARE = 0.4
"""Share of a fused stretch that the second phone gets: the vowel before it is the longer part."""


class TimedPhone(NamedTuple):
    """A phone and when it is spoken; silence is the gap between two."""

    phone: str
    """IPA, normalised by `espeak_phones`."""
    start: Seconds
    """Where it begins, from the first sample."""
    end: Seconds
    """Where it ends."""


class TimedWord(NamedTuple):
    """A word of the text and when it is spoken."""

    word: str
    """The stretch of the text, as written; two words where espeak-ng runs them into one ("of the")."""
    start: Seconds
    """Start of its first phone."""
    end: Seconds
    """End of its last phone."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What was spoken."""

    samples: npt.NDArray[np.int16]
    """(S,) mono."""
    sample_rate: int
    """In Hz; espeak-ng gives 22050."""
    phones: list[TimedPhone]
    """In the order of time, without overlap."""
    words: list[TimedWord] | None
    """None where espeak-ng does not mark the words of the language one by one (Chinese)."""


class EspeakProcess:
    """A running espeak-ng for one voice.

    The same requests in the same order to a fresh process give the same samples; the same text twice in one
    process may not, for its noise goes on. Use it as a context manager, or call `close`.

    Args:
        voice: A language code ("en", "zh") or a voice name of espeak-ng ("en-gb"). Of a tag whose region it
            does not know ("sv-SE") the language is taken.
        library: Path of another libespeak-ng; None takes the one of the extra `espeak`, else the system's.
        data: Folder that holds that library's `espeak-ng-data`; None lets the library look for it.

    Raises:
        ImportError: If espeak-ng is not installed or cannot be loaded.
        ValueError: If it has no such voice.
        ChildProcessError: Here and in every call, if the process ends; the line says what it said last.
    """

    def __init__(self, voice: str, *, library: str | None = None, data: str | None = None) -> None:
        self.language = language_of(VOICES.get(voice, voice))
        command = [sys.executable, "-P", "-m", "unispeech.data.espeak_worker"]
        command += [argument for argument in (library, data) if argument is not None]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        try:
            about, _ = self._receive()
            if "error" in about:
                raise ImportError(str(about["error"]))
            self.version: str = about["version"]
            """Version of espeak-ng."""
            self.sample_rate: int = about["sample_rate"]
            """In Hz."""
            self.variants: tuple[str, ...] = tuple(about["variants"])
            """Names of the voice variants that are installed."""
            found = self._find(voice) or self._find(without_region(voice))
            if found is None:
                raise ValueError(
                    f"`language` must be one of espeak-ng, or the name of a voice of it, but is {voice!r}."
                )
            self.voice: str = found
            """Name by which espeak-ng knows the voice."""
        except BaseException:
            self.close()
            raise

    def _find(self, voice: str) -> str | None:
        """The name of a voice, as the library has it."""
        reply, _ = self._ask({"find": VOICES.get(voice, voice)})
        name: str | None = reply["voice"]
        return name

    def phones(self, text: str) -> list[list[str]]:
        """Say how a text is spoken.

        Args:
            text: Words and punctuation; numbers and abbreviations are read out.

        Returns:
            The IPA phones of every spoken word, in order; one may stand for several of the text ("of the").

        Raises:
            PhoneError: If espeak-ng switches to another language in it, or prints what is not IPA.
        """
        reply, _ = self._ask({"phones": _composed(text), "voice": self.voice})
        return _normalise_words(reply["words"], self.language)

    def synthesise(
        self,
        text: str,
        *,
        variant: str | None = None,
        rate: int = 175,
        pitch: int = 50,
        pitch_range: int = 50,
        word_gap: int = 0,
    ) -> Speech:
        """Speak a text.

        Args:
            text: Words and punctuation; numbers and abbreviations are read out.
            variant: Another speaker, one of `variants`; None is the voice itself.
            rate: Words per minute, 80 to 450.
            pitch: Height of the voice, 0 to 99.
            pitch_range: Liveliness, 0 (monotonous) to 99.
            word_gap: Extra pause between words, in units of 10 ms; 0 or more.

        Returns:
            The speech with its phones and words.

        Raises:
            ValueError: If an argument is out of its range, or there is no such variant.
            PhoneError: If the phones cannot be given: the text switches language, or the marks of the speech
                are not those of its phones.
        """
        if variant is not None and variant not in self.variants:
            near = get_close_matches(variant, self.variants, n=1, cutoff=0.0)
            advice = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"`variant` must be one of espeak-ng's variants, but is {variant!r}{advice}.")
        limits = {"rate": (rate, *RATE_RANGE), "pitch": (pitch, 0, 99), "pitch_range": (pitch_range, 0, 99)}
        for name, (value, low, high) in (limits | {"word_gap": (word_gap, 0, 1000)}).items():
            if not low <= value <= high:
                raise ValueError(f"`{name}` must lie in [{low}, {high}], but is {value}.")
        text = _composed(text)
        knobs = {"rate": rate, "pitch": pitch, "pitch_range": pitch_range, "word_gap": word_gap}
        voice = self.voice if variant is None else f"{self.voice}+{variant}"
        reply, samples = self._ask({"speak": text, "voice": voice} | knobs)
        words = lay_phones(reply["words"], reply["marks"], len(samples), self.language)
        rate_hz = self.sample_rate
        timed = [[TimedPhone(p, a / rate_hz, b / rate_hz) for p, a, b in word] for word in words]
        spelt = _spell(text, [position - 1 for position, _ in reply["word_marks"]])
        return Speech(
            samples=samples,
            sample_rate=rate_hz,
            phones=[phone for word in timed for phone in word],
            words=[TimedWord(s, w[0].start, w[-1].end) for s, w in zip(spelt, timed, strict=True)]
            if len(spelt) == len(timed)
            else None,
        )

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], npt.NDArray[np.int16]]:
        """Send one request and wait for its reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise ChildProcessError(self._last_words()) from None
        return self._receive()

    def _receive(self) -> tuple[dict[str, Any], npt.NDArray[np.int16]]:
        """Read one JSON line and the samples that it announces."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        num_bytes = reply.get("num_bytes", 0)
        samples = self._process.stdout.read(num_bytes)
        if len(samples) < num_bytes:
            raise ChildProcessError(self._last_words())
        return reply, np.frombuffer(samples, dtype="<i2").astype(np.int16)

    def _last_words(self) -> str:
        """Describe in one line how the worker ended."""
        if self._process.poll() is None and self._process.stdin is not None and self._process.stdin.closed:
            return "espeak-ng's process is closed."
        status = self._process.wait()
        if self._stderr.closed:
            return "espeak-ng's process is closed."
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"espeak-ng's process ended with status {status}: {lines[-1] if lines else 'it said nothing'}"

    def close(self) -> None:
        """End the process; a second call does nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was not sent has nobody to read it
                    continue
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _composed(text: str) -> str:
    """The text with accents in their letters: espeak-ng does not hear those that stand apart."""
    return unicodedata.normalize("NFC", text)


def lay_phones(
    words: Sequence[Sequence[str]],
    marks: Sequence[tuple[str, int]],
    num_samples: int,
    language: str,
) -> list[list[tuple[str, int, int]]]:
    """Give the printed phones of every word their times.

    The marks name the phones in the same order, but cut long names and leave out what only changes a phone
    (length) or mark it by itself (palatalisation), so the names are taken from `words` and the times from
    `marks`.

    Args:
        words: Printed phones of every word.
        marks: Name and start sample of every phone; an empty name is a pause.
        num_samples: Where the last phone ends at the latest.
        language: Whose symbols they are.

    Returns:
        For every word with phones, its (IPA phone, start sample, end sample): in order, each with at least
        one sample, none overlapping.

    Raises:
        PhoneError: If the two do not fit, or a phone cannot be written in IPA.
    """
    starts = [min(sample, num_samples) for _, sample in marks] + [num_samples]
    names = [without_stress(name) for name, _ in marks]
    sounds = [(name, starts[i], starts[i + 1]) for i, name in enumerate(names) if name]
    spoken: list[tuple[tuple[str, ...], int, int]] = []
    lengths: list[int] = []
    position = 0
    for word in words:
        for token in word:
            last = _match(without_stress(token), sounds, position)
            spoken.append((normalise_phone(token, language), sounds[position][1], sounds[last][2]))
            position = last + 1
        lengths.append(len(word))
    if position != len(sounds):
        raise PhoneError(f"marks must name the printed phones, but do not: {len(sounds)} for {position}")
    phones = iter(_share(spoken))
    laid = [[phone for _ in range(length) for phone in next(phones)] for length in lengths]
    return [word for word in laid if word]


def _match(token: str, sounds: Sequence[tuple[str, int, int]], position: int) -> int:
    """Return the index of the last mark that belongs to a printed phone."""
    if position >= len(sounds) or not token.startswith(sounds[position][0]):
        found = sounds[position][0] if position < len(sounds) else "nothing"
        raise PhoneError(f"marks must name the printed phones, but do not: {found} for {token}")
    rest = token[len(sounds[position][0]) :]
    while rest and position + 1 < len(sounds) and sounds[position + 1][0] == "ʲ" and rest.startswith("ʲ"):
        position += 1
        rest = rest[1:]
    return position


def _share(spoken: list[tuple[tuple[str, ...], int, int]]) -> list[list[tuple[str, int, int]]]:
    """Part fused stretches, and give a phone without time the end of the one before it."""
    times = [[start, end] for _, start, end in spoken]
    for i, (start, end) in enumerate(times):
        if start < end:
            continue
        if i and times[i - 1][1] == start:
            before = times[i - 1]
            before[1] = times[i][0] = end - int(_SECOND_SHARE * (before[1] - before[0]))
        elif i + 1 < len(times) and times[i + 1][0] == end:
            after = times[i + 1]
            after[0] = times[i][1] = start + int(_SECOND_SHARE * (after[1] - after[0]))
    shared = []
    for (symbols, _, _), (start, end) in zip(spoken, times, strict=True):
        middle = end - max(1, int(_SECOND_SHARE * (end - start)))
        edges = [start, end] if len(symbols) == 1 else [start, middle, end]
        if len(symbols) and end - start < len(symbols):
            raise PhoneError(f"a phone must have time, but has none: {' '.join(symbols)}")
        shared.append([(s, edges[i], edges[i + 1]) for i, s in enumerate(symbols)])
    return shared


def _spell(text: str, starts: Sequence[int]) -> list[str]:
    """Cut a text before each start; what surrounds letters and digits goes."""
    stretches = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return [re.sub(r"^\W+|\W+$", "", stretch) for stretch in stretches]


def _normalise_words(words: Sequence[Sequence[str]], language: str) -> list[list[str]]:
    """Write every word's printed phones in IPA; words without phones are dropped."""
    normal = [[phone for token in word for phone in normalise_phone(token, language)] for word in words]
    return [word for word in normal if word]
