import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny_recognisers import PHONES, save_recogniser
from unispeech.cli import main
from unispeech.decoding.ngram import NgramModel
from unispeech.metrics import error_rate
from unispeech.results import Phone, Transcript
from unispeech.text import Vocabulary

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CHECKPOINT = EXAMPLES / "checkpoint"
MAX_CHECKPOINT_BYTES = 40_000_000
MAX_PER = 15.0
"""The demo printed 5.7 %, with this checkpoint and the one before."""


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo"]


def test_the_demo_runs_within_a_minute(tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", tmp_path], capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, "")
    [total] = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["all"]]
    assert 0.0 <= float(total[1]) < MAX_PER
    assert "95 % interval" in done.stdout
    names = sorted(path.stem for path in (EXAMPLES / "recordings").glob("*.flac"))
    assert len(names) == 6
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == names
    assert time.monotonic() - started < 60


def test_the_checkpoint_is_small_and_has_its_card():
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir() if path.is_file()) <= MAX_CHECKPOINT_BYTES
    assert (CHECKPOINT / "README.md").is_file()


def test_the_carried_3_grams_know_the_phones_of_the_checkpoint_and_help_it(capsys):
    recordings = EXAMPLES / "recordings"
    entries = json.loads((recordings / "reference.json").read_text(encoding="utf-8"))
    said = [[item["phone"] for item in entry["phones"]] for entry in entries]
    found = []
    for options in (
        [],
        ["--lm", str(CHECKPOINT / "phones.arpa.gz"), "--lm-weight", "0.2", "--lm-bonus", "1"],
    ):
        paths = [str(recordings / entry["audio"]) for entry in entries]
        with pytest.raises(SystemExit) as left:
            main(["transcribe", *paths, "-m", str(CHECKPOINT), *options])
        assert left.value.code == 0
        heard = [line.split("\t")[1].split() for line in capsys.readouterr().out.splitlines()]
        found.append(error_rate(said, heard).rate)
    assert found[1] <= found[0] < MAX_PER / 100
    model = NgramModel.load(CHECKPOINT / "phones.arpa.gz")
    assert model.words <= set(Vocabulary.load(CHECKPOINT).symbols)
    assert model.order == 3


def test_said_and_heard_stand_beside_each_other(capsys, tmp_path, demo):
    model = save_recogniser(tmp_path / "model")
    entry = json.loads((EXAMPLES / "recordings" / "reference.json").read_text(encoding="utf-8"))[3]
    shutil.copy(EXAMPLES / "recordings" / entry["audio"], tmp_path)
    (tmp_path / "reference.json").write_text(json.dumps([entry]), encoding="utf-8")
    assert demo.demo(tmp_path / "pictures", checkpoint=model, recordings=tmp_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert entry["audio"] in out
    assert entry["text"] in out
    assert [path.stem for path in (tmp_path / "pictures").iterdir()] == [Path(entry["audio"]).stem]
    lines = [line.split() for line in out.splitlines()]
    said = [line for line in lines if line[:1] == ["said"]]
    heard = [line for line in lines if line[:1] == ["heard"]]
    assert len(said) == len(heard) > 1
    assert [len(line) for line in said] == [len(line) for line in heard]
    assert ["all"] in [line[:1] for line in lines]


def test_what_was_heard_rightly_is_told_from_the_rest(demo):
    def phones(*rows):
        return [Phone(phone=p, start=start, end=start + 0.1, score=1.0) for p, start in rows]

    example = demo.Example(
        path=Path("a.flac"),
        text="",
        said=phones(("a", 0.0), ("ɹ", 0.1), ("ŋ", 0.2)),
        heard=Transcript(
            audio="a.flac", duration=1.0, text="", phones=phones(("a", 0.0), ("iː", 0.1), ("ŋ", 0.9))
        ),
    )
    assert [(s.phone, h.phone) for s, h in example.pairs] == [("a", "a"), ("ɹ", "iː"), ("ŋ", "ŋ")]
    assert demo.heard_cell(*example.pairs[0]).plain == "a"
    assert demo.heard_cell(*example.pairs[1]).plain == "[iː]"
    assert demo.heard_cell(example.said[0], None).plain == "[-]"
    assert demo.times_line([example]).startswith("1 of the 2 phones")
    assert demo.rate_of([example]).rate == pytest.approx(1 / 3)


def test_a_phone_that_the_vocabulary_writes_as_two_shares_its_time(demo):
    assert [(p.phone, p.start, p.end) for p in demo.in_symbols("at͡ʃ", 1.0, 2.0, PHONES)] == [
        ("a", 1.0, 1.5),
        ("t͡ʃ", 1.5, 2.0),
    ]


def test_a_missing_checkpoint_is_one_line(capsys, tmp_path, demo):
    assert demo.demo(tmp_path / "pictures", checkpoint=tmp_path / "none") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"demo: {tmp_path / 'none'}: there is no model; name another one with --checkpoint.\n"


def test_a_missing_recording_is_one_line(capsys, tmp_path, demo):
    model = save_recogniser(tmp_path / "model")
    (tmp_path / "reference.json").write_text('[{"audio": "gone.flac", "text": "", "phones": []}]')
    assert demo.demo(tmp_path / "pictures", checkpoint=model, recordings=tmp_path) == 1
    assert capsys.readouterr().err == (
        f"demo: {tmp_path / 'gone.flac'}: there is no such file; check the path.\n"
    )
