import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from unispeech.cli import main
from unispeech.cli import synthesise as module

SENTENCES = "The river bends twice.\nNobody answered the call.\nFresh bread cools slowly.\nRoom 12 is free.\n"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unispeech", "synthesise", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SENTENCES, encoding="utf-8")
    return path


needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeak-ng is not installed: pip install 'unispeech[espeak]'"
)


def test_progress_is_plain_lines_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 29.0, 31.0, 32.0, 62.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    with module._progress() as tell:
        for count in range(1, 5):
            tell("train", 900.0 * count, count)
    assert capsys.readouterr() == ("", "train: 0.50 h, 2 utterances\ntrain: 1.00 h, 4 utterances\n")


@needs_espeak
def test_without_lhotse_the_extra_is_named(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("unispeech.data.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lhotse", None)
    with pytest.raises(SystemExit) as left:
        main(["synthesise", str(text), "-o", str(tmp_path / "c"), "--language", "en", "--seed", "1"])
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert (
        err.endswith("need lhotse, which is not installed; pip install 'unispeech[train]'\n")
        and err.count("\n") == 1
        and not out
    )
    assert not (tmp_path / "c").exists()


@needs_espeak
def test_a_corpus_by_one_command(text: Path, tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    done = run(
        text, "-o", output, "--language", "en", "--seed", 3, "--sentences", 3, "--dev", 0.3, "--speakers", 5,
        "--unseen-speakers", "f4,en-gb+m3", "--rate-range", 120, 220, "--noise-snr-db", 5, 20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    train, dev = done.stdout.splitlines()
    assert train.startswith(f"{output / 'train' / 'cuts.jsonl.gz'}: 2 utterances, ")
    assert dev.startswith(f"{output / 'dev' / 'cuts.jsonl.gz'}: 1 utterances, 1 speakers, 0.00")
    assert done.stderr == "lines not taken: 1 digits or odd characters\n"
    assert len(list(output.rglob("*.flac"))) >= 3


@needs_espeak
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--language", "xyzzy"],
            "`language` must be one of espeak-ng, or the name of a voice of it, but is 'xyz",
        ),
        (["--language", "en", "--speakers", "f1,klatt9"], "hold 'klatt9'; did you mean"),
        (["--language", "en", "--hours", "1", "--sentences", "2"], "`hours` must not be given together"),
        (["--language", "en", "--library", "no-such.so"], "no-such.so: cannot open"),
    ],
)
def test_a_users_error_is_one_line(text: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    done = run(text, "-o", tmp_path / "corpus", "--seed", 1, *arguments)
    assert done.returncode == 2
    assert line in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
