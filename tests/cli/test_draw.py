import subprocess
import sys

import pytest

from tiny_recognisers import save_recogniser, write_babble
from unispeech.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return leaving.value.code


def test_a_picture_is_written_and_named(capsys, tmp_path):
    audio = write_babble(tmp_path / "a.wav", 0.5)
    model = save_recogniser(tmp_path / "model")
    assert run("draw", audio, "-m", model, "-o", tmp_path / "new" / "a.png") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'a.png'}\n"
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.wav", "-o", "a.png"], "nothing.wav: there is no such file; check the path."),
        (["nothing.wav", "-o", "a.gif"], "`path` must end in .png, .svg, .pdf, but is a.gif."),
        (["nothing.wav"], 'Command "draw" parameter --output requires an argument.'),
    ],
)
def test_mistakes_are_told_in_a_line(capsys, arguments, message):
    assert run("draw", *arguments) == 2
    assert message in capsys.readouterr().err


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from unispeech.cli import main\n"
        "try:\n    main(['draw', '--help'])\n"
        "except SystemExit as exit_:\n    assert not exit_.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "unispeech draw talk.wav -m examples/checkpoint -o talk.png" in done.stdout
