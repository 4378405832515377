import os

import pytest

from unispeech.formats.files import write_file


def test_a_file_is_written_with_its_folder(tmp_path):
    write_file(tmp_path / "new" / "a.txt", "t͡ʃ\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "t͡ʃ\n".encode()
    write_file(tmp_path / "new" / "a.txt", b"\x00")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def replace(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path):
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(OSError, match=r"in_the_way/a\.txt"):
        write_file(tmp_path / "in_the_way" / "a.txt", "x")


def test_links_stay_links_and_pipes_are_written_to(tmp_path):
    write_file(tmp_path / "target.txt", "old")
    (tmp_path / "link.txt").symlink_to("target.txt")
    write_file(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_names_of_files_are_written_as_their_bytes(tmp_path):
    write_file(tmp_path / "a.json", "\udcff.wav")
    assert (tmp_path / "a.json").read_bytes() == b"\xff.wav"
