"""The page in headless Chromium: a real recording, corrected by mouse and by keyboard, in all its looks."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt
from chromium import CONTROL, browser, find_chromium
from server_rig import listening, settings, wait_until

from unispeech.formats import FORMATS
from unispeech.formats.json import from_json
from unispeech.formats.textgrid import write_long
from unispeech.formats.textgrid_reader import read_textgrid
from unispeech.pipelines.transcriber import Transcriber

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "examples/recordings/moon.flac"
PAGE = ROOT / "src/unispeech/serving/page"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def expected():
    return Transcriber(ROOT / "examples/checkpoint", device="cpu").transcribe(RECORDING)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if find_chromium() is None:
        pytest.skip("there is no chromium; install Debian's package of that name")
    folder = tmp_path_factory.mktemp("browser")
    samples, rate = soundfile.read(RECORDING)
    soundfile.write(
        folder / "microphone.wav", np.concatenate([samples, np.zeros(rate)]), rate, subtype="PCM_16"
    )
    with (
        listening(settings(ROOT / "examples/checkpoint")) as (address, _),
        browser(folder / "profile", folder / "microphone.wav") as page,
    ):
        page.address, page.folder = address, folder / "downloads"
        page.folder.mkdir()
        behaviour = {"behavior": "allow", "downloadPath": str(page.folder)}
        page.call("Browser.setDownloadBehavior", **behaviour)
        yield page


@pytest.fixture
def opened(page):
    """The page with the recording transcribed, at desk width.

    Yields:
        The page.
    """
    page.events.clear()
    page.look(width=1280)
    page.go(page.address)
    page.wait("document.querySelector('#model').textContent.includes('phones')")
    page.give_file("#file", RECORDING)
    page.wait("/ phones in /.test(document.querySelector('#status').textContent)")
    page.wait("document.querySelectorAll('#phones [role=option]').length > 5")
    yield page
    assert page.complaints() == []
    own = [url for url in page.requests() if not url.startswith((page.address, "blob:", "about:", "data:"))]
    assert own == []


def options(page):
    return page.run(
        "[...document.querySelectorAll('#phones [role=option]')].map((e) => [e.textContent, e.ariaLabel])"
    )


def test_the_phones_of_a_recording_are_shown(opened, expected):
    assert opened.text("#text") == expected.text
    first, label = options(opened)[0]
    phone = expected.phones[0]
    assert first == phone.phone
    times = f"{phone.start:.2f} to {phone.end:.2f} seconds"
    assert label == f"{phone.phone}, {times}, score {round(phone.score * 100)} percent"
    # Something is drawn: neither picture is of one colour.
    for name in ("waveform", "spectrogram", "axis"):
        colours = opened.run(
            f"(() => {{ const c = document.querySelector('#{name}');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const pixels = Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 4).join());"
            "return new Set(pixels).size })()"
        )
        assert colours > 1, name


def test_phones_are_chosen_and_corrected_by_keyboard(opened, expected):
    opened.run("document.querySelector('#phones').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    # Told with the next picture, which comes when there is time for it.
    active = "document.querySelector('#phones').getAttribute('aria-activedescendant')"
    opened.wait(f"{active} === 'phone-1'")
    opened.press("Enter")
    assert opened.run("document.activeElement.id") == "symbol"
    opened.type("q")
    opened.press("Enter")
    phones = [phone.phone for phone in expected.phones]
    assert opened.text("#text") == " ".join([phones[0], "q", *phones[2:]])
    assert opened.run("document.activeElement.id") == "phones"
    opened.press("Delete")
    assert opened.text("#text") == " ".join([phones[0], *phones[2:]])
    opened.press("s")
    assert opened.text("#text") == " ".join([phones[0], phones[2], *phones[2:]])
    for _ in range(3):
        opened.press("z", CONTROL)
    assert opened.text("#text") == expected.text
    opened.press("y", CONTROL)
    assert opened.text("#text").split()[1] == "q"
    opened.press("End")
    opened.wait(f"{active} === 'phone-{len(phones) - 1}'")


def test_boundaries_move_by_keyboard_mouse_and_number(opened, expected):
    opened.run("document.querySelector('#phones').focus()")
    for _ in range(3):
        opened.press("ArrowRight")
    phone = expected.phones[2]
    value = "document.querySelector('#handle-end').ariaValueNow"
    opened.wait(f"Math.abs(Number({value}) - {phone.end}) < 0.001")
    opened.run("document.querySelector('#handle-end').focus()")
    opened.press("ArrowRight")
    assert opened.wait(f"Number({value}) > {phone.end + 0.001} && Number({value})") == pytest.approx(
        phone.end + 0.005, abs=1e-3
    )
    pixels = opened.run("document.querySelector('#track').getBoundingClientRect().width") / expected.duration
    opened.drag("#handle-start", 10)
    start = opened.wait(
        "(() => { const v = Number(document.querySelector('#start').value);"
        f"return v > {phone.start} + 0.01 && v }})()"
    )
    assert start == pytest.approx(phone.start + 10 / pixels, abs=0.005)
    opened.run("document.querySelector('#end').focus()")
    opened.run("document.querySelector('#end').value = '0.4'")
    opened.run("document.querySelector('#end').dispatchEvent(new Event('change'))")
    assert float(opened.run("document.querySelector('#end').value")) == 0.4
    # A drag is one change.
    for _ in range(3):
        opened.click("#undo")
    assert opened.run("document.querySelector('#undo').disabled")


def test_a_click_plays_and_escape_stops(opened):
    opened.click("#waveform")
    opened.wait("document.querySelector('#play').textContent === 'Stop'")
    assert not opened.run("document.querySelector('#cursor').hidden")
    opened.press("Escape")
    opened.wait("document.querySelector('#play').textContent === 'Play'")
    opened.click("#phones [role=option]")
    opened.wait("document.querySelector('#editor').disabled === false")
    opened.wait("document.querySelector('#play').textContent === 'Play'")


def test_files_are_written_as_the_command_writes_them(opened, expected):
    for name in ("textgrid", "srt", "json"):
        opened.click(f"#save-{name}")
    paths = {name: opened.folder / f"moon.{name}" for name in ("TextGrid", "srt", "json")}
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths.values()))
    text = paths["json"].read_text(encoding="utf-8")
    found = from_json(text)
    assert (found.text, found.audio) == (expected.text, "moon.flac")
    assert [(p.phone, p.start, p.end) for p in found.phones] == [
        (p.phone, round(p.start, 4), round(p.end, 4)) for p in expected.phones
    ]
    assert json.loads(text)["segments"] == json.loads(FORMATS["json"](expected))["segments"]
    rounded = replace(expected, duration=round(expected.duration, 4))  # as the server answers
    grid = read_textgrid(paths["TextGrid"])
    assert write_long(grid) + "\n" == paths["TextGrid"].read_text(encoding="utf-8")
    assert paths["TextGrid"].read_text(encoding="utf-8") == FORMATS["TextGrid"](rounded) + "\n"
    assert paths["srt"].read_text(encoding="utf-8") == FORMATS["srt"](expected) + "\n"
    assert len(list(srt.parse(paths["srt"].read_text(encoding="utf-8")))) >= 1


def test_the_microphone_is_heard_and_transcribed(page):
    page.events.clear()
    page.go(page.address)
    page.wait("document.querySelector('#model').textContent.includes('phones')")
    page.click("#record")
    page.wait("document.querySelector('#live').textContent.trim().split(/\\s+/).length > 3")
    assert page.text("#record") == "Stop"
    page.click("#record")
    page.wait("/ phones in /.test(document.querySelector('#status').textContent)")
    assert len(page.text("#text").split()) > 3
    assert page.complaints() == []


def test_what_is_no_recording_is_told(page, tmp_path):
    page.go(page.address)
    page.wait("document.querySelector('#model').textContent.includes('phones')")
    (tmp_path / "notes.wav").write_text("hello")
    page.give_file("#file", tmp_path / "notes.wav")
    page.wait("document.querySelector('#status.wrong') !== null")
    assert page.text("#status").startswith("notes.wav: must be audio")


def test_every_control_has_a_name_for_screen_readers(opened):
    opened.run("document.querySelector('#phones').focus()")
    opened.press("ArrowRight")
    opened.wait("!document.querySelector('#handle-end').hidden")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    controls = {
        "button",
        "textbox",
        "combobox",
        "spinbutton",
        "slider",
        "listbox",
        "option",
        "toolbar",
        "image",
    }
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in controls
    ]
    assert {role for role, _ in found} >= {"button", "listbox", "option", "slider", "spinbutton", "image"}
    assert [role for role, name in found if not name] == []
    order = opened.run(
        "[...document.querySelectorAll('input, button, [tabindex]')].filter((e) => e.checkVisibility())"
        ".map((e) => e.id)"
    )
    assert order == sorted(order, key=order.index)
    assert order[:4] == ["file", "record", "play", "zoom-in"]
    assert opened.run("Math.max(...[...document.querySelectorAll('[tabindex]')].map((e) => e.tabIndex))") == 0


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_looks(opened, tmp_path, width, dark):
    opened.run("document.querySelector('#phones').focus()")
    for _ in range(4):
        opened.press("ArrowRight")
    opened.look(width=width, height=900 if width > 600 else 780, dark=dark)
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    small = opened.run(
        "[...document.querySelectorAll('button, input')].filter((e) => e.checkVisibility())"
        ".filter((e) => e.getBoundingClientRect().height < 39).map((e) => e.id)"
    )
    assert small == []
    background = opened.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 21, 27)" if dark else "rgb(255, 255, 255)")
    folder = Path(os.environ.get("UNISPEECH_SCREENSHOTS", tmp_path))
    opened.shoot(folder / f"page-{width}-{'dark' if dark else 'light'}.png")


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_have_contrast(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    pairs = [("ink", "paper"), ("ink", "raised"), ("ink", "chosen"), ("faint", "paper"), ("faint", "raised")]
    for front, back in [*pairs, ("on-accent", "accent"), ("warn", "paper")]:
        light, dark = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back)


def test_the_page_asks_nothing_of_other_hosts():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|//cdn|<style|style=|\son\w+=", text), path.name
