"""Results that nobody takes, full disks, names that are no text: one line or none, never a traceback."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tiny_recognisers import save_recogniser, write_babble
from unispeech.cli import describe, main

COMMAND = [sys.executable, "-m", "unispeech"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def test_a_reader_that_leaves_early_is_no_error(tmp_path, model_dir):
    path = write_babble(tmp_path / "a.wav", 0.5)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "transcribe", path, "-m", model_dir], stdout=writing, stderr=subprocess.PIPE, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(tmp_path, model_dir):
    path = write_babble(tmp_path / "a.wav", 0.5)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "transcribe", path, "-m", model_dir], stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"unispeech: ") and done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_phones_and_foreign_names_come_out_under_any_locale(tmp_path, model_dir):
    folder = os.fsencode(tmp_path)
    name = os.path.join(folder, b"caf\xe9.wav")
    os.rename(write_babble(tmp_path / "a.wav", 0.5), name)
    done = subprocess.run(
        [*COMMAND, "transcribe", name, name[:-4] + b"2.wav", "-m", model_dir],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(name + b"\t") and done.stdout.count(b"\n") == 1
    assert done.stderr.count(b"\n") == 1 and b"no such file" in done.stderr


ODD_NAME = "a\n b\t\x1b[31m\x85\u2028.wav"
"""A name that ends lines, moves columns and colours the terminal."""
ODD_NAME_SHOWN = r"a\n b\t\x1b[31m\x85\u2028.wav"


def test_control_characters_in_a_name_break_no_output(capsys, tmp_path, model_dir):
    good = write_babble(tmp_path / "good" / ODD_NAME, 0.5)
    broken, missing = tmp_path / "broken" / ODD_NAME, tmp_path / ODD_NAME
    broken.parent.mkdir()
    broken.write_text("no sound")
    assert run("transcribe", good, broken, missing, "-m", model_dir) == 1
    out, err = capsys.readouterr()
    [line] = out.splitlines()
    assert line.startswith(f"{tmp_path}/good/{ODD_NAME_SHOWN}\t")
    errors = err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"unispeech: {tmp_path}/broken/{ODD_NAME_SHOWN}: must be audio (")
    assert errors[1].startswith(f"unispeech: {tmp_path}/{ODD_NAME_SHOWN}: there is no such file")


def test_control_characters_in_a_name_break_no_json(capsys, tmp_path, model_dir):
    paths = [write_babble(tmp_path / folder / ODD_NAME, 0.5) for folder in "ab"]
    assert run("transcribe", *paths, "-m", model_dir, "-f", "json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["audio"] for line in lines] == list(map(str, paths))


def test_a_message_keeps_the_spaces_of_a_name(tmp_path):
    assert describe(ValueError("a  b.wav: must be\n   audio, but is \x1b[31mtext.")) == (
        r"a  b.wav: must be audio, but is \x1b[31mtext."
    )


def test_closed_standard_input_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert run("transcribe", "-", "-m", "unused") == 2
    assert "must not be - where standard input is closed" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused_before_anything_is_done(capsys, tmp_path):
    place = tmp_path / "precious.txt"
    place.write_text("mine")
    assert run("transcribe", "a.wav", "-m", "unused", "-o", place) == 2
    assert capsys.readouterr().err == (
        f"unispeech: {place}: `--output` must be a folder, but is a file; name another.\n"
    )
    assert place.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_instead_of_waited_for(capsys, tmp_path, model_dir):
    os.mkfifo(tmp_path / "pipe.wav")
    assert run("transcribe", tmp_path / "pipe.wav", "-m", model_dir) == 1
    assert "must be a file, but is a pipe or a device" in capsys.readouterr().err


def test_the_longest_name_is_written(tmp_path, model_dir):
    path = write_babble(tmp_path / f"{'n' * 250}.wav", 0.5)
    assert run("transcribe", path, "-m", model_dir, "-o", tmp_path / "out") == 0
    assert [place.name for place in (tmp_path / "out").iterdir()] == [f"{'n' * 250}.txt"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file", "x"), "x: no such file; check the path."),
        (OSError(28, "No space left on device", "x"), "x: no space left on device; make room on the disk."),
        (FileExistsError(17, "Exists", "x"), "x: exists; choose another place, a file is in the way."),
        (OSError(71, "Protocol error", "x"), "x: protocol error."),
        (ValueError("two\n lines"), "two lines"),
    ],
)  # fmt: skip
def test_errors_of_the_system_name_the_file_and_the_fix(error, line):
    assert describe(error) == line


def test_a_warning_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    run("--version")
    capsys.readouterr()
    warnings.showwarning(UserWarning("a\nb"), UserWarning, "file.py", 1)
    assert capsys.readouterr().err == "unispeech: a b\n"
