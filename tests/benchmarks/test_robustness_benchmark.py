"""The benchmark of what is done to sounds: each change by itself, and the table of the example recordings."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labelled_cuts import cut, write_cuts

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPT = ROOT / "benchmarks" / "robustness.py"


@pytest.fixture(scope="module")
def robustness():
    spec = importlib.util.spec_from_file_location("robustness", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sound():
    tone = 0.5 * np.sin(np.arange(16_000) * 0.5).astype(np.float32)
    return np.concatenate([np.zeros(1600, np.float32), tone, np.zeros(3200, np.float32)])


def test_every_change_leaves_a_sound_of_its_length(robustness, sound):
    lengths = {
        name: len(change(sound, np.random.default_rng(0))) for name, change in robustness.CHANGES.items()
    }
    other = {
        "a fifth slower and lower": 26_000, "a quarter faster and higher": 16_640,
        "silent ends cut off": 16_000,
        "0.3 s of zeros at both ends": 30_400, "1 s of zeros at both ends": 52_800,
        "1 s of faint noise at both ends": 52_800, "3 s of faint noise at both ends": 116_800,
    }  # fmt: skip
    assert lengths == dict.fromkeys(robustness.CHANGES, 20_800) | other


def test_noise_has_the_level_that_it_says(robustness, sound):
    noise = robustness.noisy(10.0)(sound, np.random.default_rng(0)) - sound
    ratio_db = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2) / np.mean(noise.astype(np.float64) ** 2))
    assert ratio_db == pytest.approx(10.0, abs=0.01)
    padded = robustness.padded(1.0, 0.003)(sound, np.random.default_rng(0))
    assert padded[:16_000].std() == pytest.approx(0.0015, rel=0.05)
    assert np.array_equal(padded[16_000:-16_000], sound)


def test_models_stand_beside_one_another(tmp_path):
    reference = json.loads((EXAMPLES / "recordings" / "reference.json").read_text(encoding="utf-8"))[-1]
    line = cut(EXAMPLES / "recordings" / reference["audio"], speaker="a")
    line["supervisions"][0]["custom"] = {"phones": " ".join(p["phone"] for p in reference["phones"])}
    folder = write_cuts(tmp_path, [line])
    checkpoint = EXAMPLES / "checkpoint"
    options = ["--output", tmp_path / "found.json", "--figure", tmp_path / "found.png"]
    command = [sys.executable, SCRIPT, folder, "--models", checkpoint, checkpoint, "--names", "one", "two"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| sound | one | two |" in done.stdout
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \([^|]*\) \| ([\d.]+) \(", done.stdout, re.M)
    rates = {name: (float(one), float(two)) for name, one, two in rows}
    assert len(rates) == 15
    assert all(one == two for one, two in rates.values())
    assert rates["as recorded"][0] < 20
    assert len(set(rates.values())) > 3
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_nothing_measured_is_said_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--output", tmp_path / "none.json"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "nothing was measured yet" in done.stderr.splitlines()[-1]
