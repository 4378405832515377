"""What audio headers promise, against what the file holds: recordings that were cut short are found.

libsndfile reads a file that broke off as if it had been recorded so. Half-copied files then enter a corpus
unnoticed, with transcripts that are longer than the sound.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unispeech.frames import Seconds

UNKNOWN_SIZE = 0x7FFF_F000
"""Sizes from here on mean that the writer did not know the length, as when it wrote into a pipe."""

LONGEST_MP3_FRAME = 1441
"""Bytes of the longest frame: 320 kbit/s at 32 kHz, and a byte of padding."""

LONGEST_OGG_PAGE = 65_307
"""Bytes of the longest page: 27 of header, 255 of segment table, 255 segments of 255."""


class Extent(NamedTuple):
    """Bytes of sound in a file, and bytes that its header promises."""

    held: int
    promised: int


def find_truncation(path: Path, duration: Seconds) -> str | None:
    """Say how much of a recording is missing, where its container tells.

    Wav (RIFF and RF64) and AIFF say how many bytes follow, and so does the first frame of most mp3 files; Ogg
    is a row of pages of known length. Flac is left to its decoder, which notices.

    Args:
        path: An audio file.
        duration: Seconds that libsndfile finds in it.

    Returns:
        The middle of an error line, or None where nothing is known to be missing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"OggS":
            return "ends in the middle of an Ogg page" if _breaks_page(file, size) else None
        if magic in {b"RIFF", b"RF64"}:
            extent = _wav_extent(file, size)
        elif magic == b"FORM":
            extent = _aiff_extent(file, size)
        else:
            extent = _mp3_extent(file, size)
            duration = 0.0  # libsndfile believes the header of an mp3
    if extent is None or extent.held >= extent.promised:
        return None
    if not duration:
        return f"holds {max(extent.held, 0)} of the {extent.promised} bytes that its header promises"
    promised = duration * extent.promised / extent.held
    return f"holds {duration:.2f} s of the {promised:.2f} s that its header promises"


def holds_several(path: Path) -> bool:
    """Whether other recordings stand behind the first one, which is all that libsndfile reads.

    That is so in a row of Ogg streams, as radio servers record them, and in joined FLAC and mp3 files.

    Args:
        path: An audio file.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"OggS":
            return _is_chained(file)
        if magic != b"fLaC":
            return _is_joined_mp3(file, path.stat().st_size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # The first block behind the mark has 34 bytes and may be the last one.
            return any(content.find(b"fLaC" + first + b"\0\0\x22", 4) > 0 for first in (b"\0", b"\x80"))


def _is_chained(file: BinaryIO) -> bool:
    """Whether an Ogg stream begins behind pages that begin none."""
    position, is_behind = 0, False
    while True:
        file.seek(position)
        header = file.read(27)
        if len(header) < 27 or header[:4] != b"OggS":
            return False
        begins = bool(header[5] & 2)
        if begins and is_behind:
            return True
        is_behind = not begins
        lengths = file.read(header[26])
        position += 27 + len(lengths) + sum(lengths)


def _is_joined_mp3(file: BinaryIO, size: int) -> bool:
    """Whether more than tags stands behind the stream that the header of an mp3 measures.

    An mp3 without such a header is read to its end.
    """
    extent = _mp3_extent(file, size)
    if extent is None:
        return False
    end = max(0, size - extent.held + extent.promised)
    file.seek(end)
    seam = file.read(4 * LONGEST_MP3_FRAME)
    if any(mark in seam for mark in (b"APETAGEX", b"LYRICSBEGIN")):
        return False
    tag = seam.find(b"ID3")
    if tag >= 0:
        end += tag + _id3_length(seam[tag : tag + 10])
    return size - end > 4 * LONGEST_MP3_FRAME


def _wav_extent(file: BinaryIO, size: int) -> Extent | None:
    """The data chunk of a RIFF or RF64 file."""
    file.seek(12)
    block, long_length = 1, 0
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", header)
        start = file.tell()
        if name == b"data":
            length = long_length or (0 if length >= UNKNOWN_SIZE else length)
            # Writers have been seen to leave off the last block or the pad byte.
            return Extent(size - start, length - block)
        body = file.read(16)
        if name == b"fmt " and len(body) == 16:
            block = struct.unpack("<12xHxx", body)[0]
        elif name == b"ds64" and len(body) == 16:
            long_length = struct.unpack("<QQ", body)[1]
        file.seek(start + length + length % 2)
    return None


def _aiff_extent(file: BinaryIO, size: int) -> Extent | None:
    """The whole of an AIFF file behind its first eight bytes."""
    file.seek(4)
    header = file.read(4)
    if len(header) < 4:
        return None
    length = int.from_bytes(header, "big")
    return Extent(size - 8, 0 if length >= UNKNOWN_SIZE else length - 1)


def _mp3_extent(file: BinaryIO, size: int) -> Extent | None:
    """The stream of an mp3 whose first frame is a Xing or Info header with its length in bytes."""
    file.seek(0)
    head = file.read(10)
    start = _id3_length(head)
    file.seek(start)
    frame = file.read(200)
    if frame[:1] != b"\xff":
        return None
    found = max(frame.find(b"Xing"), frame.find(b"Info"))
    if found < 0 or len(frame) < found + 16:
        return None
    flags, _, length = struct.unpack(">III", frame[found + 4 : found + 16])
    # Flags 1 and 2: the number of frames and the number of bytes stand there. Writers differ by a frame in
    # what they count.
    return Extent(size - start, length - 2 * LONGEST_MP3_FRAME) if flags & 3 == 3 else None


def _id3_length(head: bytes) -> int:
    """Bytes of an ID3 tag that begins with these ten; 0 where none begins."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    # Written in four bytes of seven bits.
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _breaks_page(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is longer than the rest of the file."""
    file.seek(max(0, size - 2 * LONGEST_OGG_PAGE), os.SEEK_SET)
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
