"""`unispeech pretrain` from recipe to run directory, and each stage from the one before it."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from tone_corpus import TINY, write_corpus
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError, ManifestError
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.training.finetune import run_finetuning
from unispeech.training.pretrain import run_pretraining, streams
from unispeech.training.recipe import PretrainRecipe, load_recipe

torch.set_num_threads(1)

QUANTIZER = {
    "num_codevectors_per_group": 8,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("streams")
    return {
        "labelled": write_corpus(folder / "labelled", 16),
        "unlabelled": write_corpus(folder / "unlabelled", 16, seed=3),
        "dev": write_corpus(folder / "dev", 6, seed=1),
    }


def write_recipe(path: Path, *, init: Path | None = None, **sections: dict) -> Path:
    model = {"init": str(init)} if init else {"config": TINY | QUANTIZER}
    recipe = {
        "version": 1,
        "model": model | sections.pop("model", {}),
        "data": {"batch_seconds": 4, "min_seconds": 0.1} | sections.pop("data"),
        "masking": {"time_prob": 0.3, "time_length": 2},
        "objective": {"num_negatives": 5} | sections.pop("objective", {}),
        "schedule": {"num_updates": 4} | sections.pop("schedule", {}),
        "runtime": {"precision": "float32", "log_every": 1, "validate_every": 4, "save_every": 2},
        **sections,
    }
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def log(run: Path, key: str) -> list[float]:
    read = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in read if key in line]


@pytest.fixture(scope="module")
def stage_one(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage-one")
    data = {"labelled": [str(corpus["labelled"])], "dev": [str(corpus["dev"])]}
    recipe = write_recipe(folder / "recipe.yaml", data=data, objective={"negatives_from": "all"})
    run_pretraining(recipe, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def stage_two(corpus, stage_one, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage-two")
    data = {"unlabelled": [str(corpus["unlabelled"])], "dev": [str(corpus["dev"])]}
    run_pretraining(write_recipe(folder / "recipe.yaml", init=stage_one, data=data), folder / "run")
    return folder / "run"


def test_stage_one_leaves_a_model_with_its_vocabulary(stage_one):
    for name in ("best", "last"):
        model = load_model(stage_one / name)
        assert isinstance(model, UniSpeechForPreTraining)
        assert model.config.num_ctc_classes == 5
        assert model.config.negatives_from == "all"
        assert Vocabulary.load(stage_one / name).symbols == ("<pad>", "a", "b", "c", "d")
    assert len(log(stage_one, "loss/ctc")) == 4
    assert len(log(stage_one, "dev/per")) == 1


def test_stage_two_carries_everything_over_and_learns_by_contrast(stage_one, stage_two):
    one, two = (load_model(run / "last") for run in (stage_one, stage_two))
    assert torch.equal(one.ctc_proj.weight, two.ctc_proj.weight)
    assert not torch.equal(one.quantizer.codevectors, two.quantizer.codevectors)
    assert two.config.negatives_from == "masked"
    assert not log(stage_two, "loss/ctc")
    assert log(stage_two, "dev/per"), "of the head that it carries"
    assert log(stage_two, "dev/loss/contrastive")
    assert log(stage_two, "temperature")[0] == 2.0, "the count of updates starts anew"
    assert Vocabulary.load(stage_two / "best").symbols == ("<pad>", "a", "b", "c", "d")


def test_stage_two_starts_with_the_weights_of_stage_one(corpus, stage_one, tmp_path):
    """One update at a learning rate of almost 0 leaves every weight where it was."""
    data = {"unlabelled": [str(corpus["unlabelled"])]}
    recipe = write_recipe(tmp_path / "recipe.yaml", init=stage_one, data=data)
    small = ["optim.learning_rate=1e-30", "schedule.num_updates=1"]
    run_pretraining(recipe, tmp_path / "run", small)
    one, two = load_model(stage_one / "best").state_dict(), load_model(tmp_path / "run" / "last").state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_dev_phones_that_the_head_does_not_know_are_told_and_not_judged(corpus, tmp_path, capfd):
    model = UniSpeechForPreTraining(UniSpeechConfig(num_ctc_classes=4, **TINY | QUANTIZER))
    save_model(model, tmp_path / "narrow", Vocabulary.build(["a b c"], kind="phones"))
    data = {"unlabelled": [str(corpus["unlabelled"])], "dev": [str(corpus["dev"])]}
    run_pretraining(
        write_recipe(tmp_path / "recipe.yaml", init=tmp_path / "narrow", data=data), tmp_path / "run"
    )
    assert re.search(r"dev: no dev/per, .*: d \(\d+ times", "".join(capfd.readouterr().err.splitlines()))
    assert log(tmp_path / "run", "dev/loss/contrastive")
    assert not log(tmp_path / "run", "dev/per")


def test_the_gradient_of_stage_two_is_whole_again_in_stage_three(corpus, stage_one, tmp_path):
    data = {"unlabelled": [str(corpus["unlabelled"])]}
    scaled = write_recipe(
        tmp_path / "recipe.yaml", init=stage_one, data=data, objective={"feature_grad_mult": 0.1}
    )
    run_pretraining(scaled, tmp_path / "two", ["schedule.num_updates=1"])
    tuning = tmp_path / "finetune.yaml"
    tuning.write_text(
        yaml.safe_dump({
            "version": 1,
            "model": {"init": str(tmp_path / "two")},
            "data": {"train": [str(corpus["labelled"])], "batch_seconds": 4},
            "schedule": {"num_updates": 1},
            "runtime": {"precision": "float32"},
        })
    )
    run_finetuning(tuning, tmp_path / "three")
    configs = (load_model(tmp_path / run / "last").config for run in ("two", "three"))
    assert [config.feature_grad_mult for config in configs] == [0.1, 1.0]


def test_stage_three_starts_from_the_run_of_a_stage(corpus, stage_two, tmp_path, capfd):
    recipe = tmp_path / "finetune.yaml"
    recipe.write_text(
        yaml.safe_dump({
            "version": 1,
            "model": {"init": str(stage_two)},
            "data": {"train": [str(corpus["labelled"])], "batch_seconds": 4},
            "schedule": {"num_updates": 2},
            "runtime": {"precision": "float32"},
        })
    )
    run_finetuning(recipe, tmp_path / "run")
    assert isinstance(load_model(tmp_path / "run" / "last"), UniSpeechForCTC)
    assert f"{stage_two}/best: encoder and head kept" in capfd.readouterr().err


def test_both_streams_in_one_run_are_mixed_by_their_share(corpus, tmp_path):
    data = {
        "labelled": [str(corpus["labelled"])],
        "unlabelled": [str(corpus["unlabelled"])],
        "unlabelled_share": 0.25,
        "dev": [str(corpus["dev"])],
        "language_exponent": 0.5,
    }
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        data=data,
        schedule={"num_updates": 8},
        augmentation={"speed": [0.9, 1.1], "noise_prob": 0.5, "reverb_prob": 0.2, "telephone_prob": 0.2},
    )
    run_pretraining(recipe, tmp_path / "run")
    labelled, unlabelled = streams(load_recipe(PretrainRecipe, tmp_path / "run" / "recipe.yaml"))
    assert (labelled.share, unlabelled.share) == (0.75, 0.25)
    assert len(log(tmp_path / "run", "loss")) == 8
    # A line without labelled rows has no CTC loss to tell of.
    assert len(log(tmp_path / "run", "loss/ctc")) == 6
    assert log(tmp_path / "run", "dev/per")


def test_a_killed_mixed_run_goes_on_to_the_bit(corpus, tmp_path):
    data = {"labelled": [str(corpus["labelled"])], "unlabelled": [str(corpus["unlabelled"])]}
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        data=data,
        augmentation={"speed": [0.9, 1.1], "noise_prob": 0.5},
        schedule={"num_updates": 6, "kind": "constant", "warmup_fraction": 0},
    )
    run_pretraining(recipe, tmp_path / "straight")
    run_pretraining(recipe, tmp_path / "resumed", ["schedule.num_updates=4"])
    run_pretraining(None, tmp_path / "resumed", ["schedule.num_updates=6"], resume=True)
    assert log(tmp_path / "straight", "loss") == log(tmp_path / "resumed", "loss")
    one, two = (load_model(tmp_path / run / "last").state_dict() for run in ("straight", "resumed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_layers_that_are_computed_twice_learn_the_same(corpus, tmp_path):
    data = {"labelled": [str(corpus["labelled"])], "unlabelled": [str(corpus["unlabelled"])]}
    recipe = write_recipe(tmp_path / "recipe.yaml", data=data)
    run_pretraining(recipe, tmp_path / "once")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        run_pretraining(recipe, tmp_path / "twice", ["model.gradient_checkpointing=true"])
    one, two = (load_model(tmp_path / run / "last").state_dict() for run in ("once", "twice"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_contrast_alone_needs_no_transcript_from_the_start(corpus, tmp_path):
    data = {"unlabelled": [str(corpus["labelled"]), str(corpus["unlabelled"])]}
    run_pretraining(write_recipe(tmp_path / "recipe.yaml", data=data), tmp_path / "run")
    assert isinstance(load_model(tmp_path / "run" / "last"), UniSpeechForPreTraining)
    assert not (tmp_path / "run" / "last" / "vocab.json").exists()
    run_pretraining(None, tmp_path / "run", ["schedule.num_updates=6"], resume=True)
    assert len(log(tmp_path / "run", "loss")) == 6


def test_a_recogniser_gives_its_encoder_and_the_recipe_the_quantizer(corpus, tmp_path, capfd):
    plain = UniSpeechForCTC(UniSpeechConfig(vocab_size=5, pad_token_id=0, **TINY))
    save_model(plain, tmp_path / "ctc", Vocabulary.build(["a b c d"], kind="phones"))
    data = {"unlabelled": [str(corpus["unlabelled"])]}
    recipe = write_recipe(
        tmp_path / "recipe.yaml", init=tmp_path / "ctc", data=data, model={"config": QUANTIZER}
    )
    run_pretraining(recipe, tmp_path / "run")
    assert load_model(tmp_path / "run" / "last").quantizer.num_vars == 8
    assert "encoder kept; fresh quantizer, CTC head" in capfd.readouterr().err
    assert not (tmp_path / "run" / "last" / "vocab.json").exists(), "the head's symbols are gone"


# ---- what a user can get wrong, told before the first update


def refused(recipe: Path, run: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        run_pretraining(recipe, run)
    assert "\n" not in str(caught.value)
    assert not run.exists(), "nothing is written"


def test_an_incompatible_run_is_refused_by_field(corpus, stage_one, tmp_path):
    data = {"unlabelled": [str(corpus["unlabelled"])]}
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        init=stage_one,
        data=data,
        model={"config": TINY | {"hidden_size": 32}},
    )
    message = r"best: `hidden_size` must be 32 as in `model.config`, but is 16; start from another run"
    refused(recipe, tmp_path / "run", CheckpointError, message)


def test_another_normalisation_is_refused(corpus, stage_one, tmp_path):
    data = {"unlabelled": [str(corpus["unlabelled"])], "normalize": False}
    recipe = write_recipe(tmp_path / "recipe.yaml", init=stage_one, data=data)
    refused(
        recipe,
        tmp_path / "run",
        CheckpointError,
        r"`data.normalize` must be True as the model was trained, but is False",
    )


def test_phones_outside_the_vocabulary_are_listed_with_counts(corpus, tmp_path):
    Vocabulary.build(["a b"], kind="phones").save(tmp_path / "vocabulary")
    data = {"labelled": [str(corpus["labelled"])], "vocabulary": str(tmp_path / "vocabulary")}
    recipe = write_recipe(tmp_path / "recipe.yaml", data=data)
    refused(recipe, tmp_path / "run", ManifestError, r"c \(\d+ times.*d \(\d+ times")


def test_a_stream_without_usable_utterances_is_named(corpus, tmp_path):
    data = {
        "labelled": [str(corpus["labelled"])],
        "unlabelled": [str(corpus["unlabelled"])],
        "min_seconds": 3.9,
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", data=data)
    refused(recipe, tmp_path / "run", ManifestError, r"labelled.*must hold an utterance of 3.9 to 4 s")


def test_a_recipe_of_another_version_is_refused(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", data={"labelled": [str(corpus["labelled"])]})
    recipe.write_text(recipe.read_text().replace("version: 1", "version: 2"))
    refused(recipe, tmp_path / "run", ValueError, r"`version` must be 1, but is 2")


def test_a_run_without_data_is_refused(tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", data={})
    refused(recipe, tmp_path / "run", ValueError, r"`data.labelled` or `data.unlabelled` must name")


def test_a_share_of_everything_is_refused(corpus, tmp_path):
    both = {name: [str(corpus[name])] for name in ("labelled", "unlabelled")}
    recipe = write_recipe(tmp_path / "recipe.yaml", data=both | {"unlabelled_share": 1.0})
    refused(recipe, tmp_path / "run", ValueError, r"`data.unlabelled_share` must lie between 0 and 1")


def test_a_share_of_one_stream_is_refused(corpus, tmp_path):
    data = {"labelled": [str(corpus["labelled"])], "unlabelled_share": 0.25}
    recipe = write_recipe(tmp_path / "recipe.yaml", data=data)
    message = r"recipe.yaml:\d+: `data.unlabelled_share` must be left out with one stream, but is 0.25"
    refused(recipe, tmp_path / "run", ValueError, message)


def test_tags_for_a_vocabulary_that_is_there_are_refused(corpus, stage_one, tmp_path):
    data = {"labelled": [str(corpus["labelled"])], "vocabulary": str(stage_one / "best")}
    recipe = write_recipe(tmp_path / "recipe.yaml", data=data | {"tag_languages": True})
    message = r"`data.tag_languages` must be false where `data.vocabulary`"
    refused(recipe, tmp_path / "run", ValueError, message)


def test_a_broken_recording_is_left_out_counted_and_named(corpus, tmp_path, caplog, capfd, monkeypatch):
    # Another process met the same recording, and one more.
    others = ["tones-5-3", "tones-5-4"]
    monkeypatch.setattr(
        "unispeech.training.session.gather_object",
        lambda told: told + others if told != [None] else told,  # [None]: nobody failed to lock the directory
    )
    folder = write_corpus(tmp_path / "broken", 12, seed=5)
    (folder / "tones-5-3.wav").write_bytes(b"RIFF")
    recipe = write_recipe(
        tmp_path / "recipe.yaml", data={"unlabelled": [str(folder)]}, schedule={"num_updates": 8}
    )
    run_pretraining(recipe, tmp_path / "run")
    assert "tones-5-3: left out, its audio cannot be read" in caplog.text
    assert "2 utterances were left out because they cannot be read" in capfd.readouterr().err


def test_a_step_that_is_not_finite_stops_before_the_update(corpus, tmp_path, monkeypatch):
    from unispeech.training.pretraining import PretrainingStage

    real = PretrainingStage.losses

    def poisoned(self, model, batch, step):
        losses = real(self, model, batch, step)
        if step.update == 2:
            object.__setattr__(losses, "loss_sum", losses.loss_sum * float("nan"))
        return losses

    monkeypatch.setattr(PretrainingStage, "losses", poisoned)
    recipe = write_recipe(tmp_path / "recipe.yaml", data={"labelled": [str(corpus["labelled"])]})
    with pytest.raises(ValueError, match=r"update 3: loss and gradient norm must be finite"):
        run_pretraining(recipe, tmp_path / "run")
    assert "tones-0-" in (tmp_path / "run" / "non-finite-update-3.txt").read_text()
    assert load_model(tmp_path / "run" / "last") is not None


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_that_lists_are_read(corpus, tmp_path, monkeypatch, capsys, is_terminal):
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(is_terminal)))
    recipe = write_recipe(tmp_path / "recipe.yaml", data={"labelled": [str(corpus["labelled"])]})
    run_pretraining(recipe, tmp_path / "run")
    assert ("reading the lists of utterances" in capsys.readouterr().err) is is_terminal
