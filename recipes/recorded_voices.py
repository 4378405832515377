"""Let synthesisers whose voices were made from recordings of people speak sentences and words.

    python recipes/catalogue_texts.py /usr/lib/libreoffice/program/resource -o data/multi/unheard \
      --languages eo mr te
    python recipes/recorded_voices.py data/multi/unheard -o data/voices
    unispeech prepare data/voices/manifest.jsonl -o data/multi/voices --g2p espeak

espeak-ng's formants sound like no human being; these voices are cut from, or were learned from, recordings of
one person each. Run it where the programs and voices are installed, such as on Debian 13 with contrib and
non-free:

    apt install flite libttspico-utils festival rhvoice \
      rhvoice-{brazilian-portuguese,czech,english,esperanto,kyrgyz,polish,russian,slovak,ukrainian} \
      festvox-{ca-ona-hts,czech-dita,czech-krb,czech-machac,czech-ph,italp16k,itapc16k,kallpc16k} \
      festvox-{ru,suopuhe-lj,suopuhe-mv} festvox-{hi,mr,te}-nsk festival-{hi,mr,te} \
      open-jtalk open-jtalk-mecab-naist-jdic hts-voice-nitech-jp-atr503-m001 libreoffice-l10n-{eo,mr,te}

The other Japanese voice, mei_normal.htsvoice, is in the source package of pyopenjtalk 0.4.1 (`pip download
--no-deps --no-binary :all: pyopenjtalk`) and belongs into /usr/share/hts-voice.

It needs Python's own library alone, so that it runs in a container without the package. `VOICES` leaves out
voices whose licence, or whose dictionary's, forbids commercial use or adaptation. The text folder is that of
`recipes/multilingual_data.py --more`: LANGUAGE.txt with a sentence per line, w-LANGUAGE.txt with some words.
"""

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser."""

    engine: str
    """rhvoice, pico, flite, festival or open_jtalk."""
    name: str
    """In the engine."""
    language: str
    """espeak-ng's name of the language, to make phones by."""
    texts: tuple[str, ...]
    """Files of the text folder."""
    encoding: str = "utf-8"
    """Of what festival's voice reads."""
    letters: str = r"\w"
    """What the words may be made of, a character class of regular expressions."""


TEXTS = {
    "en-us": ("en-us", "w-en"), "en-gb": ("en-us", "w-en"), "ru": ("ru", "w-ru"), "ky": ("ky",),
    "it": ("it", "w-it"), "es": ("es", "w-es"), "fr-fr": ("fr-fr", "w-fr"), "de": ("w-de",),
    "pt-br": ("w-pt",), "pl": ("w-pl",), "cs": ("w-cs",), "sk": ("w-sk",), "uk": ("w-uk",), "fi": ("w-fi",),
    "ca": ("w-ca",), "eo": ("eo",), "hi": ("w-hi",), "mr": ("mr",), "te": ("te",), "ja": ("w-ja",),
}  # fmt: skip
"""espeak-ng's name of a language -> files of the text folder."""

RHVOICE = {
    "en-us": ("alan", "bdl", "clb", "slt"), "ru": ("aleksandr", "aleksandr-hq", "anna", "elena", "irina"),
    "pl": ("alicja", "magda", "michal", "natan"), "uk": ("anatol", "natalia"), "ky": ("azamat", "nazgul"),
    "sk": ("ondro",), "cs": ("zdenek",), "pt-br": ("Letícia-F123",),
    "eo": ("spomenka",),
}  # fmt: skip

PICO = {
    "en-us": "en-US", "en-gb": "en-GB", "de": "de-DE", "es": "es-ES", "fr-fr": "fr-FR", "it": "it-IT"
}  # fmt: skip

FLITE = ("awb", "rms", "slt")

FESTIVAL = {
    "czech_dita": ("cs", "iso-8859-2"), "czech_krb": ("cs", "iso-8859-2"),
    "czech_machac": ("cs", "iso-8859-2"), "czech_ph": ("cs", "iso-8859-2"),
    "suo_fi_lj_diphone": ("fi", "iso-8859-1"), "hy_fi_mv_diphone": ("fi", "iso-8859-1"),
    "lp_diphone": ("it", "iso-8859-1"), "pc_diphone": ("it", "iso-8859-1"),
    "upc_ca_ona_hts": ("ca", "iso-8859-1"), "msu_ru_nsh_clunits": ("ru", "utf-8"),
    "kal_diphone": ("en-us", "utf-8"), "hindi_NSK_diphone": ("hi", "utf-8"),
    "marathi_NSK_diphone": ("mr", "utf-8"), "telugu_NSK_diphone": ("te", "utf-8"),
}  # fmt: skip
"""Voice -> language and encoding."""

OPEN_JTALK = ("nitech-jp-atr503-m001/nitech_jp_atr503_m001", "mei_normal")
"""Of /usr/share/hts-voice."""

KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc"
"""espeak-ng reads no other Japanese letters."""

VOICES = [
    *(Voice("rhvoice", name, code, TEXTS[code]) for code, names in RHVOICE.items() for name in names),
    *(Voice("pico", name, language, TEXTS[language]) for language, name in PICO.items()),
    *(Voice("flite", name, "en-us", TEXTS["en-us"]) for name in FLITE),
    *(Voice("festival", name, code, TEXTS[code], letters) for name, (code, letters) in FESTIVAL.items()),
    *(Voice("open_jtalk", name, "ja", TEXTS["ja"], letters=KANA) for name in OPEN_JTALK),
]


def main() -> None:
    """Speak with all voices, and write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="folder of LANGUAGE.txt and w-LANGUAGE.txt")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=300, help="of each voice")
    parser.add_argument("--only", nargs="*", help="engines, if not all")
    parser.add_argument("--jobs", type=int, default=2, help="voices at a time")
    arguments = parser.parse_args()
    voices = [voice for voice in VOICES if not arguments.only or voice.engine in arguments.only]

    def speak(voice: Voice) -> list[dict[str, object]]:
        return spoken_by(voice, arguments.texts, arguments.output, arguments.utterances)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        lines = [line for part in pool.map(speak, voices) for line in part]
    manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (arguments.output / "manifest.jsonl").write_text(manifest, encoding="utf-8")


def spoken_by(voice: Voice, texts: Path, output: Path, count: int) -> list[dict[str, object]]:
    """Speak what is not there yet.

    Returns:
        A line of the manifest for every recording that holds speech.
    """
    name = f"{voice.engine}-{plain(voice.name).split('/')[-1]}"
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(name)
    phrases = {folder / f"{number:04d}.wav": phrase(voice, texts, rng) for number in range(count)}
    paces = {path: rng.uniform(0.85, 1.2) for path in phrases}
    waiting = {path: words for path, words in phrases.items() if not path.exists()}
    if voice.engine == "festival":
        speak_by_festival(voice, waiting, paces)
    else:
        for path, words in waiting.items():
            speak_words(voice, path, words, paces[path], rng)
    lines = []
    for path, words in phrases.items():
        seconds = duration(path)
        if seconds > 0.3:
            identity = f"{name}-{path.stem}"
            lines.append(
                {"id": identity, "audio": str(path.relative_to(output)), "text": words}
                | {"language": voice.language, "speaker": name, "duration": round(seconds, 4)}
            )
    minutes = sum(float(str(line["duration"])) for line in lines) / 60
    print(f"{name}: {len(lines)} of {count} utterances, {minutes:.1f} min", file=sys.stderr)
    return lines


def plain(name: str) -> str:
    """The name in letters of ASCII."""
    return unicodedata.normalize("NFD", name).encode("ascii", "ignore").decode()


def phrase(voice: Voice, texts: Path, rng: random.Random) -> str:
    """A few words in a row of a sentence, or some words of a list, of letters that the voice can read."""
    for _ in range(10_000):
        lines = read_lines(texts / f"{rng.choice(voice.texts)}.txt")
        start = rng.randrange(len(lines))
        words = lines[start].split()
        if len(words) > 4:
            length = rng.randint(2, 12)
            first = rng.randrange(max(1, len(words) - length))
            words = words[first : first + length]
        else:
            words = [word for line in lines[start : start + rng.randint(1, 4)] for word in line.split()]
        words = [word for word in words if re.fullmatch(rf"[{voice.letters}\W]+", word)]
        text = " ".join(words).strip(" ,;:-–")
        if is_plain(text) and can_encode(text, voice.encoding):
            return text
    sys.exit(f"{texts}: no line of {', '.join(voice.texts)} is of words that {voice.name} can read")


LINES: dict[Path, list[str]] = {}


def read_lines(path: Path) -> list[str]:
    """The lines of a text, read once."""
    if path not in LINES:
        LINES[path] = path.read_text("utf-8").splitlines()
    return LINES[path]


def is_plain(text: str) -> bool:
    """Whether a text is of words in small letters, but for the first letter of each, and of common marks."""
    words = re.findall(r"[^\W\d_]+", text)
    odd = re.search(r"[^\w\s,.?!'’\u0300-\u036f\u0900-\u097f\u0c00-\u0c7f-]|[\d_]", text)
    return bool(words) and not odd and all(word[1:] == word[1:].lower() for word in words)


def can_encode(text: str, encoding: str) -> bool:
    """Whether an encoding has all letters."""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode(encoding)
        return True
    return False


def speak_words(voice: Voice, path: Path, words: str, pace: float, rng: random.Random) -> None:
    """Speak one utterance."""
    part = path.with_suffix(".part.wav")
    rate = str(round(100 * pace))
    if voice.engine == "rhvoice":
        pitch = str(round(100 * rng.uniform(0.85, 1.15)))
        command = ["RHVoice-test", "-p", voice.name, "-r", rate, "-t", pitch, "-o", str(part)]
    elif voice.engine == "pico":
        pitch = str(round(100 * rng.uniform(0.8, 1.25)))
        marked = f'<speed level="{rate}"><pitch level="{pitch}">{words}</pitch></speed>'
        command = ["pico2wave", "-l", voice.name, "-w", str(part), marked]
    elif voice.engine == "open_jtalk":
        model, half_tones = f"/usr/share/hts-voice/{voice.name}.htsvoice", f"{rng.uniform(-2, 2):.2f}"
        command = ["open_jtalk", "-x", "/var/lib/mecab/dic/open-jtalk/naist-jdic", "-m", model]
        command += ["-r", f"{pace:.3f}", "-fm", half_tones, "-ow", str(part)]
    else:
        stretch = f"duration_stretch={1 / pace:.3f}"
        command = ["flite", "-voice", voice.name, "--setf", stretch, "-t", words, "-o", str(part)]
    # Open JTalk refuses some words; what is not there is not in the manifest.
    done = subprocess.run(
        command, input=words.encode(), check=voice.engine != "open_jtalk", capture_output=True
    )
    if done.returncode == 0:
        part.rename(path)


def speak_by_festival(voice: Voice, phrases: dict[Path, str], paces: dict[Path, float]) -> None:
    """Speak all utterances in one process; what the voice cannot say is left out."""
    commands = [f"(voice_{voice.name})\n"]
    for path, words in phrases.items():
        text = words.replace("\\", "").replace('"', "")
        commands.append(
            f"(Parameter.set 'Duration_Stretch {1 / paces[path]:.3f})\n"
            f'(unwind-protect (utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}") nil)\n'
        )
    with tempfile.NamedTemporaryFile("wb", suffix=".scm") as file:
        file.write("".join(commands).encode(voice.encoding))
        file.flush()
        subprocess.run(["festival", "-b", file.name], check=False, capture_output=True)


def duration(path: Path) -> float:
    """Seconds of a recording, 0 if there is none."""
    with contextlib.suppress(OSError, EOFError, wave.Error), wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()
    return 0.0


if __name__ == "__main__":
    main()
