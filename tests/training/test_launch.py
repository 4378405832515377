"""accelerate's launcher starts several processes on a CPU, with the command of docs/training.md."""

import os
import subprocess
import sys

import pytest

from tone_corpus import write_corpus, write_recipe
from unispeech.training.state import load_state


@pytest.mark.slow
def test_accelerate_launch_trains_in_two_processes(tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", write_corpus(tmp_path / "tones", 12))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = ["--mixed_precision", "no", "--main_process_port", "0"]
    command = ["-m", "unispeech", "finetune", str(recipe), "-o", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launcher, *settings, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    state = load_state(tmp_path / "run" / "last")
    assert (state.update, state.micro_batches, len(state.ranks)) == (6, 2, 2)
