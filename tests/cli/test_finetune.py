"""`unispeech finetune` as a process: killed, told to stop, taken up again, misused."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tone_corpus import write_corpus, write_recipe
from unispeech.cli import main
from unispeech.training.finetune import run_finetuning
from unispeech.training.state import load_state

torch.set_num_threads(1)

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
COMMAND = [sys.executable, "-m", "unispeech", "finetune"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    train, dev = write_corpus(folder / "train", 16), write_corpus(folder / "dev", 4, seed=1)
    return write_recipe(
        folder / "recipe.yaml",
        train,
        dev,
        model={"layerdrop": 0.3},
        masking={"time_prob": 0.3},
        data={"num_workers": 1},
        schedule={"num_updates": 25},
        runtime={"log_every": 3, "validate_every": 10, "save_every": 5},
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def log(run: Path) -> list[dict[str, float]]:
    clocked = ("audio_seconds_per_second", "waiting_fraction", "eta_seconds")
    lines = []
    for line in (run / "log.jsonl").read_text().splitlines():
        lines.append({key: value for key, value in json.loads(line).items() if key not in clocked})
    return lines


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    while not (run / "last").exists() and process.poll() is None:
        time.sleep(0.01)


def test_killed_stopped_and_resumed_is_as_if_nothing_had_happened(recipe, tmp_path):
    straight, other = tmp_path / "straight", tmp_path / "other"
    process = start(recipe, "-o", other)
    wait_for_checkpoint(other, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = start("-o", other, "--resume")
    while process.poll() is None and "going on" not in process.stderr.readline():
        pass
    process.stderr.readline()
    process.terminate()
    process.communicate()
    assert process.returncode == 143

    process = start("-o", other, "--resume")
    output, errors = process.communicate()
    assert (process.returncode, output, "going on after update" in errors) == (0, "", True)
    run_finetuning(recipe, straight)
    assert log(straight) == log(other)
    weights, resumed = (load_file(run / "last" / "model.safetensors") for run in (straight, other))
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


LARGEST_FILE = 20_000
"""Bytes; the log fits, the weights do not."""


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """Have the system itself refuse to write more to any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    # Without workers: what they hand over counts as files too.
    run_finetuning(recipe, run, ["schedule.num_updates=1", "data.num_workers=0"])
    before = {name: (run / name / "model.safetensors").read_bytes() for name in ("best", "last")}
    assert len(before["last"]) > LARGEST_FILE
    capsys.readouterr()
    with no_file_larger_than(LARGEST_FILE), pytest.raises(SystemExit) as left:
        main(["finetune", "-o", str(run), "--resume", "--set", "schedule.num_updates=2"])
    assert left.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"unispeech: {run}/")
    assert ": checkpoint of update 2 could not be written (" in line and "File too large" in line
    assert "the checkpoint that was there is untouched in " in line
    for name, weights in before.items():
        assert load_state(run / name).update == 1
        assert (run / name / "model.safetensors").read_bytes() == weights
    assert not list(run.glob("*.new"))


def test_mistakes_are_one_line(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["finetune", str(recipe), "-o", str(tmp_path / "run"), "--set", "optim.learing_rate=1"])
    assert left.value.code == 2
    told = "unknown key `optim.learing_rate`; did you mean `optim.learning_rate`?"
    assert capsys.readouterr().err == f"unispeech: --set optim.learing_rate=1: {told}\n"
