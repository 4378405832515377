"""Files and settings that once gave a traceback, a wait without end, a lost row or a lost file."""

import json
import os

import numpy as np
import pytest
import soundfile

from tiny_recognisers import save_recogniser, tiny_recogniser, write_babble
from unispeech.audio import load_audio
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.data.corpora import Preparation, prepare_corpus
from unispeech.data.cuts import CutFiles
from unispeech.data.readers import read_corpus
from unispeech.data.synthesis import synthesise_corpus
from unispeech.data.synthesis_plan import Size
from unispeech.engines.torch_engine import find_device
from unispeech.errors import CheckpointError, ManifestError
from unispeech.training.recipe import FinetuneRecipe, load_recipe
from unispeech.training.sections import OptimSettings


def test_a_model_is_never_saved_over_a_file(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(
        NotADirectoryError, match=r"thesis\.docx: must be a folder for the model, but is a fi"
    ):
        save_model(tiny_recogniser(), tmp_path / "thesis.docx")
    assert (tmp_path / "thesis.docx").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must hold a JSON object, but does not"),
        (None, "must hold a JSON object, but does not|cannot be loaded"),
        ({"model_type": "unispeech", "dtype": "float99"}, "cannot be loaded: .*float99"),
    ],
)
def test_a_configuration_of_another_kind_is_named(tmp_path, content, message):
    folder = save_recogniser(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{folder}: .*({message})"):
        load_model(folder, head="ctc")


def test_samples_whose_squares_overflow_are_refused(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([3e38, -3e38] * 500, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(ManifestError, match=r"samples must lie in \[-1, 1\], but reach 3e\+38; write"):
        load_audio(path)


def test_a_device_that_cannot_compute_is_refused():
    with pytest.raises(ValueError, match="`device` must be one that torch finds on this machine"):
        find_device("meta")


def test_endless_speech_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`size` must be positive and finite"):
        synthesise_corpus([], tmp_path, None, Size(seconds=float("nan")))


def test_a_quotation_that_never_ends_swallows_no_row(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,text\na.wav,"open\nb.wav,lost\n')
    with pytest.raises(ManifestError, match=r"metadata\.csv:\d: must be CSV, but is not"):
        list(read_corpus(tmp_path))


def test_half_a_character_is_a_bad_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "\\ud800"}\n{"audio": "b.wav", "text": "ok"}\n')
    bad, good = read_corpus(path)
    assert "half of a surrogate pair" in bad.detail
    assert good.text == "ok"


def test_file_names_of_another_encoding_are_prepared(tmp_path):
    folder = os.fsencode(tmp_path / "corpus" / "yes")
    os.makedirs(folder)
    for name in (b"caf\xe9.wav", b"empty\xe9.wav"):
        os.rename(write_babble(tmp_path / "a.wav", 0.5), os.path.join(folder, name))
    with open(os.path.join(folder, b"empty\xe9.wav"), "wb"):
        pass
    report = prepare_corpus(tmp_path / "corpus", tmp_path / "out", Preparation(units="label"))
    assert (report.num_kept, report.num_rejected) == (1, 1)
    [cut] = CutFiles(tmp_path / "out")
    assert len(load_audio(cut.recording.sources[0].source)) == 8000
    assert len((tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_a_recipe_nested_without_end_is_one_line(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000)
    with pytest.raises(ValueError, match=r"deep\.yaml:1: must be YAML, but is nested too deeply"):
        load_recipe(FinetuneRecipe, tmp_path / "deep.yaml")


def test_an_infinite_learning_rate_is_refused():
    with pytest.raises(ValueError, match=r"`optim\.learning_rate` must be positive, but is inf"):
        OptimSettings(learning_rate=float("inf"))
