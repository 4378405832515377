import json
import subprocess
import sys

import pytest

from labelled_cuts import cut, write_cuts
from tiny_recognisers import save_classifier, save_recogniser, write_babble
from unispeech import Transcriber
from unispeech.cli import main


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_recogniser(tmp_path_factory.mktemp("model") / "phones")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, model_dir):
    folder = tmp_path_factory.mktemp("data")
    cuts = []
    for i, language in enumerate(["sv", "ky"]):
        path = write_babble(folder / f"{i}.wav", 0.5, i)
        phones = Transcriber(model_dir).transcribe(path).text
        cuts.append(cut(path, phones=phones + " t͡ʃ t͡ʃ" * i, language=language))
    return write_cuts(folder, cuts)


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *map(str, arguments)])
    return exit_.value.code


def test_the_command_shows_rates_and_confusions(model_dir, data_dir):
    command = [sys.executable, "-m", "unispeech", "evaluate", model_dir, data_dir, "--by", "language"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["2", "utterances,", "1.0", "s", "of", "audio"] in lines
    rows = {line[0]: line for line in lines if "PER" in line}
    assert rows.keys() == {"sv", "ky", "all"}
    assert rows["sv"][2] == "0.00"
    assert rows["ky"][6:9] == ["0", "0", "2"]  # substituted, inserted, deleted
    assert ["2", "t͡ʃ", "-"] in lines


def test_json_holds_everything(capsys, model_dir, data_dir):
    assert run(model_dir, data_dir / "cuts.jsonl.gz", "--json", "--by", "language", "--top", "1") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scores"]["per"]["deletions"] == 2
    assert document["scores"]["wer"] is None
    assert document["groups"]["sv"]["per"]["rate"] == 0.0
    assert document["confusions"] == [{"reference": "t͡ʃ", "hypothesis": None, "count": 2}]
    assert document["audio_seconds"] == pytest.approx(1.0)


def test_a_classifier_gets_accuracy(capsys, tmp_path, data_dir):
    folder = save_classifier(tmp_path / "classifier", ["yes", "no"])
    cuts = [cut(data_dir / f"{i}.wav", label="yes") for i in range(2)]
    assert run(folder, write_cuts(tmp_path / "data", cuts)) == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if "accuracy" in line]
    assert row[:2] == ["all", "accuracy"]
    assert row[-2:] == ["2", "2"]


def test_a_broken_recording_is_reported_and_the_rest_done(capsys, tmp_path, model_dir, data_dir):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"")
    cuts = [cut(data_dir / "0.wav", phones="a"), cut(broken, phones="a"), cut(data_dir / "1.wav", text="b")]
    assert run(model_dir, write_cuts(tmp_path / "data", cuts)) == 1
    out, err = capsys.readouterr()
    assert "1 utterances, 0.5 s" in out
    assert "1 utterances left out: their audio cannot be read" in out
    assert "1 utterances left out: they have no transcript" in out
    assert err.startswith(f"unispeech: {broken}: must hold audio")
    assert err.count("\n") == 1


def test_a_corpus_that_is_not_there_is_one_line(capsys, tmp_path, model_dir):
    assert run(model_dir, tmp_path / "nowhere") == 2
    assert capsys.readouterr().err == (
        f"unispeech: {tmp_path / 'nowhere'}: no such file; make it with unispeech prepare.\n"
    )
