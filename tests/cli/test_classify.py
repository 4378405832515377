"""`unispeech classify`: what is printed, what is written, what is told."""

import json

import pytest

from tiny_recognisers import save_classifier, write_babble
from unispeech import Classifier
from unispeech.cli import main

LABELS = ["yes", "no", "up"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("model") / "words", LABELS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(["a.wav", "sub/b.wav"]):
        write_babble(folder / name, 0.4 + 0.2 * i, i)
    return folder


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["classify", *map(str, arguments)])
    return exit_.value.code


def test_one_recording_gives_a_label_a_line(capsys, model_dir, clips):
    assert run(clips / "a.wav", "-m", model_dir, "--top", "2") == 0
    expected = Classifier(model_dir).classify(clips / "a.wav", top_k=2).labels
    assert capsys.readouterr().out == "".join(f"{best.label}\t{best.score:.4f}\n" for best in expected)


def test_several_recordings_give_a_line_each(capsys, model_dir, clips):
    assert run(clips, "-m", model_dir) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    paths = [str(clips / "a.wav"), str(clips / "sub/b.wav")]
    assert [row[0] for row in rows] == paths
    classifier = Classifier(model_dir)
    assert [row[1] for row in rows] == [classifier.classify(path).labels[0].label for path in paths]


def test_json_has_everything(capsys, model_dir, tmp_path):
    path = write_babble(tmp_path / "long.wav", 3.0)
    assert run(path, "-m", model_dir, "-f", "json", "--window-seconds", "1") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["version", "audio", "duration", "labels", "windows"]
    assert (found["version"], found["audio"], found["duration"]) == (1, str(path), 3.0)
    assert sum(row["score"] for row in found["labels"]) == pytest.approx(1.0, abs=1e-3)
    assert [window["end"] for window in found["windows"]][-1] == 3.0
    assert {row["label"] for row in found["windows"][0]["labels"]} == set(LABELS)
    write_babble(tmp_path / "short.wav", 0.5)
    assert run(tmp_path, "-m", model_dir, "-f", "json", "--top", "1") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(len(line["labels"]), "windows" in line) for line in lines] == [(1, False), (1, False)]


def test_a_table_has_the_windows_too(capsys, model_dir, tmp_path):
    path = write_babble(tmp_path / "long.wav", 3.0)
    assert run(path, "-m", model_dir, "-f", "tsv", "--window-seconds", "1", "--top", "1") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["tier", "start", "end", "label", "score"]
    assert rows[1][:3] == ["recording", "0.0000", "3.0000"]
    assert {row[0] for row in rows[2:]} == {"window"}


def test_results_go_to_a_folder_or_are_added_to_a_file(capsys, model_dir, clips, tmp_path):
    assert run(clips, "-m", model_dir, "-o", tmp_path / "out") == 0
    assert (tmp_path / "out/sub/b.txt").read_text().splitlines()[0].split("\t")[0] in LABELS
    lines = tmp_path / "all.jsonl"
    assert run(clips / "a.wav", "-m", model_dir, "-o", lines) == 0
    before = lines.read_bytes()
    assert run(clips, "-m", model_dir, "-o", lines, "--resume") == 0
    assert lines.read_bytes().startswith(before)
    done = [json.loads(line)["audio"] for line in lines.read_text().splitlines()]
    assert done == [str(clips / "a.wav"), str(clips / "sub/b.wav")]
    assert capsys.readouterr() == ("", "")


def test_a_broken_recording_is_told_and_the_rest_is_done(capsys, model_dir, clips, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    assert run(tmp_path / "bad.wav", clips / "a.wav", "-m", model_dir) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{clips}/a.wav\t")
    assert shown.err.startswith(f"unispeech: {tmp_path}/bad.wav: must be audio")


def test_a_recording_too_short_for_a_frame_has_no_label(capsys, model_dir, clips, tmp_path):
    short = write_babble(tmp_path / "short.wav", 0.01)
    assert run(short, clips / "a.wav", "-m", model_dir) == 0
    assert capsys.readouterr().out.startswith(f"{short}\t\t\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "`--top` must be at least 1, but is 0"),
        (["--resume"], "`--output` must be given with `--resume`"),
        (["b.wav", "-f", "tsv"], "`--format` must be txt, json where 2 recordings go to standard output"),
    ],
)
def test_wrong_usage_is_one_line(capsys, model_dir, arguments, message):
    assert run("a.wav", *arguments, "-m", model_dir) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
