"""Result files: written beside their place and renamed, so that a reader never sees half of one."""

import os
from contextlib import suppress
from pathlib import Path


def write_file(path: Path, content: str | bytes) -> None:
    """Write a result to its place in one step; what stood there survives a failure.

    Pipes and devices are written to as they are, and links stay links.

    Args:
        path: Where the file shall be; its folder is made where it is missing.
        content: Text (written as UTF-8, what names of files have beside it as their bytes) or bytes.

    Raises:
        OSError: If the file cannot be written, with its path; nothing is left behind.
    """
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    place = path.resolve() if path.is_symlink() else path
    beside = name_beside(place)
    try:
        if place.exists() and not place.is_file() and not place.is_dir():
            place.write_bytes(data)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        os.replace(beside, place)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def name_beside(path: Path) -> Path:
    """Name the file that is written before it takes its place.

    Args:
        path: The place.

    Returns:
        A path in the same folder.
    """
    # A name may be as long as names can be, so only a part of it goes into that of the file beside.
    return path.with_name(f".{path.name[:40]}.{os.getpid()}.part")
