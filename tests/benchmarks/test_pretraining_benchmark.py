"""The benchmark of pre-training runs, in its quick form, and says what it promises to say."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretraining.py"


def test_quick_form_writes_every_table(tmp_path):
    report = tmp_path / "report.md"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--profile", "--output", report],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text = report.read_text(encoding="utf-8")
    assert text == done.stdout
    for heading in ("## A step", "## Padding", "## The input pipeline", "## Profile: quick, float32"):
        assert heading in text
    (step,) = re.findall(r"^\| quick \| float32 \|.*$", text, re.M)
    cells = [float(cell.rstrip("%")) for cell in step.strip("| ").split(" | ")[3:]]
    ours, theirs, ratio, of_matrix_rate, our_memory, their_memory, share = cells
    assert min(ours, theirs, ratio) > 0
    assert 0 <= of_matrix_rate < 100  # of so small a network next to nothing
    assert 0 < our_memory < their_memory and 0 < share < 1
    shares = [float(found) for found in re.findall(r"([\d.]+)% \|$", text.split("## Profile")[1], re.M)]
    assert abs(sum(shares) - 100) < 1
    for part in ("convolutions", "encoder products", "quantizer", "contrastive task", "CTC", "optimiser"):
        assert f"| {part} |" in text
