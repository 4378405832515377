"""Files of torch.save, read without running them."""

import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from unispeech.checkpoints.torchfile import Standin, TorchFile
from unispeech.errors import CheckpointError

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Payload:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def save(path: Path, content: object, legacy: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@FORMATS
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool],
)
def test_tensors_equal_those_of_torch(tmp_path, legacy, dtype):
    values = torch.arange(12).reshape(3, 4).to(dtype)
    content = {"plain": values, "view": values.T[1:], "empty": values[:0], "scalar": values[1, 1]}
    content["nothing"] = torch.empty(0, 3, dtype=dtype)
    content["parameter"] = torch.nn.Parameter(torch.ones(2)) if dtype is torch.float32 else values
    path = save(tmp_path / "x.pt", content, legacy)
    with TorchFile(path) as file:
        for name, stored in file.content.items():
            read = file.read(stored)
            assert read.dtype == content[name].dtype
            assert torch.equal(read, content[name])


@FORMATS
def test_containers_come_as_they_were(tmp_path, legacy):
    plain = {
        "a": [1, 2.5, "x", None, True],
        "b": (1, (2,)),
        "c": OrderedDict(z=1),
        "d": {3},
        "e": b"\x00\xff",
        "f": 1 << 70,
    }
    with TorchFile(save(tmp_path / "x.pt", plain, legacy)) as file:
        assert file.content == plain


def test_foreign_objects_become_standins(tmp_path):
    content = {
        "number": np.float64(3.0),
        "array": np.arange(3),
        "path": Path("/tmp"),
        "counts": defaultdict(int, a=1),
        "size": torch.Size([1]),
        "type": torch.float32,
    }
    with TorchFile(save(tmp_path / "x.pt", content, False)) as file:
        standins = file.content
    assert all(isinstance(standin, Standin) or issubclass(standin, Standin) for standin in standins.values())
    assert standins["path"].name.startswith("pathlib")
    assert standins["size"].args == ([1],) or standins["size"].args == ((1,),)


@FORMATS
@pytest.mark.parametrize("where", ["model", "args", "extra_state"])
def test_a_payload_is_refused_and_not_run(tmp_path, legacy, where):
    evidence = tmp_path / "evidence"
    content = {"model": {}, "args": None, where: Payload(os.system, f"touch {evidence}")}
    path = save(tmp_path / "x.pt", content, legacy)
    with pytest.raises(
        CheckpointError, match=r"x\.pt: refused: its pickle calls `(posix|nt)\.system`"
    ) as caught:
        TorchFile(path)
    assert "\n" not in str(caught.value)
    assert not evidence.exists()


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (eval, ("1",)),
        (getattr, ("", "join")),
        (__import__, ("os",)),
        (np.load, ("x",)),
        (torch.load, ("x",)),
        (torch.hub.load, ("x",)),
        (pickle.loads, (b"",)),
        (os.path.join, ("a",)),
    ],
)
def test_what_no_checkpoint_needs_is_refused(tmp_path, function, args):
    path = save(tmp_path / "x.pt", {"model": Payload(function, *args)}, False)
    with pytest.raises(CheckpointError, match="refused: its pickle calls"):
        TorchFile(path)


def test_a_bare_pickle_is_refused(tmp_path):
    evidence = tmp_path / "evidence"
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Payload(os.system, f"touch {evidence}")))
    with pytest.raises(CheckpointError, match="refused"):
        TorchFile(path)
    assert not evidence.exists()


def test_only_storages_are_stored(tmp_path):
    class Asking(pickle.Pickler):
        def persistent_id(self, obj):
            return ("module", "os", "x", "y", 0) if obj == "ask" else None

    path = tmp_path / "x.pt"
    with path.open("wb") as file:
        Asking(file, 2).dump("ask")
    with pytest.raises(CheckpointError, match="refused: its pickle asks for 'module'"):
        TorchFile(path)


@FORMATS
def test_a_truncated_file_says_so(tmp_path, legacy):
    path = save(tmp_path / "x.pt", {"a": torch.arange(1000.0)}, legacy)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 20, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with (
            pytest.raises(
                CheckpointError, match=r"x\.pt: (must be a file written by torch.save|the file is damaged)"
            ),
            TorchFile(path) as file,
        ):
            file.read(file.content["a"])


def test_a_damaged_zip_says_so(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.arange(1000.0)}, False)
    whole = bytearray(path.read_bytes())
    middle = whole.index(np.arange(1000, dtype=np.float32).tobytes()) + 100
    whole[middle] ^= 1
    path.write_bytes(whole)
    with TorchFile(path) as file, pytest.raises(CheckpointError, match="the file is damaged"):
        file.read(file.content["a"])


def test_a_damaged_pickle_says_so(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": 1})[:-4])
    with pytest.raises(CheckpointError, match="the file is damaged"):
        TorchFile(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint, but a text\n" * 20, b"\x80\x02]."])
def test_what_torch_did_not_write_is_named(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"must be a file written by torch.save"):
        TorchFile(path)


def test_another_archive_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(
        CheckpointError, match=r"x\.npz: must be a file written by torch.save, but holds no data\.pkl"
    ):
        TorchFile(tmp_path / "x.npz")


def test_big_endian_files_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/byteorder", b"big")
    with pytest.raises(CheckpointError, match="byte order must be little, but is big"):
        TorchFile(path)


def test_a_note_that_does_not_fit_its_storage(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.arange(4.0)}, False)
    with TorchFile(path) as file:
        stored = file.content["a"]
        for field, value in (("shape", (100,)), ("shape", "x"), ("dtype", None), ("storage", "none")):
            vars(stored)[field], before = value, vars(stored)[field]
            with pytest.raises(CheckpointError, match="the file is damaged"):
                file.read(stored)
            vars(stored)[field] = before


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x.pt"):
        TorchFile(tmp_path / "x.pt")
