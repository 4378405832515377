"""Every layout of a corpus gives an item per line."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.data.readers import read_corpus, recognise_format
from unispeech.data.utterances import BadLine, Utterance
from unispeech.errors import ManifestError


def write(folder: Path, **files: str) -> Path:
    """Write files named `a__b` for a/b and with `_dot_` for a dot; recordings are empty."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def only(items: list) -> Utterance:
    (item,) = items
    assert isinstance(item, Utterance), item
    return item


def test_a_synthetic_corpus_is_named_part_by_part(tmp_path):
    names = ("synthesis_dot_json", "dev__cuts_dot_jsonl_dot_gz", "train__cuts_dot_jsonl_dot_gz")
    folder = write(tmp_path, **dict.fromkeys(names, ""))
    with pytest.raises(ManifestError, match=rf"holds all; name {folder}/dev or {folder}/train\."):
        recognise_format(folder)


# ---- folder


def test_a_folder_pairs_recordings_with_transcripts(tmp_path):
    write(
        tmp_path,
        anna__one_dot_wav="",
        anna__one_dot_txt="eins \n zwei\n",
        ben__two_dot_flac="",
        ben__two_dot_lab="x",
    )
    one, two = read_corpus(tmp_path)
    assert (one.id, one.text, one.speaker, one.label) == ("anna/one", "eins zwei", "anna", None)
    assert one.audio == tmp_path / "anna" / "one.wav"
    assert (two.id, two.text, two.speaker) == ("ben/two", "x", "ben")


def test_a_folder_without_transcripts_has_classes(tmp_path):
    write(tmp_path, train__yes__a_dot_wav="", b_dot_wav="")
    loose, nested = read_corpus(tmp_path)
    assert (nested.id, nested.label, nested.speaker, nested.part) == ("train/yes/a", "yes", None, "train")
    assert (loose.label, loose.part) == (None, None)


def test_a_part_folder_is_no_speaker(tmp_path):
    write(tmp_path, dev__a_dot_wav="", dev__a_dot_txt="x")
    assert only(list(read_corpus(tmp_path))).speaker is None


def test_a_stray_transcript_and_one_that_is_not_utf8_are_listed(tmp_path):
    write(tmp_path, a_dot_wav="", stray_dot_txt="hello")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    broken, stray = read_corpus(tmp_path)
    assert isinstance(broken, BadLine) and broken.reason == "bad-line" and "UTF-8" in broken.detail
    assert isinstance(stray, BadLine) and stray.reason == "no-recording" and stray.id == "stray"


def test_links_are_followed_and_none_is_lost(tmp_path):
    """A speaker on another disk, a recording that is gone, a link to where it lies."""
    corpus = write(tmp_path / "corpus", anna__one_dot_wav="", anna__one_dot_txt="x").resolve()
    write(tmp_path / "disk", ben__two_dot_wav="", ben__two_dot_txt="y")
    (corpus / "ben").symlink_to(tmp_path / "disk" / "ben")
    (corpus / "anna" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (corpus / "anna" / "up").symlink_to(corpus)
    items = list(read_corpus(corpus))
    assert [item.id for item in items] == ["anna/gone", "anna/one", "ben/two"]
    assert items[2].speaker == "ben"


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    write(tmp_path, anna__one_dot_wav="", ben__two_dot_wav="")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("ben"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="ben"):
        list(read_corpus(tmp_path, format="folder"))


# ---- JSONL


@pytest.mark.parametrize("name", [".", "/"])
def test_a_recording_must_have_a_name(tmp_path, name):
    write(tmp_path, a_dot_jsonl=json.dumps({"audio": name, "text": "x"}))
    (bad,) = read_corpus(tmp_path / "a.jsonl")
    assert isinstance(bad, BadLine) and "line must name its recording" in bad.detail


def test_a_recording_may_have_no_suffix(tmp_path):
    write(tmp_path, a_dot_jsonl='{"audio": "one"}\n{"audio": "two"}', one="")
    assert [item.audio.name for item in read_corpus(tmp_path / "a.jsonl")] == ["one", "two.mp3"]


def test_jsonl_in_our_form(tmp_path):
    row = {
        "audio": "x/a.opus",
        "duration": 1.5,
        "language": "de",
        "text": "ja",
        "phones": ["j a"],
        "speaker": "s",
    }
    write(
        tmp_path,
        manifest_dot_jsonl=json.dumps({**row, "label": "ja", "part": "dev", "dataset": "d"}) + "\n\n",
    )
    item = only(list(read_corpus(tmp_path)))
    assert item.id == "x/a" and item.audio == tmp_path / "x/a.opus" and item.duration == 1.5
    assert (item.text, item.phones, item.label, item.part, item.speaker) == ("ja", ("j a",), "ja", "dev", "s")
    assert item.source == f"{tmp_path / 'manifest.jsonl'}:1" and item.fields["dataset"] == "d"
    assert not item.is_segment


def test_jsonl_in_nemos_form(tmp_path):
    rows = [
        {"audio_filepath": "/abs/a.wav", "offset": o, "duration": 2.0, "text": "t", "lang": "en"}
        for o in (0, 2.5)
    ]
    write(tmp_path, nemo_dot_json="\n".join(map(json.dumps, rows)))
    first, second = read_corpus(tmp_path / "nemo.json")
    assert (first.start, first.duration, first.is_segment, first.language) == (0.0, 2.0, True, "en")
    assert (second.id, second.start, second.audio) == ("/abs/a-0002500", 2.5, Path("/abs/a.wav"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be a JSON object, but is not JSON"),
        ("[" * 100_000, "JSON"),
        ("[1]", "must be a JSON object, but is list"),
        ('{"text": "x"}', "must name its recording in one of audio"),
        ('{"audio": 3}', "`audio` must be a string, but is 3"),
        ('{"audio": "a", "duration": -0.3}', "`duration` must be positive, but is -0.3"),
        ('{"audio": "a", "duration": "x"}', "`duration` must be a number of seconds, but is 'x'"),
        ('{"audio": "a", "duration": NaN}', "`duration` must be a number"),
        ('{"audio": "a", "duration": true}', "`duration` must be a number"),
        ('{"audio": "a", "offset": -1}', "`offset` must be at least 0, but is -1"),
        ('{"audio": "a", "phones": [1]}', "`phones` must be a string or a list of strings, but is [1]"),
        ('{"audio": "a", "phones": 1}', "`phones` must be a string or a list of strings, but is 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_bad_line(tmp_path, line, message):
    write(tmp_path, m_dot_jsonl='{"audio": "ok.wav"}\n' + line + "\n")
    _, bad = read_corpus(tmp_path / "m.jsonl")
    assert isinstance(bad, BadLine) and bad.source.endswith("m.jsonl:2") and message in bad.detail


def test_labels_that_are_no_names_are_no_classes(tmp_path):
    write(
        tmp_path,
        m_dot_jsonl='{"audio": "a", "label": {"intent": 1}}\n{"audio": "b", "label": 7, "speaker": 3}',
    )
    intent, number = read_corpus(tmp_path / "m.jsonl")
    assert intent.label is None and number.label == "7" and number.speaker == "3"


def test_bytes_that_are_not_utf8_name_their_line(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"audio": "a.wav"}\n\xff\n')
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: text must be UTF-8"):
        list(read_corpus(tmp_path / "m.jsonl"))


# ---- tables


def test_common_voice(tmp_path):
    header = "client_id\tpath\tsentence\tlocale\n"
    write(
        tmp_path,
        clips__a_dot_mp3="",
        validated_dot_tsv=header + 'c1\ta.mp3\tSag "Ja\tde\nc2\tb\t\tde\nc3\tc.mp3\n',
        dev_dot_tsv=header,
    )
    quoted, bare, short = read_corpus(tmp_path)
    assert (quoted.text, quoted.speaker, quoted.language, quoted.part) == ('Sag "Ja', "c1", "de", "validated")
    assert bare.audio == tmp_path / "clips" / "b.mp3" and bare.text is None
    assert (
        isinstance(short, BadLine)
        and short.source.endswith("validated.tsv:4")
        and "4 columns" in short.detail
    )
    assert list(read_corpus(tmp_path, part="dev")) == []
    assert recognise_format(tmp_path / "dev.tsv") == "common-voice"
    with pytest.raises(ManifestError, match=r"train\.tsv: part must be one of dev, validated, but is train"):
        list(read_corpus(tmp_path, part="train"))


def test_audiofolder(tmp_path):
    write(
        tmp_path,
        train__metadata_dot_csv='file_name,transcription,speaker_id\na.wav,"one, ""two""",7\n\nb.wav,x\n',
        dev__metadata_dot_jsonl='{"file_name": "c.wav", "text": "y"}\n',
    )
    dev, quoted, short = read_corpus(tmp_path)
    assert (dev.part, dev.audio) == ("dev", tmp_path / "dev" / "c.wav")
    assert (quoted.text, quoted.speaker, quoted.part) == ('one, "two"', "7", "train")
    assert isinstance(short, BadLine) and short.source.endswith("metadata.csv:4")
    assert recognise_format(tmp_path / "train" / "metadata.csv") == "audiofolder"


def test_a_table_without_recordings_is_refused(tmp_path):
    write(tmp_path, metadata_dot_csv="name,text\na,b\n", bad_dot_csv="file_name\n" + '"' + "x" * 200_000)
    with pytest.raises(ManifestError, match=r"metadata\.csv:1: header must have a column audio or"):
        list(read_corpus(tmp_path))
    with pytest.raises(ManifestError, match=r"bad\.csv:2: must be CSV, but is not \(field larger"):
        list(read_corpus(tmp_path / "bad.csv"))
    (tmp_path / "none").mkdir()
    with pytest.raises(ManifestError, match=r"audiofolder must hold metadata\.csv"):
        list(read_corpus(tmp_path / "none", format="audiofolder"))


# ---- Kaldi


def test_kaldi_without_segments(tmp_path):
    write(
        tmp_path,
        wav_dot_scp="u1 /a.wav\nu2 touch /tmp/pwned |\nu3\n",
        text="u1 hello you\nu4 lost\n",
        utt2spk="u1 s1\n",
        utt2lang="u1 en\n",
    )
    first, piped, empty, lost = read_corpus(tmp_path)
    assert (first.id, first.audio, first.text, first.speaker, first.language) == (
        "u1", Path("/a.wav"), "hello you", "s1", "en",
    )  # fmt: skip
    assert isinstance(piped, BadLine) and "command, which is never run" in piped.detail
    assert isinstance(empty, BadLine) and "names none" in empty.detail
    assert isinstance(lost, BadLine) and lost.reason == "no-recording" and lost.source.endswith("text:2")
    assert not Path("/tmp/pwned").exists()


def test_kaldi_with_segments(tmp_path):
    segments = "s1 r1 0.5 2.0\ns2 r9 0 1\ns3 r1 2 1\ns4 r1 0\ns5 r1 x 1\n"
    write(tmp_path, wav_dot_scp="r1 a.wav\nr2 b.wav\n", segments=segments, text="s1 hi\n")
    first, foreign, backwards, short, word, unused = read_corpus(tmp_path)
    assert (first.start, first.duration, first.is_segment, first.text) == (0.5, 1.5, True, "hi")
    assert "recording must stand in wav.scp, but r9 does not" in foreign.detail
    assert "before its end, but runs 2.0 to 1.0" in backwards.detail
    assert "must be `id recording start end`, but has 3 columns" in short.detail
    assert "`segment` must be a number of seconds" in word.detail
    assert unused.reason == "no-segment" and unused.source.endswith("wav.scp:2")


def test_kaldi_needs_its_files(tmp_path):
    with pytest.raises(ManifestError, match=r"wav\.scp: a Kaldi directory must hold this file"):
        list(read_corpus(tmp_path, format="kaldi"))
    write(tmp_path, wav_dot_scp="u a\nu b\n")
    with pytest.raises(ManifestError, match=r"wav\.scp:2: key must be unique, but u stands in line 1"):
        list(read_corpus(tmp_path))


# ---- what it is


def test_formats_are_recognised(tmp_path):
    write(
        tmp_path,
        k__wav_dot_scp="", c__clips__x="", c__train_dot_tsv="path\n", a__metadata_dot_csv="",
        f__x_dot_tsv="/\n", j__manifest_dot_jsonl="", w__x_dot_WAV="", table_dot_tsv="/root\n",
        rows_dot_jsonl="", metadata_dot_jsonl="",
    )  # fmt: skip
    found = {name: recognise_format(tmp_path / name) for name in ("k", "c", "a", "f", "j", "w")}
    assert found == {
        "k": "kaldi", "c": "common-voice", "a": "audiofolder", "f": "fairseq", "j": "jsonl", "w": "folder",
    }  # fmt: skip
    assert recognise_format(tmp_path / "table.tsv") == "fairseq"
    assert recognise_format(tmp_path / "rows.jsonl") == "jsonl"
    assert recognise_format(tmp_path / "metadata.jsonl") == "audiofolder"


def test_what_is_nothing_is_refused(tmp_path):
    with pytest.raises(
        ManifestError, match=r"format must be one of folder, jsonl, .* but none is recognised"
    ):
        recognise_format(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        list(read_corpus(tmp_path / "nowhere"))


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=8))
def test_every_line_gives_one_item(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "m.jsonl"
    path.write_bytes("\n".join(lines).encode())
    # A byte order mark at the beginning of a file belongs to no line.
    counted = [line for line in "\n".join(lines).removeprefix("\ufeff").split("\n") if line.strip()]
    assert len(list(read_corpus(path))) == len(counted)
