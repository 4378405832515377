import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tiny_recognisers import LETTERS, save_recogniser, write_babble
from unispeech import Transcriber
from unispeech.cli import main
from unispeech.cli import progress as progress_module
from unispeech.cli.transcribe import Format, _layout
from unispeech.formats import FORMATS, ending
from unispeech.formats.json import from_json


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    return [str(write_babble(folder / f"{i}.wav", 0.3 + 0.4 * i, i)) for i in range(3)]


@pytest.fixture(scope="module")
def texts(model_dir, paths):
    transcriber = Transcriber(model_dir)
    return {path: transcriber.transcribe(path).text for path in paths}


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["transcribe", *map(str, arguments)])
    return exit_.value.code


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_the_command_writes_json_and_names_what_is_broken(tmp_path, model_dir, paths, texts):
    broken = tmp_path / "broken.wav"
    broken.write_text("not a sound")
    command = [sys.executable, "-m", "unispeech", "transcribe", paths[1], broken, "-", "-m", model_dir]
    done = subprocess.run(
        [*command, "-f", "json"], input=Path(paths[0]).read_bytes(), capture_output=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"unispeech: {broken}: must be audio (wav, flac, ogg, opus, mp3, m4a, webm), but is text; "
        "convert it to wav."
    ]
    documents = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [(d["audio"], d["text"]) for d in documents] == [
        (paths[1], texts[paths[1]]),
        ("-", texts[paths[0]]),
    ]
    assert [phone["phone"] for phone in documents[0]["phones"]] == documents[0]["text"].split()
    assert "words" not in documents[0]


def test_one_file_gives_its_text_alone(capsys, model_dir, paths, texts):
    assert run(paths[0], "--model", model_dir) == 0
    assert capsys.readouterr() == (texts[paths[0]] + "\n", "")


def test_several_files_give_lines_in_the_order_given(capsys, model_dir, paths, texts):
    order = [paths[0], paths[2], paths[1]]
    assert run(*order, paths[0], "-m", model_dir) == 0
    assert capsys.readouterr().out == "".join(f"{path}\t{texts[path]}\n" for path in order)


def test_one_file_gives_one_json_object(capsys, tmp_path, paths):
    model = save_recogniser(tmp_path / "letters", LETTERS)
    assert run(paths[2], "-m", model, "-f", "json") == 0
    out = capsys.readouterr().out
    found, expected = from_json(out), Transcriber(model).transcribe(paths[2])
    assert (found.audio, found.text, found.duration) == (expected.audio, expected.text, expected.duration)
    assert [w.word for w in found.words] == [w.word for w in expected.words] == expected.text.split()
    assert [p.start for p in found.phones] == pytest.approx([p.start for p in expected.phones], abs=1e-4)


def test_every_format_can_be_asked_for():
    assert get_args(Format) == tuple(FORMATS)
    assert set(_layout().streamed) <= set(FORMATS)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in {"txt", "json"}])
def test_every_format_is_written(capsys, tmp_path, model_dir, paths, format):
    expected = FORMATS[format](Transcriber(model_dir).transcribe(paths[2]))
    assert run(paths[2], "-m", model_dir, "-f", format) == 0
    assert undated(capsys.readouterr().out) == undated(expected + "\n")
    assert run(paths[2], "-m", model_dir, "-f", format, "-o", tmp_path) == 0
    assert undated((tmp_path / f"2.{ending(format)}").read_text()) == undated(expected + "\n")


def undated(text):
    return re.sub('DATE="[^"]*"', "", text)


def test_several_recordings_of_a_format_that_cannot_be_joined_need_a_folder(capsys, paths):
    assert run(*paths, "-m", "no/model", "-f", "srt") == 2
    assert capsys.readouterr().err == (
        "unispeech: `--format` must be txt, json, ctm where 3 recordings go to standard output, "
        "but is srt; give --output.\n"
    )


def test_several_recordings_as_ctm_follow_one_another(capsys, model_dir, paths):
    assert run(*paths, "-m", model_dir, "-f", "ctm") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)


@pytest.mark.parametrize("format", ["txt", "json"])
def test_a_folder_gets_a_file_per_recording(capsys, tmp_path, model_dir, paths, texts, format):
    assert run(*paths, "-m", model_dir, "-f", format, "-o", tmp_path / "out") == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i}.{format}" for i in range(3)]
    for i, path in enumerate(paths):
        content = (tmp_path / "out" / f"{i}.{format}").read_text()
        assert (from_json(content).text if format == "json" else content.rstrip("\n")) == texts[path]


def test_standard_input_gets_a_file_too(monkeypatch, tmp_path, model_dir, paths, texts):
    monkeypatch.setattr(sys, "stdin", Stdin(Path(paths[0]).read_bytes()))
    assert run("-", "-m", model_dir, "-o", tmp_path) == 0
    assert (tmp_path / "stdin.txt").read_text() == texts[paths[0]] + "\n"


def test_a_broken_file_stops_no_other(capsys, tmp_path, model_dir, paths, texts):
    missing = tmp_path / "missing.wav"
    assert run(missing, paths[0], "-m", model_dir) == 1
    out, err = capsys.readouterr()
    assert out == f"{paths[0]}\t{texts[paths[0]]}\n"
    assert err == f"unispeech: {missing}: there is no such file; check the path.\n"


def test_a_broken_standard_input_stops_no_other(capsys, monkeypatch, model_dir, paths, texts):
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    assert run("-", paths[0], "-m", model_dir) == 1
    out, err = capsys.readouterr()
    assert out == f"{paths[0]}\t{texts[paths[0]]}\n"
    assert err.startswith("unispeech: -: must hold audio")


def test_two_results_of_one_name_are_refused_before_anything_is_done(capsys, tmp_path, paths):
    other = write_babble(tmp_path / "other" / "0.flac", 0.3)
    assert run(paths[0], other, "-m", "no/model", "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith("unispeech: `audio` must differ in file names where `--output` is given, but ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav"], "--model requires an argument"),
        (["-m", "m"], "AUDIO requires an argument"),
        (["a.wav", "-m", "m", "-f", "jsn"], 'Did you mean "json"?'),
        (["a.wav", "-m", "m", "--presicion", "bf16"], "Did you mean --precision?"),
        (["a.wav", "-m", "m", "--tempo", "2"], "Unknown option: --tempo"),
        (["a.wav", "--modle", "m", "-m", "m"], "there is no option --modle"),
        (["a.wav", "-m", "./nowhere"], "nowhere: no such model directory"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments, message):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unispeech: ")
    assert message in err
    assert err.count("\n") == 1


def test_cuda_graphs_without_a_gpu_are_one_line(capsys, model_dir, paths):
    assert run(paths[0], "-m", model_dir, "--device", "cpu", "--cuda-graphs") == 2
    assert capsys.readouterr().err == (
        "unispeech: `device` must be a CUDA GPU along with `cuda_graphs`, but is cpu; "
        "leave `cuda_graphs` out.\n"
    )


def test_a_full_disk_is_one_line_with_the_path(capsys, monkeypatch, tmp_path, model_dir, paths):
    import os

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    assert run(paths[0], "-m", model_dir, "-o", tmp_path) == 2
    assert (
        capsys.readouterr().err
        == f"unispeech: {tmp_path / '0.txt'}: no space left on device; make room on the disk.\n"
    )


def test_help_has_examples_and_needs_no_torch():
    code = (
        "import sys\n"
        "from unispeech.cli import main\n"
        "try:\n    main(['transcribe', '--help'])\n"
        "except SystemExit as exit_:\n    assert not exit_.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "unispeech transcribe talk.wav -m examples/checkpoint" in done.stdout
    assert "--batch-seconds" in done.stdout


# -- progress ------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_seconds_of_audio_on_a_terminal(monkeypatch):
    monkeypatch.setattr(progress_module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_module.audio_progress(lambda: 40.0) as advance:
        advance(12.0)
        for _ in range(50):
            if "12 of 40 s of audio" in terminal.getvalue():
                break
            progress_module.threading.Event().wait(0.1)
    assert "12 of 40 s of audio" in terminal.getvalue()


def test_progress_is_silent_when_the_work_is_quick(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_module.audio_progress(lambda: 40.0) as advance:
        advance(40.0)
    assert terminal.getvalue() == ""


def test_progress_measures_nothing_where_nobody_looks(capsys):
    with progress_module.audio_progress(pytest.fail) as advance:
        advance(1.0)
    assert capsys.readouterr() == ("", "")
