"""`unispeech prepare` as a user runs it."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unispeech.cli import main
from unispeech.data import g2p
from unispeech.data.cuts import CutFiles
from unispeech.text import Vocabulary


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder of two speakers, one of whom left a sentence without a recording."""
    folder = tmp_path / "corpus"
    for name, text in {"anna/1": "ja so", "anna/2": "so", "ben/1": "ja"}.items():
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
        path.with_suffix(".txt").write_text(text)
    (folder / "ben" / "2.txt").write_text("nein")
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Call the command in this process: exit status, stdout, stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_a_folder_becomes_cuts(corpus, tmp_path):
    arguments = [corpus, "-o", tmp_path / "out", "--units", "characters", "--language", "de"]
    done = subprocess.run(
        [sys.executable, "-m", "unispeech", "prepare", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "4 lines: 3 kept, 1 rejected, 0 not asked for" in done.stderr
    assert "und      rejected    1     0.000 h  no-recording" in done.stderr
    assert [(cut.id, cut.supervisions[0].speaker) for cut in CutFiles(tmp_path / "out")] == [
        ("anna/1", "anna"), ("anna/2", "anna"), ("ben/1", "ben"),
    ]  # fmt: skip
    assert set(Vocabulary.load(tmp_path / "out").symbols) == {"<pad>", "|", *"ajos"}


def test_phones_by_lexicon(corpus, tmp_path, capsys):
    (tmp_path / "lexicon").write_text("ja j aː\nso z oː\n")
    status, _, printed = run(
        capsys, corpus, "-o", tmp_path / "out", "--lexicon", tmp_path / "lexicon", "--word-boundaries"
    )
    assert status == 0 and "3 kept" in printed
    assert next(iter(CutFiles(tmp_path / "out"))).supervisions[0].custom["phones"] == "j aː | z oː"
    (tmp_path / "short").write_text("ja j aː\n")
    status, _, printed = run(capsys, corpus, "-o", tmp_path / "out", "--lexicon", tmp_path / "short")
    assert status == 0 and "1 kept" in printed and "no-phones" in printed


@pytest.mark.parametrize(
    ("extra", "asked"),
    [
        (("--g2p", "epitran:deu-Latn"), [("epitran", "deu-Latn")]),
        (("--g2p", "espeak", "--language", "de"), [("espeak", "de")]),
    ],
)
def test_phones_by_rule(corpus, tmp_path, capsys, monkeypatch, extra, asked):
    opened = []

    class Speller:
        def phones(self, text: str) -> list[list[str]]:
            return [list(word) for word in text.split()]

    @contextmanager
    def open_phonemizer(method, *, language, lexicon):
        opened.append((method, language))
        yield Speller()
        opened.append("closed")

    monkeypatch.setattr(g2p, "open_phonemizer", open_phonemizer)
    status, _, printed = run(capsys, corpus, "-o", tmp_path / "out", *extra)
    assert status == 0 and "3 kept" in printed and opened == [*asked, "closed"]
    assert next(iter(CutFiles(tmp_path / "out"))).supervisions[0].custom["phones"] == "j a s o"


def test_a_language_that_cannot_be_said_is_asked_for_once(corpus, tmp_path, capsys, monkeypatch):
    """Asking espeak-ng takes a process."""
    asked = []

    @contextmanager
    def refuse(method, *, language, lexicon):
        asked.append(language)
        raise ValueError("no such language")
        yield

    monkeypatch.setattr(g2p, "open_phonemizer", refuse)
    status, _, printed = run(capsys, corpus, "-o", tmp_path / "out", "--g2p", "espeak", "--language", "qq")
    assert (status, asked) == (2, ["qq"]) and "all 4 lines were rejected" in printed


def test_an_earlier_vocabulary_and_conditions(corpus, tmp_path, capsys):
    base = (corpus, "--units", "characters")
    run(capsys, *base, "-o", tmp_path / "ben", "--where", "speaker=ben")
    status, _, printed = run(
        capsys, *base, "-o", tmp_path / "anna", "--where", "speaker!=ben", "--vocabulary", tmp_path / "ben"
    )
    assert status == 2 and "something must be left to train on" in printed
    (row, *_) = map(json.loads, (tmp_path / "anna" / "rejected.jsonl").read_text().splitlines())
    assert (
        row["reason"] == "unknown-symbol" and "'s', 'o'" in row["detail"] and row["source"].endswith("1.wav")
    )


def test_classes(corpus, tmp_path, capsys):
    for path in corpus.rglob("*.txt"):
        path.unlink()
    assert run(capsys, corpus, "-o", tmp_path / "all", "--units", "label")[0] == 0
    assert json.loads((tmp_path / "all" / "labels.json").read_text()) == {"anna": 0, "ben": 1}
    where = ("--where", "label=ben", "--vocabulary", tmp_path / "all")
    assert run(capsys, corpus, "-o", tmp_path / "ben", "--units", "label", *where)[0] == 0
    assert json.loads((tmp_path / "ben" / "labels.json").read_text()) == {"anna": 0, "ben": 1}


def test_a_broken_recording_sets_the_exit_status(corpus, tmp_path, capsys):
    (corpus / "anna" / "1.wav").write_text("text")
    status, _, printed = run(capsys, corpus, "-o", tmp_path / "out", "--units", "characters")
    assert (
        status == 1 and "unreadable-audio" in printed and str(tmp_path / "out" / "rejected.jsonl") in printed
    )


def test_stated_durations_are_compared(corpus, tmp_path, capsys):
    rows = [{"audio": "anna/1.wav", "phones": "a", "duration": 2.5}, {"audio": "anna/2.wav", "phones": "a"}]
    (corpus / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, _, printed = run(capsys, corpus / "manifest.jsonl", "-o", tmp_path / "out")
    assert status == 0 and "1 stated durations are off by more than 0.1 s" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "speaker"), "`where` must be field=value or field!=value, but is 'speaker'"),
        (("--g2p", "magic"), "`g2p` must be epitran or espeak, but is 'magic'"),
        (("--g2p", "epitran", "--lexicon", "x"), "`lexicon` and `g2p` must not be given together"),
        (("--lexicon", "nowhere"), "nowhere: there is no such lexicon"),
        (("--format", "kaldi"), "wav.scp: a Kaldi directory must hold this file"),
        (
            ("--part", "dev", "--units", "characters"),
            "`part` must be one of none, it has no parts, but is dev",
        ),
        (("--units", "label", "--vocabulary", "nowhere"), "labels.json: no such file"),
    ],
)
def test_wrong_usage_is_one_line(corpus, tmp_path, capsys, arguments, message):
    status, _, printed = run(capsys, corpus, "-o", tmp_path / "out", *arguments)
    assert status == 2 and message in printed and printed.count("\n") == 1


def test_a_table_of_the_original(corpus, tmp_path, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "train.tsv").write_text("/elsewhere\nanna/1.flac\t16000\t16000\nben/1.flac\t16000\t16000\n")
    (tables / "train.id").write_text("0 1\n1\n")
    (tables / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tables / "phonesMatches_reduced.json").write_text('{"x": 0, "tʃ": 1}')
    arguments = [tables, "-o", tmp_path / "out", "--recordings", corpus]
    status, _, printed = run(capsys, *arguments)
    assert (
        status == 2 and "name the one that counts with --dictionary" in printed and printed.count("\n") == 1
    )
    status, _, printed = run(capsys, *arguments, "--dictionary", tables / "phonesMatches_reduced.json")
    assert status == 0 and "2 kept" in printed
    cuts = list(CutFiles(tmp_path / "out"))
    assert [(cut.id, cut.supervisions[0].custom["phones"]) for cut in cuts] == [
        ("anna/1", "x tʃ"), ("ben/1", "tʃ"),
    ]  # fmt: skip


def test_shards(corpus, tmp_path, capsys):
    status, _, printed = run(
        capsys, corpus, "-o", tmp_path / "out", "--units", "characters", "--language", "de", "--shards", 2
    )
    assert status == 0 and "3 kept" in printed
    assert sorted(path.name for path in (tmp_path / "out/shar").glob("*.tar")) == [
        "recording.000000.tar", "recording.000001.tar",
    ]  # fmt: skip
    assert [cut.id for cut in CutFiles(tmp_path / "out")] == ["anna/1", "anna/2", "ben/1"]
    status, _, printed = run(
        capsys, corpus, "-o", tmp_path / "new", "--units", "characters", "--shards", 2, "--shard-hours", 1
    )
    assert status == 2 and "a shard must have one limit" in printed and printed.count("\n") == 1


def test_speech_without_transcripts_is_kept_for_pretraining(tmp_path, capsys):
    for name in ("one", "two"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    (tmp_path / "two.txt").write_text("spoken")
    status, _, told = run(capsys, tmp_path, "-o", tmp_path / "out", "--units", "none", "--language", "ky")
    assert status == 0
    assert "2 kept, 0 rejected" in told
    cuts = list(CutFiles(tmp_path / "out"))
    assert [cut.supervisions[0].text for cut in cuts] == [None, "spoken"]
    assert {cut.supervisions[0].language for cut in cuts} == {"ky"}
    assert not (tmp_path / "out" / "vocab.json").exists()
