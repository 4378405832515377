import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_recognisers import babble
from unispeech.formats.picture import draw
from unispeech.formats.spectrogram import spectrogram
from unispeech.formats.tiers import label_width, spread
from unispeech.results import Phone, Transcript

PHONES = [
    Phone(phone="t͡ʃʰ", start=0.1, end=0.12, score=0.9),
    Phone(phone="ɒ̃ː", start=0.12, end=0.14, score=0.2),
    Phone(phone="$x^2$", start=0.5, end=0.56, score=0.5),
]


def transcript(duration=1.0, phones=PHONES, audio="dir/a.wav"):
    return Transcript(audio=audio, duration=duration, text="", phones=phones)


# -- spectrogram ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [500, 2000, 6000])
def test_a_tone_stands_at_its_frequency(frequency):
    times = np.arange(16000) / 16000
    decibels, hop, window = spectrogram(np.sin(2 * np.pi * frequency * times), num_columns=100)
    loudest = decibels.mean(axis=0).argmax() * 8000 / (decibels.shape[1] - 1)
    assert abs(loudest - frequency) <= 31.25
    assert decibels.max() == 0.0
    assert decibels.min() >= -60.0
    assert hop * (len(decibels) - 1) + window <= 16000


def test_a_click_stands_at_its_time():
    waveform = np.zeros(16000)
    waveform[8000] = 1.0
    decibels, hop, window = spectrogram(waveform, num_columns=400)
    loudest = decibels.mean(axis=1).argmax() * hop + window / 2
    assert abs(loudest - 8000) <= hop


@pytest.mark.parametrize("num_samples", [0, 1, 127, 128, 129, 1000])
def test_any_length_has_a_spectrogram(num_samples):
    decibels, hop, _ = spectrogram(np.ones(num_samples, np.float32), num_columns=50)
    assert hop >= 1
    assert (len(decibels) == 0) == (num_samples < 128)
    assert np.isfinite(decibels).all()


# -- labels --------------------------------------------------------------------------------------------------


def test_combining_marks_take_no_room():
    assert label_width("ɒ̃") == label_width("a") < label_width("aː")
    assert label_width("") == label_width("a")


def test_labels_with_room_stay():
    assert spread([1.0, 3.0, 5.0], [1.0, 2.0, 1.0], low=0.0, high=6.0) == [1.0, 3.0, 5.0]
    assert spread([], [], low=0.0, high=1.0) == []


def test_crowded_labels_share_the_way():
    assert spread([2.0, 2.0], [1.0, 1.0], low=0.0, high=9.0) == [1.5, 2.5]
    assert spread([0.1, 0.2], [1.0, 1.0], low=0.0, high=9.0) == pytest.approx([0.5, 1.5])


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 2)), min_size=1, max_size=20).map(sorted),
)
def test_labels_never_overlap_and_stay_in_the_room(pairs):
    centres, widths = [c for c, _ in pairs], [w for _, w in pairs]
    places = spread(centres, widths, low=0.0, high=50.0)
    edges = [(place - width / 2, place + width / 2) for place, width in zip(places, widths, strict=True)]
    for (_, end), (start, _) in pairwise(edges):
        assert end <= start + 1e-6
    if sum(widths) <= 50.0:
        assert edges[0][0] >= -1e-6
        assert edges[-1][1] <= 50.0 + 1e-6


# -- the picture ---------------------------------------------------------------------------------------------


def test_a_png_has_room_for_the_recording(tmp_path):
    from matplotlib.image import imread

    draw(transcript(), babble(1.0), tmp_path / "short.png")
    draw(transcript(duration=6.0), babble(6.0), tmp_path / "long.png", reference=PHONES)
    short, long = imread(tmp_path / "short.png"), imread(tmp_path / "long.png")
    assert long.shape[1] > 1.5 * short.shape[1]  # wider
    assert long.shape[0] > short.shape[0]  # one tier more
    assert short[..., :3].std() > 0.1  # not blank


def test_an_svg_shows_every_phone_and_the_axes(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    shown = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: shown.append(self) or save(self, *args, **kwargs)
    )
    draw(transcript(), babble(1.0), tmp_path / "a.svg", reference=PHONES[:1])
    ElementTree.parse(tmp_path / "a.svg")
    rows = shown[0].axes
    assert [axes.get_ylabel() for axes in rows] == ["amplitude", "frequency (kHz)", "phones", "reference"]
    assert rows[-1].get_xlabel() == "time (s)"
    assert {axes.get_xlim() for axes in rows} == {(0.0, 1.0)}
    assert [text.get_text() for text in rows[2].texts] == [phone.phone for phone in PHONES]
    boxes = [patch.get_bbox() for patch in rows[2].patches[::2]]  # filled, then outlined
    assert [(box.x0, box.x1) for box in boxes] == [
        (pytest.approx(p.start), pytest.approx(p.end)) for p in PHONES
    ]
    assert "a.wav" in rows[0].get_title(loc="left")


@pytest.mark.parametrize("phone", ["t͡ʃʰ", "d̪", "ɡ͡b", "ǃ", "ʘ", "ɬ̊", "ɪ̯", "˥˩", "ə̃˞", "ɧ", "ʢ", "ⱱ"])
def test_ipa_glyphs_are_all_there(tmp_path, phone, recwarn):
    draw(
        transcript(phones=[Phone(phone=phone, start=0.1, end=0.2, score=1.0)]),
        babble(0.3),
        tmp_path / "a.png",
    )
    assert not [warning for warning in recwarn if "missing from font" in str(warning.message)]


@pytest.mark.parametrize("num_samples", [0, 100, 401])
def test_hardly_anything_is_drawn_too(tmp_path, num_samples):
    draw(transcript(num_samples / 16000, []), np.zeros(num_samples, np.float32), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_matplotlibs_settings_are_left_alone(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np\n"
        "before = matplotlib.rcParams.copy()\n"
        "from unispeech.formats.picture import draw\n"
        "from unispeech.results import Transcript\n"
        "draw(Transcript(audio='a', duration=0.1, text=''), np.zeros(1600), sys.argv[1])\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.png, \.svg, \.pdf, but is .*a\.gif"):
        draw(transcript(), babble(1.0), tmp_path / "a.gif")


def test_two_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`waveform` must have shape \(S,\), but has \(2, 100\)"):
        draw(transcript(), np.zeros((2, 100)), tmp_path / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"drawing needs matplotlib; .*unispeech\[draw\]"):
        draw(transcript(), babble(0.1), tmp_path / "a.png")
