"""Many recordings: folders, lists, lines that grow, resuming, processes that share the work."""

import json
import sys
from typing import get_args

import pytest

from tiny_recognisers import save_recogniser, write_babble
from unispeech.cli import main
from unispeech.cli.destinations import LinesDestination
from unispeech.cli.processes import Process, own_device, this_process
from unispeech.cli.transcribe import Format
from unispeech.formats import FORMATS
from unispeech.formats.json import to_jsonl
from unispeech.pipelines.listing import Listed
from unispeech.results import Transcript


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


@pytest.fixture
def talks(tmp_path):
    for i, name in enumerate(["a.wav", "sub/a.wav", "sub/deep/b.flac", "c.wav"]):
        write_babble(tmp_path / "talks" / name, 0.3 + 0.1 * i, i)
    (tmp_path / "talks" / "notes.txt").write_text("not a sound")
    return tmp_path / "talks"


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["transcribe", *map(str, arguments)])
    return exit_.value.code


def audio_of(path):
    return [json.loads(line)["audio"] for line in path.read_text().splitlines()]


def result(audio):
    return Transcript(audio=audio, duration=1.0, text="a", phones=[])


def test_the_formats_are_those_that_there_are():
    assert set(get_args(Format)) == set(FORMATS)


def test_a_folder_is_mirrored(capsys, tmp_path, model_dir, talks):
    assert run(talks, "-m", model_dir, "-o", tmp_path / "out") == 0
    assert capsys.readouterr() == ("", "")
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.txt"))
    assert written == ["a.txt", "c.txt", "sub/a.txt", "sub/deep/b.txt"]


def test_resuming_does_what_is_missing(capsys, monkeypatch, tmp_path, model_dir, talks):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "a.txt").write_text("kept")
    (talks / "c.wav").write_text("broken")
    assert run(talks, "-m", model_dir, "-o", out, "--resume") == 1
    assert "c.wav: must be audio" in capsys.readouterr().err
    assert (out / "sub" / "a.txt").read_text() == "kept"
    assert (out / "a.txt").exists()
    write_babble(talks / "c.wav", 0.3)
    assert run(talks, "-m", model_dir, "-o", out, "--resume") == 0
    assert (out / "c.txt").exists()


def test_lines_are_added_as_they_come_and_resumed(capsys, tmp_path, model_dir, talks):
    out = tmp_path / "out" / "all.jsonl"
    assert run(talks / "sub", "-m", model_dir, "-o", out) == 0
    first = out.read_bytes()
    assert sorted(audio_of(out)) == [f"{talks}/sub/a.wav", f"{talks}/sub/deep/b.flac"]
    assert run(talks, "-m", model_dir, "-o", out) == 2
    assert capsys.readouterr().err == (
        f"unispeech: {out}: is there already; pass --resume to add what is missing, or remove it.\n"
    )
    with out.open("ab") as file:
        file.write(b'{"audio": "torn')
    assert run(talks, "-m", model_dir, "-o", out, "--resume") == 0
    assert out.read_bytes().startswith(first)
    assert sorted(audio_of(out)) == sorted(str(p) for p in talks.rglob("*") if p.suffix in {".wav", ".flac"})


def test_a_list_comes_from_a_file_or_standard_input(capsys, monkeypatch, tmp_path, model_dir, talks):
    import io

    paths = [f"{talks}/a.wav", f"{talks}/c.wav"]
    (tmp_path / "list.txt").write_text("\n".join(paths) + "\n")
    assert run("--list", tmp_path / "list.txt", "-m", model_dir) == 0
    found = capsys.readouterr().out
    assert [line.split("\t")[0] for line in found.splitlines()] == paths
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(paths)))
    assert run("--list", "-", "-m", model_dir) == 0
    assert capsys.readouterr().out == found


def test_names_of_any_bytes_come_from_standard_input(capsys, monkeypatch, tmp_path, model_dir, talks):
    import io
    import os

    odd = os.fsencode(talks) + b"/caf\xe9.wav"
    os.rename(talks / "a.wav", odd)
    lines = io.TextIOWrapper(io.BytesIO(odd + f"\n{talks}/c.wav\n".encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", lines)
    assert run("--list", "-", "-m", model_dir, "-o", tmp_path / "all.jsonl") == 0
    assert capsys.readouterr() == ("", "")
    lines = (tmp_path / "all.jsonl").read_text(errors="surrogateescape").splitlines()
    assert sorted(json.loads(line)["audio"] for line in lines) == [f"{talks}/c.wav", os.fsdecode(odd)]


def test_a_name_that_is_too_long_for_its_result_stops_no_other(capsys, tmp_path, model_dir, talks):
    name = "x" * 248
    write_babble(talks / f"{name}.wav", 0.3)
    for resumed in ([], ["--resume"]):
        assert run(talks, "-m", model_dir, "-f", "TextGrid", "-o", tmp_path / "out", *resumed) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.endswith(f"{name}.TextGrid: file name too long; choose a shorter name.")
        assert len(list((tmp_path / "out").rglob("*.TextGrid"))) == 4


def test_lists_may_begin_with_a_byte_order_mark(capsys, tmp_path, model_dir, talks):
    for name, line in (("list.txt", f"{talks}/a.wav"), ("m.jsonl", '{"audio": "talks/a.wav"}')):
        (tmp_path / name).write_text(line + "\n", encoding="utf-8-sig")
    assert run("--list", tmp_path / "list.txt", "-m", model_dir) == 0
    assert run(tmp_path / "m.jsonl", "-m", model_dir) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one and one == other


def test_processes_share_the_work_and_each_writes_its_own_file(
    capsys, monkeypatch, tmp_path, model_dir, talks
):
    out = tmp_path / "all.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert run(talks, "-m", model_dir, "-o", out) == 0
    shards = [tmp_path / f"all-0000{rank}-of-00002.jsonl" for rank in range(2)]
    done = [audio_of(shard) for shard in shards]
    assert [len(paths) for paths in done] == [2, 2]
    assert len({*done[0], *done[1]}) == 4
    # One process goes on where two were.
    write_babble(talks / "d.wav", 0.3)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert run(talks, "-m", model_dir, "-o", out, "--resume") == 0
    assert audio_of(out) == [f"{talks}/d.wav"]


def test_a_long_recording_from_a_pipe(capsys, monkeypatch, tmp_path, model_dir):
    from test_transcribe import Stdin

    path = write_babble(tmp_path / "long.wav", 7.0)
    monkeypatch.setattr(sys, "stdin", Stdin(path.read_bytes()))
    windows = ("--window-seconds", "2", "--overlap-seconds", "0.3")
    assert run("-", "-m", model_dir, "-f", "json", *windows) == 0
    piped = json.loads(capsys.readouterr().out)
    assert run(path, "-m", model_dir, "-f", "json", *windows) == 0
    assert json.loads(capsys.readouterr().out) == piped | {"audio": str(path)}
    assert piped["duration"] == 7.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "a.wav"], "`audio` must not be empty; name a recording, or . for all below this folder"),
        (["a.wav", "--nbest", "0"], "`--nbest` must be at least 1, but is 0"),
        (["a.wav", "--nbest", "3"], "`--format` must be json, or the output a .jsonl file, where --nbest"),
        (["a.wav", "--nbest", "3", "-f", "srt"], "`--format` must be json, or the output a .jsonl file"),
        (["a.wav", "--beam", "1000000"], "`beam` must be at most 10000, but is 1000000"),
        (["deep.jsonl"], "deep.jsonl:1: must be a JSON object, but is not"),
        (["list.jsonl", "-o", "list.jsonl", "--resume"], "`--output` must be results of an earlier run"),
        (["sound.txt", "-o", "."], "`--output` must not be what is read, but is sound.txt; name another"),
        (["a.wav", "--resume"], "`--output` must be given with `--resume`"),
        (["a.wav", "b.wav", "-f", "srt"], "`--format` must be txt, json, ctm where 2 recordings go to"),
        (
            ["a.wav", "-o", "x.jsonl", "-f", "srt"],
            "`--format` must be json where `--output` is a .jsonl file",
        ),
        (["-", "--list", "-"], "`audio` must not be - where `--list` is - too"),
        (["--list", "gone.txt"], "gone.txt: no such file"),
        (["a.wav", "--window-seconds", "0.2"], "`window_seconds` must be at least 1"),
        (
            ["a.wav", "-o", "a.srt"],
            "`--output` must be a folder or a .jsonl file, but is a.srt; name",
        ),
        (["a.wav", "-o", "A.textgrid", "-f", "TextGrid"], "or leave --output out and write > A.textgrid"),
    ],
)
def test_wrong_usage_is_one_line(capsys, monkeypatch, tmp_path, model_dir, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", sys.__stdin__ or object())
    contents = {
        "deep.jsonl": "[" * 200_000,
        "list.jsonl": '{"audio": "a.wav"}\n{"audio": "b.wav"}',
        "sound.txt": "RIFF",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    assert run(*arguments, "-m", model_dir) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {name: (tmp_path / name).read_text() for name in contents} == contents


def test_several_processes_need_files_on_both_sides(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("a.wav", "-m", "m") == 2
    assert "where 2 processes share the work, but `--output` is missing" in capsys.readouterr().err
    assert run("-", "-m", "m", "-o", tmp_path) == 2
    assert "standard input is one of the recordings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("2", "2", r"RANK must lie in \[0, WORLD_SIZE\) = \[0, 2\), but is 2"),
        ("x", "2", "RANK must be"),
    ],
)
def test_a_wrong_environment_is_refused(monkeypatch, rank, size, message):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=message):
        this_process()


def test_each_process_has_its_device(monkeypatch):
    import torch

    alone, second = Process(), Process(rank=3, num_ranks=4, local_rank=1)
    assert own_device("auto", alone) == "auto"
    assert own_device("cpu", second) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device("auto", second) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("auto", second) == "cuda:1"


def test_a_disk_that_fills_leaves_whole_lines(tmp_path):
    path = tmp_path / "all.jsonl"
    lines = LinesDestination(path, Process(), to_jsonl, resume=False)
    lines.write("a", result("a"))
    whole = path.read_bytes()
    file = lines._file

    class Full:
        calls = 0

        def write(self, data):
            self.calls += 1
            if self.calls == 2:
                raise OSError(28, "No space left on device")
            return file.write(data[:7])

        def __getattr__(self, name):
            return getattr(file, name)

    lines._file = Full()
    with pytest.raises(OSError, match=r"No space left on device.*all\.jsonl"):
        lines.write("b", result("b"))
    assert path.read_bytes() == whole
    lines._file = file
    lines.write("c", result("c"))
    assert audio_of(path) == ["a", "c"]


def test_lines_that_say_nothing_count_for_nothing(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_bytes(b'{"version": 1, "audio": "a"}\n[]\nrubbish\n{"text": ""}\n{"audio": "b')
    (tmp_path / "all-00001-of-00003.jsonl").write_text('{"version": 1, "audio": "c"}\n')
    (tmp_path / "allother.jsonl").write_text('{"audio": "d"}\n')
    lines = LinesDestination(path, Process(), to_jsonl, resume=True)
    done = [name for name in "abcd" if lines.is_done(Listed(path=name, name=name))]
    assert done == ["a", "c"]
    assert path.read_bytes().endswith(b'{"text": ""}\n')
