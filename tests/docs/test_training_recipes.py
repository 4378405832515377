"""The scripts that make data to train the multilingual recogniser on: catalogues, syllables, other ends."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPES = Path(__file__).parents[2] / "recipes"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RECIPES / script, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def write_catalogue(path, messages):
    """Write a catalogue of gettext: originals in order, then translations, all with a zero behind."""
    path.parent.mkdir(parents=True)
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n"} | messages)
    values = {**messages, "": "Content-Type: text/plain; charset=UTF-8\n"}
    texts = [key.encode() for key in pairs] + [values[key].encode() for key in pairs]
    start = 28 + 8 * len(texts)
    table, blob = b"", b""
    for text in texts:
        table += struct.pack("<II", len(text), start + len(blob))
        blob += text + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    path.write_bytes(header + table + blob)


def test_phrases_of_a_catalogue_are_written_once_and_without_marks(tmp_path):
    write_catalogue(
        tmp_path / "te" / "LC_MESSAGES" / "app.mo",
        {
            "Open file": "~దస్త్రం తెరువు...", "Open a file": "దస్త్రం తెరువు", "Yes": "అవును",
            "Page %1": "పేజీ %1 ఇది", "Use HTML here": "HTML ఇక్కడ వాడు", "Long": " ".join(["ఒక"] * 13),
        },
    )  # fmt: skip
    done = run("catalogue_texts.py", tmp_path, "-o", tmp_path / "texts", "--languages", "te")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "texts" / "te.txt").read_text("utf-8") == "దస్త్రం తెరువు\n"


def test_esperanto_is_written_in_latin_letters(tmp_path):
    write_catalogue(tmp_path / "eo" / "LC_MESSAGES" / "app.mo", {"Open file": "Malfermi dosieron"})
    run("catalogue_texts.py", tmp_path, "-o", tmp_path / "texts", "--languages", "eo")
    assert (tmp_path / "texts" / "eo.txt").read_text("utf-8") == "Malfermi dosieron\n"


def test_a_language_without_catalogues_ends_it(tmp_path):
    done = run("catalogue_texts.py", tmp_path, "-o", tmp_path / "texts", "--languages", "mr")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: no translations to mr\n"


def test_syllables_are_written_in_pinyin(tmp_path):
    names = {
        "ㄅㄚ": "ba1", "ㄅㄚ1": "ba5", "ㄓ4": "zhi4", "ㄧㄣ2": "yin2", "ㄩㄢ2": "yuan2", "ㄐㄩㄢ3": "juan3",
        "ㄋㄩ3": "nü3", "ㄨㄥ1": "weng5", "ㄒㄩㄥ2": "xiong2", "ㄦ4": "er4",
    }  # fmt: skip
    for name in [*names, "ㄇ", "ㄧㄞ2"]:
        (tmp_path / "ogg" / name).mkdir(parents=True)
        (tmp_path / "ogg" / name / "3.ogg").touch()
    (tmp_path / "ogg" / "ㄅㄚ" / "5.ogg").touch()
    done = run("mandarin_syllables.py", tmp_path / "ogg", "-o", tmp_path / "out")
    assert done.stderr == "11 recordings; not read: ㄇ, ㄧㄞ2\n"
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text("utf-8").splitlines()
    ]
    assert {Path(line["audio"]).parent.name: line["text"] for line in lines} == names
    assert sorted(line["speaker"] for line in lines if line["text"] == "ba1") == ["gcin-3", "gcin-5"]
    assert len({line["id"] for line in lines}) == 11


def test_a_folder_without_syllables_ends_it(tmp_path):
    done = run("mandarin_syllables.py", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: no SYLLABLE/NUMBER.ogg whose name is Zhuyin\n"


@pytest.fixture
def corpus(tmp_path):
    """A corpus of one recording: half a second of tone between two of near silence."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    tone = 0.5 * np.sin(np.arange(8000) * 0.3)
    path = folder / "a.wav"
    soundfile.write(path, np.concatenate([np.zeros(8000), tone, np.zeros(8000)]), 16_000)
    cut = {
        "id": "a", "duration": 1.5, "supervisions": [{"language": "eo", "custom": {"phones": "t u"}}],
        "recording": {"sources": [{"source": str(path)}]},
    }  # fmt: skip
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(cut) + "\n")
    return folder


def test_ends_are_cut_and_padded_around_what_is_spoken(corpus, tmp_path):
    done = run("edges.py", corpus, "-o", tmp_path / "edges", "--hours", "0.02", "--seed", "1")
    assert done.returncode == 0, done.stderr
    with gzip.open(tmp_path / "edges" / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        cuts = [json.loads(line) for line in file]
    assert 72 <= sum(cut["duration"] for cut in cuts) < 76
    assert {cut["supervisions"][0]["custom"]["phones"] for cut in cuts} == {"t u"}
    assert len({cut["id"] for cut in cuts}) == len(cuts)
    lengths = [cut["duration"] for cut in cuts]
    # Of a bare recording that was cut, the tone and a margin on each side are left.
    assert min(lengths) == pytest.approx(0.54, abs=0.011)
    assert max(lengths) > 2.5
    for cut in cuts:
        sound, rate = soundfile.read(cut["recording"]["sources"][0]["source"])
        assert len(sound) / rate == pytest.approx(cut["duration"])
        loud = np.flatnonzero(np.abs(sound) > 0.1)
        assert (loud[-1] - loud[0]) / rate == pytest.approx(0.5, abs=0.01)


def test_descriptions_that_can_be_what_is_read_make_a_manifest(tmp_path):
    def add(name, text, seconds, language="ro"):
        folder = tmp_path / "stamps" / "animals"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}_desc_{language}.ogg", np.zeros(round(16_000 * seconds)), 16_000)
        (folder / f"{name}.txt").write_text(f"A thing.\nfr.utf8=Un.\n{text}", "utf-8")

    add("cat", "ro.utf8=O pisică neagră.\n", 1.5)
    add("slow", "ro.utf8=O pisică.\n", 9.0)
    add("fast", "ro.utf8=O pisică neagră pe un acoperiș.\n", 0.5)
    add("coin", "ro.utf8=O monedă de 25 de cenți.\n", 2.0)
    add("silent", "es.utf8=Un gato.\n", 1.0)
    add("hulda", "nn.utf8=Ein svart katt.\n", 1.5, language="nn")
    done = run("stamps.py", tmp_path / "stamps", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 recordings: " in done.stderr
    assert "ro 1 of 5" in done.stderr
    (line,) = (tmp_path / "out" / "stamps.jsonl").read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert entry["text"] == "O pisică neagră."
    assert (entry["language"], entry["speaker"], entry["id"]) == ("ro", "stamps-ro", "ro-animals-cat")
    assert Path(entry["audio"]).is_file()


def test_a_folder_without_descriptions_ends_it(tmp_path):
    done = run("stamps.py", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "no NAME_desc_LANGUAGE.ogg beside a NAME.txt" in done.stderr


def test_readers_that_are_measured_on_are_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    from multilingual_data import write_readers

    (tmp_path / "stamps").mkdir()
    with gzip.open(tmp_path / "stamps" / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        for number, (speaker, phones) in enumerate([("ro", "a"), ("el", "t"), ("da", "a"), ("es", "q!")]):
            supervision = {"id": str(number), "speaker": speaker, "custom": {"phones": phones}}
            cut = {"id": str(number), "duration": 1.0, "supervisions": [supervision]}
            file.write(json.dumps(cut | {"recording": {"sources": [{"source": "a.ogg"}]}}) + "\n")
    write_readers(tmp_path, "stamps", ("da", "el"), {"a": "a", "t": "t̪"})
    found = {}
    for name in ("train-stamps", "dev-da", "dev-el"):
        with gzip.open(tmp_path / name / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
            found[name] = [json.loads(line)["supervisions"][0]["custom"]["phones"] for line in file]
    assert found == {"train-stamps": ["a"], "dev-da": ["a"], "dev-el": ["t̪"]}
