"""How hard both losses of stage 1 pull at the weights: `python -m experiments gradients`."""

import json
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
    run = pretrain(tmp_path, "labelled", 0.25)
    light, config = measure(run, 2), run / "last" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"ctc_weight": 0.75}))
    heavy = measure(run, 2)
    for part in PARTS:
        assert len(light[part].ctc) == 2
        assert -1 <= light[part].cosine <= 1
        # Of the same weights and draws CTC counts three times as much, and contrast a third.
        assert light[part].ratio == pytest.approx(9 * heavy[part].ratio, rel=1e-3)
    assert app(["gradients", str(run), "--num-batches", "1"]) == 0
    assert capsys.readouterr().out.count(f"| {tmp_path.name} |") == len(PARTS)


def test_a_run_without_transcripts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run: must learn from labelled data, but has none"):
        measure(pretrain(tmp_path, "unlabelled"), 1)
