"""The benchmark of boundaries on the example recordings: what it prints, and what is promised of `align`."""

import json
import re
import subprocess
import sys
from pathlib import Path

from labelled_cuts import cut, write_cuts

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(folder, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / "boundaries.py", EXAMPLES / "checkpoint", folder]
    return subprocess.run([*command, "--half", "all", *arguments], capture_output=True, text=True)


def test_extents_are_more_than_twice_as_good_as_spikes(tmp_path):
    references = json.loads((EXAMPLES / "recordings" / "reference.json").read_text(encoding="utf-8"))
    lines = []
    for number, reference in enumerate(references[:4]):
        line = cut(EXAMPLES / "recordings" / reference["audio"], speaker=reference["audio"])
        times = [[p["phone"], p["start"], p["end"] - p["start"], None] for p in reference["phones"]]
        if number == 0:  # as espeak-ng may write it
            assert times[1][0] == "aɪ"
            times[1][0] = "aɪː"
        if number == 3:  # which the table lacks too
            times[1][0] = "ʘ"
        line["supervisions"][0]["alignment"] = {"phone": times}
        lines.append(line)
    folder = write_cuts(tmp_path, lines)
    done = run(folder, "--fold", ROOT / "recipes" / "multilingual-phones.tsv")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "left out for phones that the model lacks: {'ʘ': 1}\n"
    assert done.stdout.startswith("3 utterances, ")
    found = re.findall(r"^\| ([a-z: ]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", done.stdout, re.M)
    median = {name: float(value) for name, _, value, _ in found}
    assert len(median) == 6
    assert int(found[0][1]) == 2 * sum(len(reference["phones"]) for reference in references[:3])
    assert median["align"] < min(15, median["align: spikes"] / 2)
    assert median["align"] < median["align: extents by the network alone"] < median["align: spikes"]
    assert median["transcribe: extents"] < median["transcribe: spikes"] / 2
