"""What is wrong with the input comes to the user as one line that names the file, whatever the verb."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from labelled_cuts import cut, write_cuts
from tiny_recognisers import save_classifier, save_recogniser, write_babble
from unispeech.cli import main


@pytest.fixture
def model_dir(tmp_path):
    return save_recogniser(tmp_path / "model")


@pytest.fixture
def good(tmp_path):
    return write_babble(tmp_path / "good.wav", 0.5)


def fail(capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, what was written, and the one line of the error."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    [line] = [line for line in err.splitlines() if ": encoder and head kept" not in line]
    assert line.startswith("unispeech: ")
    return left.value.code, out, line.removeprefix("unispeech: ")


def float_file(path, value):
    soundfile.write(path, np.array([0.1, value] * 4000, np.float32), 16_000, subtype="FLOAT")


BROKEN = {
    "missing": (lambda path, whole: None, "there is no such file"),
    "empty": (lambda path, whole: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "truncated": (lambda path, whole: path.write_bytes(whole[:9000]), "holds 0.28 s of the 0.50 s that"),
    "header": (lambda path, whole: path.write_bytes(whole[:44]), "holds 0 of the .* bytes that its header"),
    "text": (lambda path, whole: path.write_text("hello\n"), "must be audio .*, but is text; convert it"),
    "nan": (lambda path, whole: float_file(path, np.nan), "finite, but 4000 of 8000 are NaN or infinite"),
    "infinite": (lambda path, whole: float_file(path, np.inf), "finite, but 4000 of 8000 are NaN or infi"),
    "folder": (lambda path, whole: path.mkdir(), "must hold recordings, but holds none"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_transcribe_names_the_recording_and_does_the_rest(capsys, tmp_path, model_dir, good, kind):
    make, message = BROKEN[kind]
    broken = tmp_path / "broken.wav"
    make(broken, good.read_bytes())
    status, out, err = fail(capsys, "transcribe", broken, good, "-m", model_dir)
    assert status == 1
    assert out.startswith(f"{good}\t")
    assert err.startswith(f"{broken}: ")
    assert pytest.raises(ValueError, match=message).matches(ValueError(err))


def without(name):
    return lambda folder: (folder / name).unlink()


def fewer_symbols(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary.popitem()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


UNUSABLE = {
    "no weights": (without("model.safetensors"), "must hold weights, but has neither model.safetensors"),
    "no vocabulary": (
        without("vocab.json"),
        "has no vocab.json; copy the one that the head was trained with there",
    ),
    "no configuration": (without("config.json"), "must hold a model, but has no config.json"),
    "other vocabulary": (
        fewer_symbols,
        r"as the head has classes \(7\), but has 6; take the vocab.json that",
    ),
}


@pytest.mark.parametrize("verb", ["transcribe", "evaluate"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_model_is_named(capsys, tmp_path, model_dir, good, verb, kind):
    spoil, message = UNUSABLE[kind]
    spoil(model_dir)
    data = write_cuts(tmp_path / "cuts.jsonl.gz", [cut(good, phones="a")])
    arguments = (good, "-m", model_dir) if verb == "transcribe" else (model_dir, data)
    status, out, err = fail(capsys, verb, *arguments)
    assert (status, out) == (2, "")
    assert str(model_dir) in err
    assert pytest.raises(ValueError, match=message).matches(ValueError(err))


def test_the_models_of_a_run_are_named(capsys, tmp_path, model_dir, good):
    run = tmp_path / "run"
    shutil.copytree(model_dir, run / "last")
    status, _, err = fail(capsys, "transcribe", good, "-m", run)
    assert (status, err) == (
        2,
        f"{run}: must hold a model, but has no config.json; it is a run, so name {run / 'last'}.\n".strip(),
    )


def test_bench_refuses_what_is_no_recogniser(capsys, tmp_path):
    status, _, err = fail(capsys, "bench", save_classifier(tmp_path / "model", ["yes", "no"]))
    assert status == 2
    assert "run it with `unispeech classify`" in err


def test_what_has_no_place_is_named(capsys):
    status, _, err = fail(capsys, "finetune", "a.yaml", "-o", "run", "--set", "num_updates", "5")
    assert (status, err) == (2, "there is no place for 5; see unispeech finetune --help.")


def test_evaluate_names_a_label_that_the_model_lacks(capsys, tmp_path, good):
    model_dir = save_classifier(tmp_path / "classifier", ["yes", "no"])
    data = write_cuts(tmp_path / "cuts.jsonl.gz", [cut(good, label="noo")])
    status, _, err = fail(capsys, "evaluate", model_dir, data)
    assert status == 2
    assert err.startswith(
        "good: label must be one of the model's (yes, no), but is 'noo'; did you mean 'no'?"
    )


def test_a_folder_that_is_not_there_is_not_sought_on_the_network(capsys, monkeypatch, tmp_path, good):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    def refuse(*arguments, **settings):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    status, _, err = fail(capsys, "transcribe", good, "-m", "runs/best")
    assert (status, err) == (2, "runs/best: no such model directory; a Hub id has the form owner/name.")


def test_finetune_names_a_phone_that_the_vocabulary_lacks(capsys, tmp_path, model_dir, good):
    data = write_cuts(tmp_path / "cuts.jsonl.gz", [cut(good, phones="a qq")])
    shutil.copytree(model_dir, tmp_path / "start")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model:\n  init: {tmp_path / 'start'}\n"
        f"data:\n  train: {data}\n  dev: {data}\n  vocabulary: {tmp_path / 'start'}\n"
    )
    status, _, err = fail(capsys, "finetune", recipe, "-o", tmp_path / "run")
    assert status == 2
    assert err.startswith(f"{data / 'cuts.jsonl.gz'}: ") and "q (" in err
    assert err.endswith("prepare the corpus with --vocabulary.")
