"""Where embeddings go: a file for each recording, or one safetensors file for all of them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unispeech.cli.destinations import all_files, own_file, places_in
from unispeech.formats.files import write_file
from unispeech.formats.vectors import (
    TENSOR_NAME,
    StoredTensor,
    VectorFormat,
    join_safetensors,
    read_header,
    write_npy,
    write_safetensors,
)

if TYPE_CHECKING:
    from unispeech.cli.processes import Process
    from unispeech.pipelines.embedder import Embedding
    from unispeech.pipelines.listing import Listed

ABOUT = "embeddings.json"
"""The file of a folder that says what the vectors in it are."""


class VectorFolder:
    """A file for each recording, written in one step, and `embeddings.json`, which says what they hold.

    Args:
        folder: Made where it is missing.
        recordings: All that will be written, in all processes.
        format: Of the files.
        about: What the vectors are, as `Embedder.describe` says it.

    Raises:
        ValueError: If two recordings would go to one file, or the folder holds other vectors.
        NotADirectoryError: If `folder` is a file.
        OSError: If `embeddings.json` cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        recordings: Sequence["Listed"],
        format: VectorFormat,
        about: Mapping[str, str | float],
    ) -> None:
        self._places = places_in(folder, recordings, format)
        self._format, self._about = format, about
        file = folder / ABOUT
        if file.exists():
            try:
                earlier = dict(json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}: must say what the vectors are, but is no JSON object.") from error
            check_same(file, earlier, about)
        else:
            write_file(file, json.dumps(about, ensure_ascii=False, indent=2) + "\n")

    def is_done(self, listed: "Listed") -> bool:
        """Whether the file is there: it is written in one step, so it is whole.

        Args:
            listed: The recording.
        """
        return self._places[listed.path].exists()

    def write(self, path: str, result: "Embedding") -> None:
        """Write the file of a recording, block by block.

        Args:
            path: Of the recording.
            result: Its vectors.

        Raises:
            OSError: If it cannot be written, with the path of the file.
        """
        place, dtype = self._places[path], str(self._about["dtype"])
        if self._format == "npy":
            write_npy(place, result.shape, dtype, result.blocks)
        else:
            metadata = {**self._about, "audio": result.audio, "duration": result.duration}
            write_safetensors(place, result.shape, dtype, result.blocks, metadata)


class VectorFile:
    """One safetensors file with a tensor for each recording, named after it.

    Until all is done the tensors lie in a folder beside it, `all.safetensors.parts`. Several processes write
    a file each, `all-00000-of-00004.safetensors`.

    Args:
        path: Of the file, as asked for.
        recordings: All that will be written, in all processes.
        process: This process.
        about: What the vectors are, as `Embedder.describe` says it.
        resume: Whether to add to what is there.

    Raises:
        FileExistsError: If there is such a file, or part of one, and `resume` is False.
        ValueError: If what is there holds other vectors, or two recordings have one name.
        OSError: If something cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        recordings: Sequence["Listed"],
        process: "Process",
        about: Mapping[str, str | float],
        *,
        resume: bool,
    ) -> None:
        self._path, self._about = own_file(path, process), about
        self._parts = self._path.with_name(f"{self._path.name}.parts")
        for place in (self._path, self._parts):
            if place.exists() and not resume:
                raise FileExistsError(
                    f"{place}: is there already; pass --resume to add what is missing, or remove it."
                )
        self._done: set[str] = set()
        for file in all_files(path) if resume else []:
            tensors, metadata = read_header(file)
            check_same(file, metadata, about)
            self._done |= set(tensors)
        self._folder = VectorFolder(self._parts, recordings, "safetensors", about)

    def is_done(self, listed: "Listed") -> bool:
        """Whether an earlier run, with any of its processes, embedded a recording.

        Args:
            listed: The recording.
        """
        return listed.name in self._done or self._folder.is_done(listed)

    def write(self, path: str, result: "Embedding") -> None:
        """Write the tensor of a recording among the parts.

        Args:
            path: Of the recording.
            result: Its vectors.

        Raises:
            OSError: If it cannot be written, with the path of the file.
        """
        self._folder.write(path, result)

    def finish(self) -> None:
        """Put the parts together, with what an earlier run put together, and remove them.

        Raises:
            OSError: If the file cannot be written; the parts stay.
        """
        tensors: dict[str, StoredTensor] = read_header(self._path)[0] if self._path.exists() else {}
        parts = sorted(self._parts.rglob("*.safetensors"))
        for part in parts:
            name = part.relative_to(self._parts).as_posix().removesuffix(".safetensors")
            tensors[name] = read_header(part)[0][TENSOR_NAME]
        if parts:
            join_safetensors(self._path, tensors, self._about)
        shutil.rmtree(self._parts)


def check_same(file: Path, earlier: Mapping[str, object], about: Mapping[str, str | float]) -> None:
    """Refuse to put vectors of two kinds together.

    Args:
        file: Where `earlier` stands.
        earlier: What the vectors are that are there; values may be text.
        about: What those are that would be added.

    Raises:
        ValueError: If they differ.
    """
    for name, value in about.items():
        if str(earlier.get(name)) != str(value):
            raise ValueError(
                f"{file}: `{name}` must be that of the vectors that are there ({earlier.get(name)}), but is "
                f"{value}; name another place."
            )
