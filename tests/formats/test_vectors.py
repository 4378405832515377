"""npy and safetensors, block by block: other programs read them, failures leave nothing."""

import errno
import json

import numpy as np
import pytest
from safetensors import safe_open

from unispeech.formats import vectors
from unispeech.formats.vectors import join_safetensors, read_header, write_npy, write_safetensors


def blocks(dtype="float32", seed=0):
    array = np.random.default_rng(seed).normal(size=(10, 3)).astype(dtype)
    return array, [array[:4], array[4:4], array[4:]]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numpy_reads_what_is_written(tmp_path, dtype):
    array, pieces = blocks(dtype)
    write_npy(tmp_path / "new" / "a.npy", (10, 3), dtype, iter(pieces))
    found = np.load(tmp_path / "new" / "a.npy")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_safetensors_reads_what_is_written(tmp_path, dtype):
    array, pieces = blocks(dtype)
    path = tmp_path / "a.safetensors"
    write_safetensors(path, (10, 3), dtype, iter(pieces), {"frame_rate": 50.0, "layer": "3"})
    with safe_open(path, framework="np") as file:
        assert list(file.keys()) == ["embedding"]
        assert file.metadata() == {"frame_rate": "50.0", "layer": "3"}
        np.testing.assert_array_equal(file.get_tensor("embedding"), array)


def test_files_are_joined_also_with_themselves(tmp_path):
    whole, parts = tmp_path / "all.safetensors", {}
    arrays = {name: blocks(seed=i)[0][:i] for i, name in enumerate(["sub/a", "b", "ä"])}
    for name, array in arrays.items():
        part = tmp_path / f"{len(parts)}.safetensors"
        write_safetensors(part, array.shape, "float32", [array], {})
        parts[name] = read_header(part)[0]["embedding"]
    join_safetensors(whole, {name: parts[name] for name in ("sub/a", "b")}, {"layer": "1"})
    join_safetensors(whole, {**read_header(whole)[0], "ä": parts["ä"]}, {"layer": "1"})
    with safe_open(whole, framework="np") as file:
        assert set(file.keys()) == set(arrays)
        assert file.metadata() == {"layer": "1"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_blocks_that_do_not_fill_the_shape_leave_nothing(tmp_path):
    array, _ = blocks()
    for rows, many in ((11, "3 values short"), (9, "3 values too long")):
        with pytest.raises(ValueError, match=f"`blocks` must fill the shape .* but are {many}; did the rec"):
            write_npy(tmp_path / "a.npy", (rows, 3), "float32", [array])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    array, _ = blocks()
    write_npy(path, (10, 3), "float32", [array])
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vectors, "_write_blocks", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_npy(path, (10, 3), "float32", [array])
    assert caught.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]
    assert path.read_bytes() == before


def test_the_name_of_another_file_that_fails_is_kept(tmp_path):
    def lost():
        raise FileNotFoundError(errno.ENOENT, "gone", "talk.wav")
        yield

    with pytest.raises(FileNotFoundError) as caught:
        write_npy(tmp_path / "a.npy", (1,), "float32", lost())
    assert caught.value.filename == "talk.wav"


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\xff" * 20, b"\2\0\0\0\0\0\0\0{]", b"\2\0\0\0\0\0\0\0[]"]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors: must be a safetensors file that embed wrote"):
        read_header(path)


def test_a_torn_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    array, _ = blocks()
    write_safetensors(path, (10, 3), "float32", [array], {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its size is another than its header says"):
        read_header(path)
    header = json.dumps({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(ValueError, match=r"cannot be read \('F64'\); remove it"):
        read_header(path)
