"""Runs that start from a model of the Hub; nothing here goes out to the network."""

import socket

import pytest

from tone_corpus import TINY, TONES, write_corpus, write_recipe
from unispeech import UniSpeechConfig, UniSpeechForCTC
from unispeech.checkpoints.huggingface import save_model
from unispeech.errors import CheckpointError
from unispeech.text import Vocabulary
from unispeech.training.finetune import run_finetuning
from unispeech.training.pretrain import run_pretraining
from unispeech.training.sections import ModelSettings

PHONES = Vocabulary.build([" ".join(TONES)], kind="phones")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tones"), 8)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache that holds someone/tiny, on a machine without a network."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    model = UniSpeechForCTC(UniSpeechConfig(**TINY, vocab_size=len(PHONES), pad_token_id=PHONES.blank))
    save_model(model, repository / "snapshots" / ("0" * 40), PHONES, do_normalize=False)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for place in ("huggingface_hub.constants.HF_HUB_CACHE", "huggingface_hub.file_download.HF_HUB_CACHE"):
        monkeypatch.setattr(place, str(tmp_path / "hub"), raising=False)

    def refuse(*arguments, **settings):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def recipe_of(tmp_path, corpus, init, **objective):
    data = {"vocabulary": "init"} if not objective else {"train": None, "labelled": str(corpus)}
    return write_recipe(
        tmp_path / "recipe.yaml",
        corpus,
        model={"config": None, "init": init, "layerdrop": None},
        data=data,
        objective=objective,
        schedule={"num_updates": 1, "warmup_fraction": 0.0},
    )


def test_fine_tuning_starts_from_a_model_of_the_hub(tmp_path, corpus, cached, capfd):
    run_finetuning(recipe_of(tmp_path, corpus, "someone/tiny"), tmp_path / "run")
    assert "someone/tiny: encoder and head kept" in capfd.readouterr().err
    written = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "init: someone/tiny\n" in written
    assert '"do_normalize": false' in (tmp_path / "run" / "last" / "preprocessor_config.json").read_text()
    assert Vocabulary.load(tmp_path / "run" / "last").symbols == PHONES.symbols


def test_pre_training_starts_from_a_model_of_the_hub(tmp_path, corpus, cached, capfd):
    run_pretraining(recipe_of(tmp_path, corpus, "someone/tiny", num_negatives=3), tmp_path / "run")
    assert "someone/tiny: encoder kept; fresh quantizer, CTC head" in capfd.readouterr().err


def test_a_name_that_is_nowhere_is_told_in_one_line(tmp_path, corpus, cached):
    with pytest.raises(
        CheckpointError, match=r"^someone/else: must be a model directory or a Hub id that can"
    ):
        run_finetuning(recipe_of(tmp_path, corpus, "someone/else"), tmp_path / "run")


def test_paths_are_no_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for init in ("runs/best", "model", "./a/b", "/a/b", "a/b/c"):
        assert ModelSettings(init=init).absolute().init == str((tmp_path / init).absolute())
    assert ModelSettings(init="someone/tiny").absolute().init == "someone/tiny"
