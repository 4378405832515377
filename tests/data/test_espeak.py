import ctypes.util
import os
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.data import espeak_worker
from unispeech.data.espeak import EspeakProcess, lay_phones
from unispeech.data.espeak_phones import PhoneError

SENTENCES = {
    "en": "The little bottle fell, and all of us laughed for an hour.",
    "es": "La lluvia cae despacio sobre el viejo tejado.",
    "fr": "Nous avons mangé trois bonnes pommes rouges.",
    "it": "La nonna ha messo la pizza nel forno.",
    "ky": "Биз бүгүн тоого чыгабыз.",
    "nl": "De oude man wandelt elke dag langs het water.",
    "ru": "Мой друг читает интересную книгу у окна.",
    "sv": "Sju barn leker i den gröna trädgården.",
    "tr": "Küçük kedi bahçede güneşin altında uyuyor.",
    "tt": "Без бүген урманга барабыз.",
    "zh": "今天天气很好。",
    "de": "Der kleine Junge spielt gern im Garten.",
}


@pytest.fixture(scope="module")
def english(has_espeak: None) -> EspeakProcess:
    with EspeakProcess("en") as process:
        yield process


def test_phones_by_word(english: EspeakProcess) -> None:
    assert english.phones("Little judges!") == [["l", "ɪ", "ɾ", "ə", "l"], ["d͡ʒ", "ʌ", "d͡ʒ", "ɪ", "z"]]
    assert english.phones("") == []


@pytest.mark.parametrize("language", SENTENCES)
def test_speech_has_the_phones_of_its_text_in_order_of_time(language: str, has_espeak: None) -> None:
    text = SENTENCES[language]
    with EspeakProcess(language) as process:
        speech = process.synthesise(text, rate=150, pitch=60, pitch_range=30)
        phones = [phone for word in process.phones(text) for phone in word]
    assert [phone.phone for phone in speech.phones] == phones
    assert speech.samples.dtype == np.int16 and speech.sample_rate == 22050
    edges = [time for phone in speech.phones for time in (phone.start, phone.end)]
    assert edges == sorted(edges) and all(p.start < p.end for p in speech.phones)
    assert edges[0] >= 0 and edges[-1] <= len(speech.samples) / speech.sample_rate
    if language != "zh":
        assert " ".join(word.word for word in speech.words) == text.replace(",", "").strip(".")
        assert speech.words[0].start == edges[0] and speech.words[-1].end == edges[-1]


def test_marks_are_where_the_sound_is(english: EspeakProcess) -> None:
    """A silent closure before a burst, a loud vowel, silence in the pause of the comma."""
    speech = english.synthesise("A sea, a sea.")
    rate = speech.sample_rate

    def loudness(start: float, end: float) -> float:
        return float(np.abs(speech.samples[int(start * rate) : int(end * rate)].astype(float)).mean())

    vowels = [phone for phone in speech.phones if phone.phone == "iː"]
    assert len(vowels) == 2
    pause = (vowels[0].end, next(p.start for p in speech.phones if p.start >= vowels[0].end))
    assert pause[1] - pause[0] > 0.05
    assert loudness(vowels[0].start, vowels[0].end) > 20 * loudness(pause[0] + 0.02, pause[1])


@pytest.mark.parametrize(("language", "text"), [("es", "ma\u00f1ana"), ("ru", "\u0439\u043e\u0434")])
def test_accents_may_stand_apart_from_their_letters(language: str, text: str, has_espeak: None) -> None:
    with EspeakProcess(language) as process:
        said = [process.phones(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")]
        spoken = [process.synthesise(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")]
    assert said[0] == said[1]
    assert [phone.phone for phone in spoken[0].phones] == [phone.phone for phone in spoken[1].phones]
    assert [word.word for word in spoken[1].words or []] == [text]


@pytest.mark.parametrize(
    ("tag", "language", "text"),
    [("sv-SE", "sv", "Sju barn"), ("zh-CN", "zh", "\u4eca\u5929"), ("nl-NL", "nl", "langs")],
)
def test_a_tag_may_bear_its_region(tag: str, language: str, text: str, has_espeak: None) -> None:
    """Common Voice calls languages so."""
    with EspeakProcess(tag) as tagged, EspeakProcess(language) as plain:
        assert (tagged.voice, tagged.language) == (plain.voice, plain.language)
        assert tagged.phones(text) == plain.phones(text)


def test_cantonese_is_not_mandarin(has_espeak: None) -> None:
    with EspeakProcess("zh-HK") as process:
        assert process.language == "yue"


def test_a_fresh_process_repeats_itself_in_another_second(has_espeak: None) -> None:
    """espeak-ng starts its noise from the clock, once a second."""

    def record() -> list[bytes]:
        with EspeakProcess("en") as process:
            names = ("f2", "m3", "f2")
            return [process.synthesise("See the fish.", variant=name).samples.tobytes() for name in names]

    first = record()
    time.sleep(1.1)
    assert record() == first
    assert first[0] != first[2]


def test_a_variant_changes_the_voice_and_an_unknown_one_is_refused(english: EspeakProcess) -> None:
    with pytest.raises(
        ValueError, match=r"`variant` must be one of espeak-ng's variants, but is 'F2'; the nearest is"
    ):
        english.synthesise("Hello.", variant="F2")


@pytest.mark.parametrize(
    ("knob", "value", "line"),
    [
        ("rate", 40, r"`rate` must lie in \[80, 450\], but is 40"),
        ("pitch", 100, r"`pitch` must lie in \[0, 99\], but is 100"),
        ("pitch_range", -1, r"`pitch_range` must lie in \[0, 99\], but is -1"),
        ("word_gap", -1, r"`word_gap` must lie in \[0, 1000\], but is -1"),
    ],
)
def test_knobs_have_limits(english: EspeakProcess, knob: str, value: int, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        english.synthesise("Hello.", **{knob: value})


def test_an_unknown_voice_is_refused(has_espeak: None) -> None:
    with pytest.raises(ValueError, match=r"`language` must be one of espeak-ng, or .* but is 'xyzzy'"):
        EspeakProcess("xyzzy")


def test_a_missing_library_is_said_in_one_line() -> None:
    with pytest.raises(ImportError, match=r"^no-such-library\.so: cannot open[^\n]*$"):
        EspeakProcess("en", library="no-such-library.so")


def test_neither_package_nor_system_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'unispeech\[espeak\]'"):
        espeak_worker.find_library()
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.1")
    assert espeak_worker.find_library() == ("libespeak-ng.so.1", None)


def test_a_library_without_its_data_is_said(has_espeak: None, tmp_path: Path) -> None:
    library, data = espeak_worker.find_library()
    if data is None:
        pytest.skip("the system's library knows its data folder")
    with pytest.raises(ImportError, match=r"does not find its data|ended with status"):
        EspeakProcess("en", library=library, data=str(tmp_path))


def test_a_crashed_worker_says_its_last_words(has_espeak: None) -> None:
    with EspeakProcess("en") as process:
        with pytest.raises(
            ChildProcessError, match=r"^espeak-ng's process ended with status 1: KeyError: 'speak'$"
        ):
            process._ask({"voice": "en-us"})
        with pytest.raises(ChildProcessError, match="ended with status 1: KeyError"):
            process.phones("again")
    with pytest.raises(ChildProcessError, match="is closed"):
        process.phones("after the end")


def test_the_library_is_not_in_this_process(english: EspeakProcess) -> None:
    english.synthesise("Hello.")
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    assert "espeak" not in maps.read_text()


def test_faster_than_real_time(has_espeak: None) -> None:
    """Processor time of both processes, so that a busy machine does not matter."""
    before, seconds = os.times(), 0.0
    with EspeakProcess("en") as process:
        for _ in range(40):
            speech = process.synthesise(SENTENCES["en"])
            seconds += len(speech.samples) / speech.sample_rate
    factor = seconds / (sum(os.times()[:4]) - sum(before[:4]))
    print(f"espeak-ng: {factor:.0f} times real time")
    assert factor > 50


def test_long_marks_and_palatalisation_come_from_the_printed_phones() -> None:
    words = [["l", "ˈɛ", "tː"], ["nʲ", "ˈɑːɹ"]]
    marks = [
        ("l", 0),
        ("ɛ", 10),
        ("t", 20),
        ("", 30),
        ("n", 40),
        ("ʲ", 50),
        ("ɑːɹ", 60),
        ("", 100),
        ("", 105),
    ]
    assert lay_phones(words, marks, 110, "en") == [
        [("l", 0, 10), ("ɛ", 10, 20), ("tː", 20, 30)],
        [("nʲ", 40, 60), ("ɑː", 60, 84), ("ɹ", 84, 100)],
    ]


def test_a_phone_without_time_gets_the_end_of_the_one_before_or_the_start_of_the_next() -> None:
    assert lay_phones([["a", "l", "s"]], [("a", 0), ("l", 50), ("s", 50)], 90, "nl") == [
        [("a", 0, 30), ("l", 30, 50), ("s", 50, 90)]
    ]
    assert lay_phones([["w", "a"]], [("w", 10), ("a", 10)], 60, "fr") == [[("w", 10, 30), ("a", 30, 60)]]


@pytest.mark.parametrize(
    ("words", "marks", "line"),
    [
        ([["a", "b"]], [("a", 0), ("p", 5)], "must name the printed phones, but do not: p for b"),
        ([["a", "b"]], [("a", 0)], "must name the printed phones, but do not: nothing for b"),
        ([["a"]], [("a", 0), ("b", 5)], "must name the printed phones, but do not: 2 for 1"),
        ([["a"]], [("a", 9)], "a phone must have time, but has none: a"),
        ([["(en)"]], [("(en)", 0)], "but switches"),
    ],
)
def test_marks_that_do_not_fit_are_refused(
    words: list[list[str]], marks: list[tuple[str, int]], line: str
) -> None:
    with pytest.raises(PhoneError, match=line.replace("(", r"\(")):
        lay_phones(words, marks, 9, "en")


@given(st.lists(st.tuples(st.sampled_from(["a", "s", "", "əl"]), st.integers(2, 400)), max_size=30))
def test_laid_phones_cover_their_marks(sounds: list[tuple[str, int]]) -> None:
    start, marks = 0, []
    for name, length in sounds:
        marks.append((name, start))
        start += length
    (laid,) = lay_phones([[name for name, _ in sounds if name]], marks, start, "en") or [[]]
    assert "".join(phone for phone, _, _ in laid) == "".join(name for name, _ in sounds)
    assert sum(end - begin for _, begin, end in laid) == sum(length for name, length in sounds if name)
    edges = [edge for _, begin, end in laid for edge in (begin, end)]
    assert edges == sorted(edges) and all(begin < end for _, begin, end in laid)


@pytest.mark.shared_data
def test_real_texts_leave_nothing_but_ipa(shared_dir: Path, has_espeak: None) -> None:
    sizes = {}
    for language in ("en", "es", "fr", "it", "ky", "nl", "ru", "sv", "tr", "tt"):
        lines = (shared_dir / "data" / "text" / f"{language}.txt").read_text("utf-8").splitlines()[:150]
        inventory: Counter[str] = Counter()
        num_switched = 0
        with EspeakProcess(language) as process:
            for line in lines:
                try:
                    inventory.update(phone for word in process.phones(line) for phone in word)
                except PhoneError as error:
                    assert "switches" in str(error)
                    num_switched += 1
        assert num_switched < len(lines) / 2
        for phone in inventory:
            assert not set(phone) & set("ABCDEFGHIJKLMNOPQRSTUVWXYZg0123456789[](){}^'\"-.,;:_*!?#@&~|/\\"), (
                phone
            )
        sizes[language] = len(inventory)
    print(sizes)
    assert all(30 <= size <= 65 for size in sizes.values())


def test_a_voice_may_be_named_by_its_language(has_espeak: None) -> None:
    with EspeakProcess("en-gb") as british, EspeakProcess("en") as american:
        assert (british.phones("hot"), american.phones("hot")) == ([["h", "ɒ", "t"]], [["h", "ɑː", "t"]])
        assert (british.language, american.voice) == ("en", "en-us")
    with EspeakProcess("fr-FR") as french:
        assert french.phones("oui") == [["w", "i"]]
