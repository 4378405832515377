"""`unispeech lm` as a user runs it."""

import gzip
import io
import json
import subprocess
import sys

import pytest

from unispeech.cli import main
from unispeech.decoding.ngram import NgramModel


def lm(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["lm", *map(str, arguments)])
    return (stop.value.code or 0, *capsys.readouterr())


def write_text(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_cuts(path, *phones):
    cuts = [
        {"id": str(i), "supervisions": [{"id": "s", "custom": {"phones": p}}]} for i, p in enumerate(phones)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [*cuts, {"supervisions": [{}]}])).encode()))
    return path


def test_a_model_is_trained_and_scored(tmp_path):
    text = write_text(tmp_path / "phones.txt", "a b a", "", "b a t͡ʃ")
    other = write_text(tmp_path / "other.txt", "a b q")
    arpa = tmp_path / "lm.arpa"
    command = [sys.executable, "-m", "unispeech", "lm"]
    done = subprocess.run(
        [*command, "train", text, "-o", arpa, "--order", "2", "--held-out", other],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == f"{arpa}: 6 1-grams, 7 2-grams"
    assert lines[1].startswith("training text: perplexity ")
    assert lines[1].endswith(" over 8 tokens")
    assert lines[2].startswith("held-out text: perplexity ")
    assert lines[2].endswith(" over 3 tokens, 1 unknown tokens left out")
    model = NgramModel.load(arpa)
    assert (model.order, model.words) == (2, {"a", "b", "t͡ʃ"})


def test_cuts_and_standard_input_are_read(tmp_path, capsys, monkeypatch):
    cuts = write_cuts(tmp_path / "cuts.jsonl.gz", "a b", "b b a")
    status, out, _ = lm(capsys, "train", cuts, "-o", tmp_path / "lm.arpa.gz", "--order", 1)
    assert (status, out.splitlines()[0]) == (0, f"{tmp_path / 'lm.arpa.gz'}: 5 1-grams")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b\n"))
    status, out, _ = lm(capsys, "score", "-", "-m", tmp_path / "lm.arpa.gz")
    assert status == 0
    assert out.startswith("text: perplexity ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "text.txt"], "`--output` must be given to train, but is missing; add -o lm.arpa."),
        (["score", "text.txt"], "`--model` must be given to score, but is missing; add -m lm.arpa."),
        (["train", "latin.txt", "-o", "lm.arpa"], "latin.txt: text must be UTF-8, but is not (invalid"),
        (["train", "bad.jsonl", "-o", "lm.arpa"], "bad.jsonl:2: line must be a cut in JSON, but is not."),
        (["train", "silent.jsonl", "-o", "lm.arpa"], "silent.jsonl: cuts must have phones, but have none."),
        (["train", "none.txt", "-o", "lm.arpa"], "none.txt: no such file or directory; check the path."),
        (["train", "five.jsonl", "-o", "lm.arpa"], "five.jsonl:1: line must be a cut in JSON, but is not."),
        (["train", "torn.jsonl.gz", "-o", "lm.arpa"], "torn.jsonl.gz:0: line must be a cut in JSON, but"),
        (["train", "text.txt", "-o", "text.txt"], "`--output` must not be what is read, but is text.txt;"),
        (["train", "text.txt", "-o", "lm.arpa", "-m", "a.arpa"], "`--model` must be left out to train; it"),
        (["score", "text.txt", "-m", "a.arpa", "-o", "b"], "`--output` and `--held-out` must be left out to"),
        (["score", "text.txt", "-m", "torn.arpa.gz"], "torn.arpa.gz: must be an ARPA file in UTF-8, but"),
        (["train", "text.txt", "-o", "lm.arpa", "--held-out", "none.txt"], "none.txt: no such file or"),
        (["train", "text.txt", "-o", "lm.arpa", "--order", "0"], "`order` must be at least 1, but is 0."),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "text.txt", "a b")
    (tmp_path / "latin.txt").write_bytes("ça".encode("latin-1"))
    write_text(tmp_path / "bad.jsonl", "{}", "[]")
    write_text(tmp_path / "silent.jsonl", "{}")
    write_text(tmp_path / "five.jsonl", '{"supervisions": 5}')
    torn = bytearray(gzip.compress(b"ab" * 999))
    torn[10] = 0xFF  # says that a kind of block follows that there is none of
    for name in ("torn.jsonl.gz", "torn.arpa.gz"):
        (tmp_path / name).write_bytes(torn)
    status, _, err = lm(capsys, *arguments)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith(f"unispeech: {message}")
    assert (tmp_path / "text.txt").read_text() == "a b\n"
    assert not (tmp_path / "lm.arpa").exists()
