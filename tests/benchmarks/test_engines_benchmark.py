"""The benchmark of engines, at its smallest, says what it promises to say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_recognisers import save_recogniser

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "engines.py"


@pytest.mark.slow
def test_folder_and_hour(tmp_path):
    model, report = save_recogniser(tmp_path / "model"), tmp_path / "report.md"
    command = [sys.executable, SCRIPT, "--part", "folder", "--part", "hour", "--model", model]
    command += ["--recordings", "3", "--minutes", "0.7", "--batch-size", "1", "--output", report]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = report.read_text(encoding="utf-8")
    assert text == done.stdout
    assert re.search(r"torch [\d.]+.*transformers [\d.]+.*commit", text)
    folder, hour = text.split("## ")[1:]
    for table, columns in ((folder, 8), (hour, 7)):
        peer, plain = (
            re.search(rf"^\| {name}.*\|$", table, re.M)[0].strip("| ").split(" | ")
            for name in ("transformers pipeline", "torch float32")
        )
        assert len(plain) == columns
        # Seconds stand there with one digit, and a tiny model takes a tenth of one.
        theirs, ours = float(peer[1]), float(plain[1])
        assert (theirs - 0.05) / (ours + 0.05) <= float(plain[4]) + 0.01
        assert float(plain[4]) - 0.01 <= (theirs + 0.05) / max(ours - 0.05, 1e-3)
        assert plain[-2].endswith(" %")
        assert float(plain[-1]) >= 0
