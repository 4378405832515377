"""The scripts that make data to measure the multilingual recogniser on: a game's dialogues, shared phones."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
SCRIPT = """
dialogId("kuf-m-je", "font_small", "Oh no, not again...")
dialogStr("Jé, už zase...")

dialogId("kuf-v-noco", "font_big", "Well.")
dialogStr("No, co \\"naděláme\\".")

dialogId("kuf-v-unspoken", "font_big", "Never said.")
dialogStr("Nikdo to neřekl.")

dialogId("kuf-v-count", "font_big", "It takes %1 moves.")
dialogStr("Trvá to %1 tahů.")

dialogId("kuf-v-dots", "font_big", "...")
dialogStr("...")
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RECIPES / script, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


@pytest.fixture
def unpacked(tmp_path):
    game = tmp_path / "packages" / "usr" / "share" / "games" / "fillets-ng"
    for language in ("cs", "nl"):
        (game / "sound" / "briefcase" / language).mkdir(parents=True)
        for name in ("kuf-m-je", "kuf-v-noco", "kuf-v-count", "kuf-v-dots", "kuf-m-other"):
            (game / "sound" / "briefcase" / language / f"{name}.ogg").touch()
    (game / "script" / "briefcase").mkdir(parents=True)
    (game / "script" / "briefcase" / "dialogs_cs.lua").write_text(SCRIPT, "utf-8")
    (game / "script" / "briefcase" / "brief_dialogs_nl.lua").write_text(
        'dialogId("kuf-m-other", "font_small", "We are locked in.")\ndialogStr("We zitten vast.")\n', "utf-8"
    )
    return tmp_path / "packages"


def test_lines_that_are_spoken_and_can_be_read_make_a_manifest(unpacked, tmp_path):
    done = run("unheard_people.py", unpacked, "-o", tmp_path / "people")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "people" / "cs.jsonl").read_text("utf-8").splitlines()]
    assert {(line["text"], line["speaker"]) for line in lines} == {
        ("Jé, už zase...", "cs-small"),
        ('No, co "naděláme".', "cs-big"),
    }
    assert all(Path(line["audio"]).is_file() and line["language"] == "cs" for line in lines)
    dutch = [json.loads(line) for line in (tmp_path / "people" / "nl.jsonl").read_text("utf-8").splitlines()]
    assert [line["text"] for line in dutch] == ["We zitten vast."]


def test_the_same_lines_are_drawn_every_time(unpacked, tmp_path):
    for name in ("a", "b"):
        run("unheard_people.py", unpacked, "-o", tmp_path / name, "--utterances", "1")
    first = (tmp_path / "a" / "cs.jsonl").read_bytes()
    assert first == (tmp_path / "b" / "cs.jsonl").read_bytes() and first.count(b"\n") == 1


def test_a_folder_without_the_game_ends_it(tmp_path):
    done = run("unheard_people.py", tmp_path, "-o", tmp_path / "people")
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path}: no cs dialogue; unpack fillets-ng-data and -cs there"


def cuts_of(folder: Path, *phones: str) -> Path:
    folder.mkdir()
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        for number, text in enumerate(phones):
            supervision = {"id": str(number), "custom": {"phones": text}}
            recording = {"sources": [{"source": "sound.wav"}]}
            cut = {"id": str(number), "duration": 1.0, "supervisions": [supervision], "recording": recording}
            file.write(json.dumps(cut) + "\n")
    return folder


def test_phones_are_written_in_the_shared_set(tmp_path):
    done = run("shared_phones.py", cuts_of(tmp_path / "in", "d aːː tː", "a QQ"), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "{'QQ': 1}" in done.stderr
    with gzip.open(tmp_path / "out" / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        (cut,) = map(json.loads, file)
    assert cut["supervisions"][0]["custom"]["phones"] == "d aː t"
    assert cut["recording"]["sources"][0]["source"] == str((tmp_path / "in" / "sound.wav").resolve())


def test_what_has_no_phones_of_the_set_ends_it(tmp_path):
    done = run("shared_phones.py", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path}: no cuts.jsonl.gz; run `unispeech prepare` first"
    done = run("shared_phones.py", cuts_of(tmp_path / "in", "QQ"), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "no utterance whose phones are all in multilingual-phones.tsv"
    )
    assert not (tmp_path / "out").exists()
