"""torch.save files from strangers: containers and numbers come out, nothing in the file is ever called.

A pickle is a small program that may name any function and call it. This reader answers every name with
something inert of its own: a plain container type, a record of a tensor, or a `Standin` that only keeps
what it is given. Names that no checkpoint needs are refused. Not even torch's rebuilding functions run
while the pickle does: tensors come out as `StoredTensor`, notes of where the numbers lie, and are
read one by one afterwards, so that gigabytes of optimiser state stay on the disk.

`torch.load(weights_only=True)` was the alternative. It must know the names of all admitted classes beforehand
(a configuration of omegaconf names any fairseq class), it does not know defaultdict nor every opcode,
and it reads the whole file. The formats are simple enough to read here.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from unispeech.errors import CheckpointError

# Every file of the format before torch 1.6 starts with this number, pickled.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Modules whose classes are met in checkpoints and replaced by stand-ins, and which of their names; None: all.
# Type hints in OmegaConf's metadata are pickled as calls of `getitem` and `type`.
_INERT: dict[str, frozenset[str] | None] = {
    "_operator": frozenset({"getitem"}),
    "argparse": frozenset({"Namespace"}),
    "builtins": frozenset({"object", "type"}),
    "collections": frozenset({"defaultdict"}),
    "fairseq": None,
    "numpy": frozenset({"_reconstruct", "scalar", "dtype", "ndarray", "_frombuffer"}),
    "omegaconf": None,
    "pathlib": frozenset({"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}),
    "torch": frozenset({"device", "Size", *(str(t).removeprefix("torch.") for t in _STORAGES.values())}),
    "typing": frozenset({"Any", "Dict", "List", "Optional", "Tuple", "Union"}),
}

_PLAIN: dict[str, type] = {
    plain.__name__: plain
    for plain in (bool, bytearray, complex, dict, float, frozenset, int, list, set, str, tuple)
}

_DAMAGED = "the file is damaged or cut short; copy it again."

# What a damaged or hostile pickle makes the unpickler raise.
_DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class Standin:
    """Takes the place of an object of a class that is not loaded; keeps what it was made of."""

    name: str = ""
    """Full name of the class that it stands for."""
    args: tuple[object, ...]
    """What the class would have been called with."""
    state: object
    """The attributes that the object would have had."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Make one of any arguments, as the class itself might be made."""
        standin = super().__new__(cls)
        standin.args = args
        standin.state = {}
        return standin

    def __setstate__(self, state: object) -> None:
        """Keep the pickled attributes instead of taking them on."""
        self.state = state

    def append(self, item: object) -> None:
        """Take an element that the original, a list, would hold; it is not kept."""

    def __setitem__(self, key: object, value: object) -> None:
        """Take an entry that the original, a mapping, would hold; it is not kept."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's numbers lie in the file."""

    storage: str
    """Key of the storage."""
    dtype: torch.dtype
    """Type of the numbers."""
    num_elements: int
    """Numbers in the whole storage."""
    offset: int
    """First number of the tensor, from the start of the storage."""
    shape: tuple[int, ...]
    """Its shape."""
    stride: tuple[int, ...]
    """Numbers from one element to the next, along each axis."""


class _InertUnpickler(pickle.Unpickler):
    """An unpickler whose every callable is made here, anew for each file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path
        self.standins: dict[str, type[Standin]] = {}
        self.itemsizes: dict[str, int] = {}
        self.rebuilders: dict[str, Callable[..., object]] = {
            "_rebuild_tensor": lambda *args: _note_tensor(*args),
            "_rebuild_tensor_v2": lambda *args: _note_tensor(*args[:4]),
            "_rebuild_parameter": lambda data, *rest: data,
            "_rebuild_parameter_with_state": lambda data, *rest: data,
        }

    def find_class(self, module: str, name: str) -> object:
        """Answer a name of the pickle; refuse all that is not on the lists above."""
        if module == "__builtin__":  # how protocol 2, which torch.save writes, calls it
            module, name = "builtins", {"long": "int", "unicode": "str"}.get(name, name)
        root = module.partition(".")[0]
        if module == "builtins" and name in _PLAIN:
            return _PLAIN[name]
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "_codecs" and name == "encode":
            return lambda text, encoding: text.encode("latin1")
        if module == "torch._utils" and name in self.rebuilders:
            return self.rebuilders[name]
        if module == "torch" and name in _STORAGES:
            return name
        if root in _INERT and ((names := _INERT[root]) is None or name in names):
            return self.standins.setdefault(
                f"{module}.{name}", type(name, (Standin,), {"name": f"{module}.{name}"})
            )
        raise CheckpointError(
            f"{self.path}: refused: its pickle calls `{module}.{name}`, as no checkpoint may; nothing ran."
        )

    def persistent_load(self, pid: Any) -> tuple[str, torch.dtype, int]:
        """Note a storage: its key, its type and its size."""
        kind, storage_type, key, _location, num_elements = pid[:5]
        if kind != "storage" or any(view is not None for view in pid[5:]):
            raise CheckpointError(
                f"{self.path}: refused: its pickle asks for {kind!r}, which is no plain storage."
            )
        self.itemsizes[str(key)] = _STORAGES[storage_type].itemsize
        return str(key), _STORAGES[storage_type], int(num_elements)


def _note_tensor(
    storage: tuple[str, torch.dtype, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> StoredTensor:
    """What torch's rebuilding function is called with, kept."""
    return StoredTensor(*storage, offset, tuple(shape), tuple(stride))


class TorchFile:
    """A torch.save file, open for reading; use it in a `with` statement.

    Args:
        path: The file, of the zip format or of the one before torch 1.6.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not of either format, damaged, or names what no checkpoint needs.
    """

    content: Any
    """What was saved: containers, numbers, strings, `Standin` and `StoredTensor`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[str, int] = {}
        self._itemsizes: dict[str, int] = {}
        self._archive: zipfile.ZipFile | None = None
        self._file = path.open("rb")
        try:
            if zipfile.is_zipfile(self._file):
                self._open_zip()
            else:
                self._open_legacy()
        except BaseException:
            self.close()
            raise

    def _open_zip(self) -> None:
        """Read the pickle of a zip archive; each storage is a member of it."""
        try:
            self._archive = zipfile.ZipFile(self._file)
            names = self._archive.namelist()
            self._root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
            if (
                f"{self._root}byteorder" in names
                and self._archive.read(f"{self._root}byteorder") != b"little"
            ):
                raise CheckpointError(
                    f"{self.path}: byte order must be little, but is big; save it anew with torch."
                )
            with self._archive.open(f"{self._root}data.pkl") as pickled:
                self.content = self._unpickle(pickled)
        except (StopIteration, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{self.path}: must be a file written by torch.save, but holds no data.pkl."
            ) from error

    def _open_legacy(self) -> None:
        """Read the five pickles of the old format, then note where each storage starts."""
        self._file.seek(0)
        foreign = "must be a file written by torch.save, but is not, or lacks its end; copy it again."
        if self._file.read(2) == b"PK":  # a zip archive without its end
            raise CheckpointError(f"{self.path}: {foreign}")
        self._file.seek(0)
        if self._unpickle(self._file, foreign) != _LEGACY_MAGIC:
            raise CheckpointError(f"{self.path}: {foreign}")
        for _ in ("protocol version", "sizes of the machine's types"):
            self._unpickle(self._file)
        self.content = self._unpickle(self._file)
        keys = self._unpickle(self._file)
        for key in keys:
            # A storage is its number of elements in 8 bytes, then the elements.
            header = self._file.read(8)
            self._offsets[str(key)] = self._file.tell()
            self._file.seek(int.from_bytes(header, "little") * self._itemsizes.get(str(key), 1), 1)

    def _unpickle(self, file: Any, complaint: str = _DAMAGED) -> Any:
        """Run one pickle of this file, inertly."""
        unpickler = _InertUnpickler(file, self.path)
        try:
            content = unpickler.load()
        except CheckpointError:
            raise
        except _DAMAGE as error:
            raise CheckpointError(f"{self.path}: {complaint}") from error
        self._itemsizes |= unpickler.itemsizes
        return content

    def read(self, stored: StoredTensor) -> Tensor:
        """Read one tensor from the disk.

        Args:
            stored: Its note, from `content`.

        Returns:
            The tensor, on the CPU, contiguous, of the stored shape and type.

        Raises:
            CheckpointError: If the file ends before the tensor does, or its note does not fit its storage.
        """
        try:
            num_bytes = stored.num_elements * stored.dtype.itemsize
            if self._archive is not None:
                data = self._archive.read(f"{self._root}data/{stored.storage}")
            else:
                self._file.seek(self._offsets[stored.storage])
                data = self._file.read(num_bytes)
            if not num_bytes:
                return torch.empty(stored.shape, dtype=stored.dtype)
            flat = torch.frombuffer(bytearray(data), dtype=stored.dtype, count=stored.num_elements)
            return flat.as_strided(stored.shape, stored.stride, stored.offset).contiguous()
        except (*_DAMAGE, RuntimeError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path}: {_DAMAGED}") from error

    def close(self) -> None:
        """Close the file; tensors that were read stay."""
        if self._archive is not None:
            self._archive.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
