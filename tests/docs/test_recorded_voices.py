"""The script that lets other synthesisers speak, with a program of ours in the place of theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "recorded_voices.py"

FAKE = f"""#!{sys.executable}
import sys, wave
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open({{record!r}}, "a") as file:
    print(arguments["-voice"], arguments["-t"], sep="\\t", file=file)
with wave.open(arguments["-o"], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(bytes(32000 if "silent" not in arguments["-t"] else 200))
"""


def speak(folder: Path) -> list[dict[str, object]]:
    """What the script says of three utterances of each voice of flite."""
    (folder / "flite").write_text(FAKE.format(record=str(folder / "record.txt")))
    (folder / "flite").chmod(0o755)
    options = ["-o", folder / "out", "--only", "flite", "--utterances", "3"]
    subprocess.run(
        [sys.executable, SCRIPT, folder, *options], check=True, env={"PATH": str(folder)}, capture_output=True
    )
    return [json.loads(line) for line in (folder / "out" / "manifest.jsonl").read_text("utf-8").splitlines()]


def test_each_voice_speaks_lines_that_can_be_read(tmp_path):
    (tmp_path / "en-us.txt").write_text("It has 3 rooms.\nEvery NATO room.\n")
    (tmp_path / "w-en.txt").write_text("green\nblue, sky\n")
    lines = speak(tmp_path)
    assert len(lines) == 9
    assert {line["speaker"] for line in lines} == {"flite-awb", "flite-rms", "flite-slt"}
    assert {line["language"] for line in lines} == {"en-us"}
    assert {word for line in lines for word in str(line["text"]).split()} <= {"green", "blue,", "blue", "sky"}
    assert all((tmp_path / "out" / str(line["audio"])).is_file() for line in lines)
    assert {line["duration"] for line in lines} == {1.0}


def test_what_is_there_is_not_spoken_again_and_silence_is_left_out(tmp_path):
    (tmp_path / "en-us.txt").write_text("silent\n")
    (tmp_path / "w-en.txt").write_text("loud\n")
    lines = speak(tmp_path)
    spoken = (tmp_path / "record.txt").read_text().splitlines()
    assert len(spoken) == 9
    assert sorted(str(line["text"]) for line in lines) == sorted(
        text for text in (line.split("\t")[1] for line in spoken) if "silent" not in text
    )
    (tmp_path / "out" / "flite-rms" / "0001.wav").unlink()
    assert speak(tmp_path) == lines
    assert len((tmp_path / "record.txt").read_text().splitlines()) == 10


def test_a_text_without_a_word_that_can_be_read_ends_it(tmp_path):
    for name in ("en-us", "w-en"):
        (tmp_path / f"{name}.txt").write_text("1234\n")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        speak(tmp_path)
    assert "no line of en-us, w-en is of words that awb can read" in raised.value.stderr.decode()


JAPANESE = f"""#!{sys.executable}
import sys, wave
words = sys.stdin.read()
if "クヮ" in words:
    sys.exit(1)
with wave.open(sys.argv[sys.argv.index("-ow") + 1], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(bytes(32000))
"""


def test_japanese_is_of_kana_and_words_that_are_refused_are_left_out(tmp_path):
    (tmp_path / "open_jtalk").write_text(JAPANESE)
    (tmp_path / "open_jtalk").chmod(0o755)
    (tmp_path / "w-ja.txt").write_text("漢字 かな\nクヮ\nコーヒー\n")
    options = ["-o", tmp_path / "out", "--only", "open_jtalk", "--utterances", "20"]
    environment = {"PATH": str(tmp_path)}
    subprocess.run(
        [sys.executable, SCRIPT, tmp_path, *options], check=True, env=environment, capture_output=True
    )
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text("utf-8").splitlines()
    ]
    assert {word for line in lines for word in line["text"].split()} == {"かな", "コーヒー"}
    assert {line["speaker"] for line in lines} == {
        "open_jtalk-nitech_jp_atr503_m001", "open_jtalk-mei_normal"
    }  # fmt: skip
    assert len(lines) < 40
