"""The benchmark of decoding runs, in its quick form."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decoding.py"


def test_quick_form_measures_every_way(tmp_path):
    report = tmp_path / "report.md"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--output", report], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert report.read_text(encoding="utf-8") == done.stdout
    rows = re.findall(r"^\| (sure|unsure) \| (.+) \| [\d.]+ \| [\d.]+ \|$", done.stdout, re.M)
    assert len(rows) >= 12
    assert {"greedy", "beam", "beam, LM"} <= {way for _, way in rows}
