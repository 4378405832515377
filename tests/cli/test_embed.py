"""`unispeech embed`: files of vectors, what they say of themselves, resuming, sharing the work."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from tiny_recognisers import save_recogniser, write_babble
from unispeech import Embedder
from unispeech.cli import main


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


@pytest.fixture
def clips(tmp_path):
    for i, name in enumerate(["a.wav", "sub/b.wav"]):
        write_babble(tmp_path / "clips" / name, 0.4 + 0.2 * i, i)
    return tmp_path / "clips"


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["embed", *map(str, arguments)])
    return exit_.value.code


def tensors_of(path):
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)


def test_a_folder_of_npy(capsys, model_dir, clips, tmp_path):
    out = tmp_path / "out"
    assert run(clips, "-m", model_dir, "-o", out, "--layer", "-1") == 0
    assert capsys.readouterr() == ("", "")
    expected = Embedder(model_dir, layer=2)
    for name in ("a", "sub/b"):
        found = np.load(out / f"{name}.npy")
        np.testing.assert_allclose(found, expected.embed(clips / f"{name}.wav"), atol=1e-5)
    assert json.loads((out / "embeddings.json").read_text()) == expected.describe()


def test_a_folder_of_safetensors(model_dir, clips, tmp_path):
    out = tmp_path / "out"
    settings = ("-f", "safetensors", "--pooling", "mean+std", "--dtype", "float16", "--layer", "0=0.5,1=0.5")
    assert run(clips, "-m", model_dir, "-o", out, *settings) == 0
    with safe_open(out / "sub/b.safetensors", framework="np") as file:
        vector, metadata = file.get_tensor("embedding"), file.metadata()
    assert (vector.shape, vector.dtype) == ((64,), np.float16)
    assert metadata == {
        "model": model_dir,
        "layer": "0=0.5,1=0.5",
        "pooling": "mean+std",
        "dtype": "float16",
        "frame_rate": "50.0",
        "first_frame": "0.0125",
        "audio": str(clips / "sub/b.wav"),
        "duration": "0.6",
    }


def test_one_file_for_all_that_grows_by_resuming(capsys, model_dir, clips, tmp_path):
    out = tmp_path / "out" / "all.safetensors"
    (clips / "broken.wav").write_text("no sound")
    assert run(clips, "-m", model_dir, "-o", out, "--pooling", "mean") == 1
    assert "broken.wav: must be audio" in capsys.readouterr().err
    first = tensors_of(out)
    assert set(first) == {"a", "sub/b"}
    assert [path.name for path in out.parent.iterdir()] == ["all.safetensors"]
    write_babble(clips / "broken.wav", 0.5)
    assert run(clips, "-m", model_dir, "-o", out, "--pooling", "mean") == 2
    assert capsys.readouterr().err == (
        f"unispeech: {out}: is there already; pass --resume to add what is missing, or remove it.\n"
    )
    assert run(clips, "-m", model_dir, "-o", out, "--pooling", "mean", "--resume") == 0
    second = tensors_of(out)
    assert set(second) == {"a", "sub/b", "broken"}
    for name, vector in first.items():
        np.testing.assert_array_equal(second[name], vector)
    with safe_open(out, framework="np") as file:
        assert file.metadata()["frame_rate"] == "50.0"


def test_an_interruption_loses_nothing(capsys, model_dir, clips, tmp_path, monkeypatch):
    out = tmp_path / "all.safetensors"
    from unispeech.cli.vector_destinations import VectorFile

    with monkeypatch.context() as patch:
        patch.setattr(VectorFile, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(clips / "a.wav", "-m", model_dir, "-o", out) == 130
    assert run(clips, "-m", model_dir, "-o", out) == 2
    assert "all.safetensors.parts: is there already; pass --resume" in capsys.readouterr().err
    part = tmp_path / "all.safetensors.parts" / "a.safetensors"
    before = part.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(VectorFile, "finish", lambda self: None)
        assert run(clips, "-m", model_dir, "-o", out, "--resume") == 0
    assert part.stat().st_mtime_ns == before
    assert run(clips, "-m", model_dir, "-o", out, "--resume") == 0
    assert set(tensors_of(out)) == {"a", "sub/b"}
    assert not part.parent.exists()


def test_processes_share_the_work(model_dir, clips, tmp_path, monkeypatch):
    out = tmp_path / "all.safetensors"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert run(clips, "-m", model_dir, "-o", out) == 0
    names = [set(tensors_of(tmp_path / f"all-0000{rank}-of-00002.safetensors")) for rank in range(2)]
    assert names == [{"a"}, {"sub/b"}]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    write_babble(clips / "c.wav", 0.3)
    assert run(clips, "-m", model_dir, "-o", out, "--resume") == 0
    assert set(tensors_of(out)) == {"c"}
    assert run(clips, "-m", model_dir, "-o", out, "--resume") == 0
    assert set(tensors_of(out)) == {"c"}


def test_resuming_a_folder_leaves_what_is_there(model_dir, clips, tmp_path):
    out = tmp_path / "out"
    assert run(clips / "a.wav", "-m", model_dir, "-o", out) == 0
    before = (out / "a.npy").stat().st_mtime_ns
    assert run(clips, "-m", model_dir, "-o", out, "--resume") == 0
    assert (out / "a.npy").stat().st_mtime_ns == before
    assert (out / "sub/b.npy").exists()


def test_a_long_recording_is_that_of_python(model_dir, tmp_path):
    path = write_babble(tmp_path / "long.wav", 5.0)
    windows = ("--window-seconds", "2", "--overlap-seconds", "0.3")
    assert run(path, "-m", model_dir, "-o", tmp_path / "out", *windows) == 0
    expected = Embedder(model_dir, window_seconds=2.0, overlap_seconds=0.3).embed(path)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "long.npy"), expected, atol=1e-6)


def test_vectors_of_two_kinds_are_not_put_together(capsys, model_dir, clips, tmp_path):
    out, file = tmp_path / "out", tmp_path / "all.safetensors"
    assert run(clips, "-m", model_dir, "-o", out) == run(clips, "-m", model_dir, "-o", file) == 0
    assert run(clips, "-m", model_dir, "-o", out, "--layer", "1") == 2
    assert capsys.readouterr().err == (
        f"unispeech: {out}/embeddings.json: `layer` must be that of the vectors that are there (context), "
        "but is 1; name another place.\n"
    )
    assert run(clips, "-m", model_dir, "-o", file, "--dtype", "float16", "--resume") == 2
    assert f"{file}: `dtype` must be that of the vectors that are there (float32)" in capsys.readouterr().err
    (out / "embeddings.json").write_text("[1]")
    assert run(clips, "-m", model_dir, "-o", out) == 2
    assert "embeddings.json: must say what the vectors are, but is no JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-o", "x.safetensors", "-f", "npy"],
            "`--format` must be safetensors where `--output` is x.safeten",
        ),
        (["-o", "x.npy"], "`--output` must be a folder or a .safetensors file, but is x.npy; name a folder"),
        (["-o", "x", "--layer", "last"], "`layer` must be context, a number, or a weighted sum"),
        (["-o", "x", "--layer", "9"], "`layer` must lie in [-3, 2] for a model of 2 layers"),
    ],
)
def test_wrong_usage_is_one_line(capsys, monkeypatch, tmp_path, model_dir, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run("a.wav", *arguments, "-m", model_dir) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
