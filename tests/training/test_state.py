"""Checkpoints survive a full disk, a kill at any point and torn files."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unispeech.errors import CheckpointError
from unispeech.training.state import (
    TrainingState,
    find_checkpoint,
    load_state,
    save_checkpoint,
    seed_update,
    settle_checkpoints,
)


def save(directory: Path, update: int, *, weights: int = 10, moments: int = 0) -> None:
    state = TrainingState(
        update=update,
        optimizer={"step": torch.tensor(1.5), "moments": torch.zeros(moments)},
        ranks=[{"batches": {"n": (1, 2)}}],
    )

    def save_model(place: Path) -> None:
        save_file({"weights": torch.zeros(weights)}, place / "model.safetensors")

    save_checkpoint(directory, state, save_model=save_model, recipe="version: 1\n")


def test_a_state_reads_back(tmp_path):
    save(tmp_path / "last", 7)
    state = load_state(tmp_path / "last")
    assert (state.update, state.best, state.ranks) == (7, None, [{"batches": {"n": (1, 2)}}])
    assert state.optimizer["step"] == torch.tensor(1.5)
    assert (tmp_path / "last" / "training_state" / "recipe.yaml").read_text() == "version: 1\n"


def test_a_state_of_an_earlier_version_reads_too(tmp_path):
    save(tmp_path / "last", 7)
    inside = tmp_path / "last" / "training_state"
    values = torch.load(inside / "state.pt", weights_only=True)
    del values["num_suspect"]
    torch.save(values, inside / "state.pt")
    sizes = json.loads((inside / "files.json").read_text())
    sizes["training_state/state.pt"] = (inside / "state.pt").stat().st_size
    (inside / "files.json").write_text(json.dumps(sizes))
    assert load_state(tmp_path / "last").num_suspect == 0


def test_a_newer_checkpoint_replaces_the_older(tmp_path):
    save(tmp_path / "last", 1)
    save(tmp_path / "last", 2)
    assert load_state(tmp_path / "last").update == 2
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


WRITE_WITH_LIMIT = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
import test_state
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for sizes in ({"weights": 50_000}, {"moments": 50_000}):
    try:
        test_state.save(Path(sys.argv[2]), 2, **sizes)
    except OSError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """The system itself refuses more than 20 kB per file, once to safetensors and once to torch."""
    save(tmp_path / "last", 1)
    done = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_LIMIT, str(Path(__file__).parent), str(tmp_path / "last")],
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == 2
    for line in said:
        assert "last: checkpoint of update 2 could not be written (" in line
        assert "File too large" in line
        assert line.endswith(f"the checkpoint that was there is untouched in {tmp_path / 'last'}.")
    assert load_state(tmp_path / "last").update == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_library_that_hides_the_reason_is_caught_too(tmp_path):
    def save_model(place: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed\nand more")

    with pytest.raises(
        OSError, match=r"last: checkpoint of update 3 could not .*StreamWriter failed\); none is there"
    ):
        save_checkpoint(tmp_path / "last", TrainingState(update=3), save_model=save_model, recipe="")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    save(tmp_path / "last", 1)
    save(tmp_path / "next", 2)
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "next").rename(tmp_path / "last.new")
    said: list[str] = []
    assert find_checkpoint(tmp_path, said.append) == tmp_path / "last.new"
    assert said == []


def test_what_a_kill_left_is_put_into_its_place(tmp_path):
    save(tmp_path / "last", 1)
    save(tmp_path / "last.new", 2)  # before the first rename
    save(tmp_path / "best.old", 1)  # between the two, and what was new is torn
    (tmp_path / "best.new").mkdir()
    (tmp_path / ".last.new.123.new").mkdir()  # of the model's own writer
    settle_checkpoints(tmp_path)
    assert load_state(tmp_path / "last").update == 2
    assert load_state(tmp_path / "best").update == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last"]


def test_a_torn_checkpoint_stays_where_there_is_no_better(tmp_path):
    save(tmp_path / "last", 3)
    (tmp_path / "last" / "model.safetensors").write_bytes(b"w")
    (tmp_path / "last.new").mkdir()
    settle_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_torn_checkpoints_are_passed_over_with_a_line(tmp_path):
    save(tmp_path / "best", 1)
    save(tmp_path / "last", 3)
    (tmp_path / "last" / "model.safetensors").write_bytes(b"w")
    (tmp_path / "last.new").mkdir()
    said: list[str] = []
    assert find_checkpoint(tmp_path, said.append) == tmp_path / "best"
    assert len(said) == 2
    assert said[0].endswith("must be complete, but model.safetensors has another size. It is passed over.")
    assert said[1].endswith("must be complete, but files.json is missing. It is passed over.")


def test_a_run_without_checkpoint_has_none(tmp_path):
    assert find_checkpoint(tmp_path, print) is None


@pytest.mark.parametrize("tear", ["missing", "no-pickle", "list"])
def test_what_is_torn_is_named(tmp_path, tear):
    save(tmp_path / "last", 3)
    inside = tmp_path / "last" / "training_state"
    if tear == "missing":
        (inside / "state.pt").unlink()
    elif tear == "no-pickle":
        (inside / "state.pt").write_bytes(b"?" * (inside / "state.pt").stat().st_size)
    else:
        (inside / "files.json").write_text(json.dumps([])[:1])
    with pytest.raises(CheckpointError, match=r"last: checkpoint must be complete, but "):
        load_state(tmp_path / "last")


def test_nothing_foreign_is_unpickled(tmp_path):
    save(tmp_path / "last", 3)
    inside = tmp_path / "last" / "training_state"
    torch.save({"update": Path("x")}, inside / "state.pt")
    sizes = json.loads((inside / "files.json").read_text())
    sizes["training_state/state.pt"] = (inside / "state.pt").stat().st_size
    (inside / "files.json").write_text(json.dumps(sizes))
    with pytest.raises(CheckpointError, match=r"must be complete, but Weights only load failed"):
        load_state(tmp_path / "last")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_an_update_has_random_numbers_of_its_own():
    seen = set()
    for key in [
        (1, 0, 5, "model"),
        (1, 0, 5, "data"),
        (1, 1, 5, "model"),
        (1, 0, 6, "model"),
        (2, 0, 5, "model"),
    ]:
        seed_update(*key)
        first = draw()
        seed_update(*key)
        assert draw() == first
        seen.add(first)
    assert len(seen) == 5
