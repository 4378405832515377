import json

import pytest

from unispeech.errors import ManifestError
from unispeech.pipelines.listing import list_recordings, read_list, take_shard


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a.FLAC", "sub/a.mp3", "sub/notes.txt", ".hidden/c.wav", "sub/.d.wav"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "talks"


def found(*sources):
    return [(listed.path, listed.name) for listed in list_recordings(map(str, sources))]


def test_a_folder_gives_its_audio_by_name(folder):
    assert found(folder) == [
        (f"{folder}/a.FLAC", "a"),
        (f"{folder}/b.wav", "b"),
        (f"{folder}/sub/a.mp3", "sub/a"),
    ]


def test_files_are_taken_as_they_are_once(folder):
    assert found(folder / "sub" / "notes.txt", "gone.wav", "-", "gone.wav") == [
        (f"{folder}/sub/notes.txt", "notes"),
        ("gone.wav", "gone"),
        ("-", "stdin"),
    ]


def test_a_pattern_names_results_from_where_it_begins(folder):
    assert found(folder / "*" / "*.mp3") == [(f"{folder}/sub/a.mp3", "sub/a")]
    assert [name for _, name in found(folder / "**" / "[ab].*")] == ["a", "b", "sub/a"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "take[1].wav").touch()
    assert found(tmp_path / "take[1].wav") == [(f"{tmp_path}/take[1].wav", "take[1]")]


def test_a_manifest_is_relative_to_itself(tmp_path):
    path = tmp_path / "list.jsonl"
    rows = [{"audio": "x/a.wav", "text": "ignored"}, {"audio_filepath": "/far/b.wav"}, {"audio": "../c.wav"}]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert found(path) == [
        (f"{tmp_path}/x/a.wav", "x/a"),
        ("/far/b.wav", "b"),
        (f"{tmp_path}/../c.wav", "c"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be a JSON object, but is not"),
        ('["a.wav"]', r"must be an object with the path of a recording in `audio`, but is \[\"a.wav\"\]"),
        ('{"audio": 3}', "must be an object with the path"),
        ('{"sound": "a.wav"}', "must be an object with the path"),
    ],
)
def test_a_wrong_line_of_a_manifest_is_named(tmp_path, line, message):
    path = tmp_path / "list.jsonl"
    path.write_text('{"audio": "a.wav"}\n' + line)
    with pytest.raises(ManifestError, match=f"list.jsonl:2: {message}"):
        list_recordings([str(path)])


def test_what_gives_nothing_is_refused(tmp_path):
    # A folder or a pattern without a recording is told when it is opened, so that the others are done.
    for source in (str(tmp_path), str(tmp_path / "*.wav")):
        assert [listed.path for listed in list_recordings([source])] == [source]
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl: there is no such manifest"):
        list_recordings([str(tmp_path / "gone.jsonl")])


def test_a_list_has_a_path_a_line():
    assert read_list(["a b.wav\n", "\n", "c.wav\r\n", "d.wav"]) == ["a b.wav", "c.wav", "d.wav"]


def test_shards_share_everything_once():
    listed = list_recordings([f"{i}.wav" for i in range(11)])
    shards = [take_shard(listed, rank, 4) for rank in range(4)]
    assert [len(shard) for shard in shards] == [3, 3, 3, 2]
    assert sorted(one.path for shard in shards for one in shard) == sorted(one.path for one in listed)
