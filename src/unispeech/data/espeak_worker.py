"""espeak-ng in a process of its own: the only file of this package that loads the GPL library.

`unispeech.data.espeak.EspeakProcess` starts it as `python -m unispeech.data.espeak_worker [LIBRARY [DATA]]`
and talks to it over pipes. The first line it writes says that it is ready, or why it cannot be:
`{"version": ..., "sample_rate": ..., "variants": [...]}` or `{"error": ...}`. Then every line read is one
JSON request and gets one JSON line, followed for speech by `num_bytes` of int16 samples:

    {"find": VOICE}  ->  {"voice": V} or {"voice": null}
    {"phones": TEXT, "voice": V}  ->  {"words": [[TOKEN, ...], ...]}
    {"speak": TEXT, "voice": V, "rate": R, "pitch": P, "pitch_range": G, "word_gap": W}
        ->  {"words": ..., "marks": [[NAME, SAMPLE], ...], "word_marks": [[POSITION, LENGTH], ...],
             "num_bytes": N} and N bytes

Nothing is interpreted here: tokens and names are what the library prints. It ends when its input does.
"""

import ctypes
import ctypes.util
import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

MISSING = (
    "espeak-ng was not found; install the extra with pip install 'unispeech[espeak]', "
    "or the system's espeak-ng library"
)

# Values of espeak-ng's public header, speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 1, 2, 1 << 15
_CHARS_UTF8 = 1
_EVENT_LIST_TERMINATED, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_RATE, _PITCH, _PITCH_RANGE, _WORD_GAP = 1, 3, 4, 7
_SEPARATOR = "_"


class _EventId(ctypes.Union):
    """What an event is about: a number or, for phones, up to eight bytes of UTF-8."""

    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Voice(ctypes.Structure):
    """The beginning of `espeak_VOICE` of speak_lib.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.POINTER(ctypes.c_char)),
        ("identifier", ctypes.c_char_p),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def find_library() -> tuple[str, str | None]:
    """Say where the library and its data lie: espeakng-loader's, else the system's.

    Returns:
        Path or name of the library, and the folder that holds `espeak-ng-data`, or None where the library
        knows it.

    Raises:
        FileNotFoundError: If there is neither.
    """
    try:
        import espeakng_loader

        return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())
    except ImportError:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise FileNotFoundError(MISSING) from None
        return name, None


class Library:
    """The calls of libespeak-ng that speech with phone times needs.

    Args:
        path: Path or name of the shared library.
        data: Its data folder; None lets the library look where it was installed.

    Raises:
        OSError: If the library cannot be loaded or does not find its data.
    """

    def __init__(self, path: str, data: str | None) -> None:
        self._library = ctypes.CDLL(path)
        library = self._library
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int] * 3
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        library.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        library.espeak_Info.argtypes = [ctypes.POINTER(ctypes.c_char_p)]
        library.espeak_Info.restype = ctypes.c_char_p
        self.sample_rate = int(
            library.espeak_Initialize(
                _AUDIO_OUTPUT_SYNCHRONOUS,
                0,
                data.encode() if data else None,
                _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT,
            )
        )
        if self.sample_rate <= 0:
            raise OSError(f"espeak-ng at {path} does not find its data ({data or 'the default folder'})")
        _fix_noise(library)
        self._voice = ""
        self._pcm: list[bytes] = []
        self._marks: list[tuple[str, int]] = []
        self._word_marks: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)  # kept: the library holds only its address
        library.espeak_SetSynthCallback(self._callback)

    def describe(self) -> dict[str, object]:
        """Return version, sample rate and the names of the voice variants that the data folder holds."""
        folder = ctypes.c_char_p()
        version = self._library.espeak_Info(ctypes.byref(folder)).decode()
        variants = Path(os.fsdecode(folder.value or b"")) / "voices" / "!v"
        names = sorted(entry.name for entry in variants.iterdir()) if variants.is_dir() else []
        return {"version": version.split()[0], "sample_rate": self.sample_rate, "variants": names}

    def find_voice(self, voice: str) -> str | None:
        """Find a voice by its name or, as the library's own command does, by its language.

        Args:
            voice: A name or a language code, without variant.

        Returns:
            The name to choose it by, or None.
        """
        if self.choose(voice):
            return voice
        found: list[tuple[int, str]] = []
        voices = self._library.espeak_ListVoices(None)
        index = 0
        while voices[index]:
            entry = voices[index].contents
            index += 1
            # `languages` is a row of: one byte of priority, low is better, and a string; a zero byte ends it.
            place = ctypes.addressof(entry.languages.contents)
            while priority := ctypes.string_at(place, 1)[0]:
                language = ctypes.string_at(place + 1)
                place += len(language) + 2
                if language.decode().lower() == voice.lower():
                    found.append((priority, entry.identifier.decode()))
        return min(found)[1] if found else None

    def choose(self, voice: str) -> bool:
        """Speak with a voice from now on, unless it is the present one.

        Args:
            voice: `name` or `name+variant`; an unknown variant is silently ignored by the library.

        Returns:
            Whether there is one of that name.
        """
        if voice != self._voice and self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return False
        self._voice = voice
        return True

    def phones(self, text: str) -> list[list[str]]:
        """Return the printed phones of every word.

        Args:
            text: Any text of the chosen voice's language.

        Returns:
            One list of tokens per spoken word; pauses inside a word are dropped.
        """
        buffer = ctypes.create_string_buffer(text.encode())
        position = ctypes.c_void_p(ctypes.addressof(buffer))
        words: list[list[str]] = []
        mode = _PHONEME_IPA | (ord(_SEPARATOR) << 8)
        while position.value:  # one clause per call; the library moves `position` on, at the end to NULL
            clause = self._library.espeak_TextToPhonemes(ctypes.byref(position), _CHARS_UTF8, mode)
            for word in clause.decode().split():
                words.append([token for token in word.split(_SEPARATOR) if token])
        return [word for word in words if word]

    def speak(self, text: str, *, rate: int, pitch: int, pitch_range: int, word_gap: int) -> bytes:
        """Speak a text; marks and word marks of it are kept until the next call.

        Args:
            text: Any text of the chosen voice's language.
            rate: Words per minute.
            pitch: Height of the voice, 0 to 99.
            pitch_range: Liveliness of the voice, 0 to 99.
            word_gap: Pause between words in units of 10 ms.

        Returns:
            int16 samples at `sample_rate`.
        """
        settings = ((_RATE, rate), (_PITCH, pitch), (_PITCH_RANGE, pitch_range), (_WORD_GAP, word_gap))
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pcm, self._marks, self._word_marks = [], [], []
        utf8 = text.encode()
        self._library.espeak_Synth(utf8, len(utf8) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        return b"".join(self._pcm)

    @property
    def marks(self) -> list[tuple[str, int]]:
        """Name and start sample of every phone of the last speech, pauses included (their name is empty)."""
        return self._marks

    @property
    def word_marks(self) -> list[tuple[int, int]]:
        """Position (from 1) and length in characters of every word of the last speech."""
        return self._word_marks

    def _receive(self, samples: int | None, num_samples: int, events: "ctypes._Pointer[_Event]") -> int:
        """Collect what the library reports while it speaks."""
        if samples and num_samples > 0:
            self._pcm.append(ctypes.string_at(samples, 2 * num_samples))
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                # Longer names are cut after eight bytes, maybe inside a character.
                self._marks.append((event.id.string.decode("utf-8", "ignore"), int(event.sample)))
            elif event.type == _EVENT_WORD:
                self._word_marks.append((int(event.text_position), int(event.length)))
            index += 1
        return 0


def _fix_noise(library: ctypes.CDLL) -> None:
    """Start the random numbers of espeak-ng's noise at a fixed place.

    It starts them from the clock, so that two processes would agree only within the same second. Since 1.52
    they are its own, before that those of the C library, where some are still taken from.
    """
    if hasattr(library, "espeak_ng_SetRandSeed"):
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_ng_SetRandSeed(1)
    runtime = ctypes.CDLL("ucrtbase") if os.name == "nt" else ctypes.CDLL(None)
    runtime.srand(1)


def answer(library: Library, request: dict[str, object]) -> tuple[dict[str, object], bytes]:
    """Serve one request.

    Args:
        library: The loaded library.
        request: What was asked, in the form that the module's docstring gives.

    Returns:
        The reply, without `num_bytes`, and the samples that follow it.
    """
    if "find" in request:
        return {"voice": library.find_voice(str(request["find"]))}, b""
    library.choose(str(request["voice"]))
    if "phones" in request:
        return {"words": library.phones(str(request["phones"]))}, b""
    text = str(request["speak"])
    words = library.phones(text)
    knobs = {name: int(str(request[name])) for name in ("rate", "pitch", "pitch_range", "word_gap")}
    samples = library.speak(text, **knobs)
    return {"words": words, "marks": library.marks, "word_marks": library.word_marks}, samples


def serve(arguments: list[str], requests: BinaryIO, replies: BinaryIO) -> None:
    """Load the library, say so, and answer until the requests end.

    Args:
        arguments: Path of the library and of its data, each optional.
        requests: JSON lines.
        replies: JSON lines, each followed by the samples it announces.
    """
    try:
        path, data = (arguments[0], None) if arguments else find_library()
        library = Library(path, arguments[1] if len(arguments) > 1 else data)
        replies.write(json.dumps(library.describe()).encode() + b"\n")
    except OSError as error:
        replies.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    finally:
        replies.flush()
    for line in requests:
        reply, samples = answer(library, json.loads(line))
        replies.write(json.dumps(reply | {"num_bytes": len(samples)}).encode() + b"\n" + samples)
        replies.flush()


def main() -> None:
    """Serve on standard input and output; whatever the library itself prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.argv[1:], sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
