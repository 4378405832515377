"""How hard both losses of stage 1 pull at the weights: `python -m experiments gradients`."""

from pathlib import Path

import pytest
import yaml

from experiments.cli import app
from experiments.gradients import PARTS, measure
from tone_corpus import TINY, write_corpus
from unispeech.training.pretrain import run_pretraining


def pretrain(folder: Path, stream: str, ctc_weight: float = 0.5) -> Path:
    sizes = {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 8}
    model = {"config": TINY | sizes | {"num_hidden_layers": 2}}
    recipe = {
        "version": 1,
        "model": model,
        "data": {"batch_seconds": 4, stream: [str(write_corpus(folder / "cuts", 8))]},
        "masking": {"time_prob": 0.3, "time_length": 2},
        "objective": {"num_negatives": 5, "ctc_weight": ctc_weight},
        "schedule": {"num_updates": 2},
        "runtime": {"precision": "float32"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run_pretraining(folder / "recipe.yaml", folder / "run")
    return folder / "run"


def test_the_weight_of_a_loss_is_that_of_its_pull(tmp_path, capsys):
    runs = {}
    for weight in (0.25, 0.75):
        (tmp_path / str(weight)).mkdir()
        runs[weight] = measure(pretrain(tmp_path / str(weight), "labelled", weight), 2)
    for part in PARTS:
        assert len(runs[0.25][part].ctc) == 2
        assert -1 <= runs[0.25][part].cosine <= 1
        # Contrast has three times the weight of CTC in the one run and a third of it in the other.
        assert runs[0.25][part].ratio > 3 * runs[0.75][part].ratio > 0
    assert app(["gradients", str(tmp_path / "0.25" / "run"), "--num-batches", "1"]) == 0
    assert capsys.readouterr().out.count("| 0.25 |") == len(PARTS)


def test_a_run_without_transcripts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run: must learn from labelled data, but has none"):
        measure(pretrain(tmp_path, "unlabelled"), 1)
