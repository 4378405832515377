"""Embeddings -> npy and safetensors, written block by block beside their place and renamed.

Both formats state the shape before the numbers, so a recording of hours goes to the disk in the memory of one
window.
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from unispeech.formats.files import name_beside

VectorFormat = Literal["npy", "safetensors"]

TENSOR_NAME = "embedding"
"""Name of the only tensor in the safetensors file of one recording."""

_KINDS = {"float32": "F32", "float16": "F16"}
_SIZES = {"F32": 4, "F16": 2}
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    kind: str
    """"F32" or "F16"."""
    shape: tuple[int, ...]
    """Its axes."""
    path: Path
    """The file."""
    offset: int
    """Where in the file its bytes begin."""

    @property
    def num_bytes(self) -> int:
        """How many bytes it has."""
        return int(np.prod(self.shape, dtype=np.int64)) * _SIZES[self.kind]


def write_npy(
    path: Path, shape: Sequence[int], dtype: str, blocks: Iterable[npt.NDArray[np.generic]]
) -> None:
    """Write an array that comes in blocks.

    Args:
        path: Where the file shall be; its folder is made where it is missing.
        shape: Of the whole.
        dtype: "float32" or "float16".
        blocks: What follows one another along the first axis.

    Raises:
        OSError: If the file cannot be written, with its path; nothing is left behind.
        ValueError: If the blocks do not fill the shape; nothing is left behind.
    """
    header = {
        "descr": np.dtype(dtype).newbyteorder("<").str,
        "fortran_order": False,
        "shape": tuple(shape),
    }
    with _beside(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        _write_blocks(file, shape, blocks, dtype)


def write_safetensors(
    path: Path,
    shape: Sequence[int],
    dtype: str,
    blocks: Iterable[npt.NDArray[np.generic]],
    metadata: Mapping[str, object],
) -> None:
    """Write an array that comes in blocks, as a tensor of the name `TENSOR_NAME`.

    Args:
        path: As for `write_npy`.
        shape: As for `write_npy`.
        dtype: As for `write_npy`.
        blocks: As for `write_npy`.
        metadata: Goes into the header, values as text.

    Raises:
        OSError: As for `write_npy`.
        ValueError: As for `write_npy`.
    """
    with _beside(path) as file:
        _write_header(file, {TENSOR_NAME: (_KINDS[dtype], tuple(shape))}, metadata)
        _write_blocks(file, shape, blocks, dtype)


def join_safetensors(path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, object]) -> None:
    """Write one file of tensors that are in others; `path` may be one of those.

    Args:
        path: As for `write_npy`.
        tensors: Name -> where it is now.
        metadata: Goes into the header, values as text.

    Raises:
        OSError: As for `write_npy`.
    """
    with _beside(path) as file:
        _write_header(file, {name: (tensor.kind, tensor.shape) for name, tensor in tensors.items()}, metadata)
        for tensor in tensors.values():
            with tensor.path.open("rb") as source:
                source.seek(tensor.offset)
                remaining = tensor.num_bytes
                while remaining and (chunk := source.read(min(_CHUNK, remaining))):
                    file.write(chunk)
                    remaining -= len(chunk)


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read what is in a safetensors file of ours.

    Args:
        path: The file.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is none, or has been cut short.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        metadata = dict(header.pop("__metadata__", {}))
        tensors = {
            name: StoredTensor(
                kind=entry["dtype"],
                shape=tuple(entry["shape"]),
                path=path,
                offset=8 + length + entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
        end = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=8 + length)
        if end != path.stat().st_size:
            raise ValueError("its size is another than its header says")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: must be a safetensors file that embed wrote, but cannot be read ({error}); remove it."
        ) from error
    return tensors, metadata


def _write_header(
    file: BinaryIO, tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, object]
) -> None:
    """The JSON header: names, kinds, shapes and places; its length is a multiple of eight."""
    header: dict[str, object] = {"__metadata__": {key: str(value) for key, value in metadata.items()}}
    start = 0
    for name, (kind, shape) in tensors.items():
        end = start + int(np.prod(shape, dtype=np.int64)) * _SIZES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def _write_blocks(
    file: BinaryIO, shape: Sequence[int], blocks: Iterable[npt.NDArray[np.generic]], dtype: str
) -> None:
    """The numbers, little end first in both formats."""
    remaining = int(np.prod(shape, dtype=np.int64))
    for block in blocks:
        remaining -= block.size
        file.write(np.ascontiguousarray(block, dtype=np.dtype(dtype).newbyteorder("<")).tobytes())
    if remaining:
        raise ValueError(
            f"`blocks` must fill the shape {tuple(shape)}, but are {abs(remaining)} values "
            f"{'short' if remaining > 0 else 'too long'}; did the recording change while it was read?"
        )


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """Write beside a place.

    Yields:
        A file that takes the place at the end, if all went well.
    """
    place = path.resolve() if path.is_symlink() else path
    beside = name_beside(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
        os.replace(beside, place)
    except OSError as error:
        # A recording that is read on the way may fail too, and has a name of its own.
        is_ours = error.filename in {None, str(beside)}
        raise OSError(error.errno, error.strerror, str(path) if is_ours else error.filename) from error
    finally:
        with suppress(OSError):
            beside.unlink()
