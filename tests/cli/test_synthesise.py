import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed: pip install 'unispeech[espeak]'")

SENTENCES = "The river bends twice.\nNobody answered the call.\nFresh bread cools slowly.\nRoom 12 is free.\n"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unispeech", "synthesise", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SENTENCES, encoding="utf-8")
    return path


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
    assert "lines not taken: 1 digits or odd characters" in done.stderr
    assert len(list(output.rglob("*.flac"))) >= 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--language", "xyzzy"], "`voice` must be a language or voice of espeak-ng, but is 'xyzzy'"),
        (["--language", "en", "--speakers", "f1,klatt9"], "hold 'klatt9'; did you mean"),
        (["--language", "en", "--hours", "1", "--sentences", "2"], "`hours` must not be given together"),
        (["--language", "en", "--library", "no-such.so"], "no-such.so: cannot open"),
    ],
)
def test_a_users_error_is_one_line(text: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    done = run(text, "-o", tmp_path / "corpus", "--seed", 1, *arguments)
    assert done.returncode == 2
    assert line in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
