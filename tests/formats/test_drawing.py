from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tiny_recognisers import LETTERS, PHONES, tiny_recogniser, write_babble
from unispeech import Transcriber
from unispeech.formats import drawing, picture
from unispeech.formats.drawing import draw_recording
from unispeech.formats.json import to_json
from unispeech.formats.probabilities import FrameProbabilities, panel_height
from unispeech.formats.textgrid import to_textgrid


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber(tiny_recogniser(PHONES), vocabulary=PHONES)


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return write_babble(tmp_path_factory.mktemp("audio") / "a.wav", 2.0)


@pytest.fixture
def figures(monkeypatch):
    shown = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: shown.append(figure))
    return shown


def labels(figure):
    return {axes.get_ylabel(): [text.get_text() for text in axes.texts] for axes in figure.axes}


def test_a_model_adds_phones_and_probabilities(tmp_path, audio, transcriber, figures):
    draw_recording(audio, tmp_path / "a.png", transcriber=transcriber)
    [figure] = figures
    heard = transcriber.transcribe(audio)
    assert labels(figure)["phones"] == [phone.phone for phone in heard.phones]
    rows = [text.get_text() for text in figure.axes[-1].texts]
    assert rows[-1] == "blank"
    assert {phone.phone for phone in heard.phones} <= set(rows)
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 2.0)}


def test_words_have_a_tier(tmp_path, audio, figures):
    transcriber = Transcriber(tiny_recogniser(LETTERS), vocabulary=LETTERS)
    draw_recording(audio, tmp_path / "a.png", transcriber=transcriber)
    assert list(labels(figures[0]))[2:4] == ["words", "phones"]
    assert "|" not in labels(figures[0])["phones"]


def test_probabilities_are_those_of_the_network(tmp_path, audio, transcriber, figures):
    draw_recording(audio, tmp_path / "a.png", transcriber=transcriber)
    log_probs = np.concatenate(list(transcriber.log_probs(audio)))
    images = figures[0].axes[-1].images
    assert np.allclose(images[-1].get_array()[0], np.exp(log_probs[:, PHONES.blank]), atol=1e-6)
    left, right, _, _ = images[0].get_extent()
    assert left == pytest.approx(0.0025)  # half a hop before the centre of the first frame
    assert right == pytest.approx(0.0025 + 0.02 * len(log_probs))


def test_a_part_is_drawn_in_the_time_of_the_whole(tmp_path, audio, transcriber, figures):
    draw_recording(audio, tmp_path / "a.png", transcriber=transcriber, start=0.5, end=1.5)
    [figure] = figures
    assert {axes.get_xlim() for axes in figure.axes} == {(0.5, 1.5)}
    assert "0.50 to 1.50 s of 2.00 s" in figure.axes[0].get_title(loc="left")
    lines = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert 0.5 <= lines.x0 < lines.x1 <= 1.5
    boxes = [patch.get_bbox() for patch in figure.axes[2].patches]
    assert boxes
    assert all(0.5 <= box.x0 <= box.x1 <= 1.5 for box in boxes)


def test_transcripts_of_files_are_drawn(tmp_path, audio, transcriber, figures):
    heard = transcriber.transcribe(audio)
    (tmp_path / "a.json").write_text(to_json(heard), encoding="utf-8-sig")
    (tmp_path / "a.TextGrid").write_text(to_textgrid(heard))
    symbols = [phone.phone for phone in heard.phones]
    draw_recording(audio, tmp_path / "a.png", transcript=tmp_path / "a.json")
    draw_recording(audio, tmp_path / "a.png", transcript=tmp_path / "a.TextGrid")
    draw_recording(audio, tmp_path / "a.png", transcript=tmp_path / "a.json", transcriber=transcriber)
    alone, grid, both = map(labels, figures)
    assert alone["phones"] == grid["phones"] == both["phones"] == both["reference"] == symbols
    assert len(figures[0].axes) == len(figures[1].axes) == 3


def test_sound_alone_is_drawn_too(tmp_path, audio):
    draw_recording(audio, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_silence_has_no_probabilities(tmp_path, transcriber, figures):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    draw_recording(tmp_path / "a.wav", tmp_path / "a.png", transcriber=transcriber)
    assert labels(figures[0])["phones"] == []


def test_rows_are_the_probable_symbols_in_the_order_of_time():
    probs = np.array([[0.9, 0.05, 0.05, 0.0], [0.1, 0.0, 0.9, 0.0], [0.2, 0.4, 0.4, 0.0]])
    made = FrameProbabilities(probs=probs, symbols=["_", "b", "a", "c"], blank=0, start=0.0, hop=0.02)
    assert made.shown == [2, 1, 0]
    many = replace(made, probs=np.eye(100), symbols=[str(i) for i in range(100)])
    assert len(many.shown) == 41
    assert panel_height(many) > panel_height(made)


def test_long_labels_are_cut_and_long_recordings_refused(tmp_path, figures, monkeypatch):
    audio = write_babble(tmp_path / "b.wav", 3.0)
    text = 'File type = "ooTextFile"\n"TextGrid"\n0 3 <exists> 1 "IntervalTier" "a very long name" 0 3 2\n'
    text += f'0 1.5 "{"word " * 40}" 1.5 3 "short"\n'
    (tmp_path / "b.TextGrid").write_text(text)
    draw_recording(audio, tmp_path / "b.png", transcript=tmp_path / "b.TextGrid")
    [long, short] = labels(figures[0])["a very lo…"]
    assert long.endswith("…")
    assert len(long) < 60
    assert short == "short"
    monkeypatch.setattr(drawing, "MAX_SECONDS", 2.0)
    with pytest.raises(ValueError, match=r"b.wav: a picture must hold at most 2 s, but would hold 3; draw a"):
        draw_recording(audio, tmp_path / "b.png")


@pytest.mark.parametrize(("start", "end"), [(2.0, None), (2.0, 1.0), (-0.1, None), (float("nan"), None)])
def test_an_empty_part_is_refused(tmp_path, audio, start, end):
    with pytest.raises(ValueError, match=r"`start` must lie in \[0, \d\), before the end of the part"):
        draw_recording(audio, tmp_path / "a.png", start=start, end=end)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0.0, 0.0, "`end` must be above 0, but is 0."),
        (0.0, float("nan"), "`end` must be above 0, but is nan."),
        (1.0, 1.0, "`end` must lie behind `start`, which is 1, but is 1."),
        (1.5, 0.5, "`end` must lie behind `start`, which is 1.5, but is 0.5."),
    ],
)
def test_an_end_that_is_none_is_blamed_itself(tmp_path, audio, start, end, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        draw_recording(audio, tmp_path / "a.png", start=start, end=end)


def test_a_broken_transcript_is_named(tmp_path, audio):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"t\.json: `text` must be one JSON object"):
        draw_recording(audio, tmp_path / "a.png", transcript=tmp_path / "t.json")
