"""`unispeech plot` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unispeech.cli import main


def write_run(path: Path, *, num_lines=5) -> Path:
    path.mkdir(parents=True)
    lines = [
        {"update": 20 * n, "audio_seconds": 100.0 * n, "loss": 5 / n, "lr": 0.001}
        for n in range(1, num_lines + 1)
    ]
    lines.append({"update": 100, "audio_seconds": 500.0, "dev/per": 0.5})
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"update": 1')
    return path


def plot(capsys, *arguments) -> tuple[int, str, str]:
    """Call the command in this process: exit status, stdout, stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["plot", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def pictures(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".jsonl")


def test_one_run_gets_its_picture_beside_its_log(tmp_path):
    write_run(tmp_path / "run")
    code = (
        "import sys\nfrom unispeech.cli import main\n"
        "try:\n    main(['plot', 'run'])\n"
        "finally:\n    print([m for m in ('torch', 'transformers', 'lhotse') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "run/curves.png\n[]\n", "")
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_several_runs_go_where_the_output_says(tmp_path, capsys):
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b", num_lines=1)
    place = tmp_path / "new/all.svg"
    options = "--x", "audio", "--smooth", "2", "--only", "per", "loss"
    assert plot(capsys, *runs, "-o", place, *options) == (0, f"{place}\n", "")
    assert b"<svg" in place.read_bytes()


def test_several_runs_need_an_output(tmp_path, capsys):
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    assert plot(capsys, *runs) == (
        2,
        "",
        "unispeech: `--output` must be given for several runs, but is missing; add -o curves.png.\n",
    )
    assert pictures(tmp_path) == ["a", "b"]


def test_a_run_that_is_given_twice_is_one(tmp_path, capsys):
    run = write_run(tmp_path / "a")
    status, out, _ = plot(capsys, run, f"{run}/")
    assert (status, out) == (0, f"{run}/curves.png\n")


def test_a_broken_run_is_reported_and_the_rest_drawn(tmp_path, capsys):
    good, empty = write_run(tmp_path / "good"), tmp_path / "empty"
    empty.mkdir()
    (empty / "log.jsonl").write_text("")
    status, out, err = plot(capsys, tmp_path / "none", good, empty, "-o", tmp_path / "a.png")
    assert (status, out) == (1, f"{tmp_path}/a.png\n")
    assert err.splitlines() == [
        f"unispeech: {tmp_path}/none: must be a run directory, but does not exist; check the path.",
        f"unispeech: {empty}/log.jsonl: must hold a line with values, but has none; wait for the first.",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: None, "has no log.jsonl."),
        (lambda run: (run / "log.jsonl").write_text(""), "must hold a line with values, but has none; wait"),
        (lambda run: (run / "log.jsonl").write_text("x\ny\n"), "log.jsonl:1: line must be JSON, but is not."),
    ],
)
def test_a_lone_run_that_cannot_be_read_is_one_line(tmp_path, capsys, make, message):
    make(tmp_path)
    status, out, err = plot(capsys, tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"unispeech: {tmp_path}") and message in err
    assert pictures(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--only", "los"],
            "`only` must name quantities that the runs have, but has `los`; did you mean `lo",
        ),
        (["-o", "a.gif"], "`path` must end in .png, .svg, .pdf, but is a.gif."),
        (["-o", "folder"], "`path` must end in .png, .svg, .pdf, but is folder."),
        (["--smooth", "-1"], "`smooth` must not be negative, but is -1."),
        (["--x", "hours"], 'Invalid value "hours" for --x'),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = plot(capsys, write_run(tmp_path / "run"), *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert pictures(tmp_path) == ["run"]


def test_an_unwritable_place_is_one_line(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    for place, reason in (("file/a.png", "not a directory"), ("folder.png", "is a directory")):
        status, out, err = plot(capsys, run, "-o", tmp_path / place)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"unispeech: {tmp_path / place}: {reason}") or "file exists" in err
    assert pictures(tmp_path) == ["file", "folder.png", "run"]
