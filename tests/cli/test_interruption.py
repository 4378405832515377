"""SIGINT and SIGTERM before a training has begun: one line, the status of the shell."""

import signal
import subprocess
import sys

import pytest

COME_WHILE_IMPORTING = """
import os, sys

class Finder:
    def find_spec(self, name, *place):
        if name == "torch":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
from unispeech.cli import main
main([{verb!r}, "recipe.yaml", "-o", "run"])
"""


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_imports_ends_in_one_line(tmp_path, verb, number, status):
    code = COME_WHILE_IMPORTING.format(number=int(number), verb=verb)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr == f"unispeech: stopped by {number.name}; checkpoints stay as they are.\n"
    assert list(tmp_path.iterdir()) == []
