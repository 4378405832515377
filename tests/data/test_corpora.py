"""Preparing a corpus: what is kept, what is rejected and why; nothing is lost."""

import codecs
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unispeech.data.checks import Reason, UntrainableError, check_length, spelled_text
from unispeech.data.collation import load_cut
from unispeech.data.corpora import CorpusReport, Preparation, prepare_corpus
from unispeech.data.cuts import CutFiles
from unispeech.data.inventory import read_labels, write_labels
from unispeech.data.selection import Condition
from unispeech.errors import ManifestError
from unispeech.phones import ARPABET_TO_IPA
from unispeech.text import Vocabulary


def record(path: Path, seconds: float, *, rate: int = 16_000, channels: int = 1) -> Path:
    """Noise as a 16-bit recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, noise, rate)
    return path


def manifest(folder: Path, rows: list[dict]) -> Path:
    path = folder / "manifest.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rejections(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "rejected.jsonl").read_text("utf-8").splitlines()]


def prepared(source: Path, output: Path, **options) -> tuple[CorpusReport, list, list[dict]]:
    """Prepare; the report, the cuts and the rejections."""
    given_ones = {key: options.pop(key) for key in ("phonemise", "vocabulary", "label2id") if key in options}
    report = prepare_corpus(source, output, Preparation(**options), **given_ones)
    return report, list(CutFiles(output)), rejections(output)


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Five recordings of one second, one of them 48 kHz and stereo."""
    for name in "abcd":
        record(tmp_path / f"{name}.wav", 1.0)
    record(tmp_path / "e.flac", 1.0, rate=48_000, channels=2)
    return tmp_path


# ---- what a cut says


def test_a_cut_says_what_the_corpus_says(recordings, tmp_path):
    row = {"audio": "e.flac", "text": "Die Tür!", "phones": "d iː t yː ɐ", "speaker": "s", "language": "de"}
    source = manifest(recordings, [{**row, "duration": 9.0}])
    report, (cut,), rejected = prepared(source, tmp_path / "out")
    supervision = cut.supervisions[0]
    assert (cut.id, cut.start, cut.duration) == ("e", 0.0, 1.0) and rejected == []
    assert supervision.text == "Die Tür!" and supervision.language == "de" and supervision.speaker == "s"
    assert supervision.custom == {"phones": "d iː t yː ɐ"}
    assert (cut.recording.sampling_rate, cut.recording.num_samples) == (48_000, 48_000)
    assert cut.recording.sources[0].channels == [0, 1]
    assert cut.recording.sources[0].source == str(recordings / "e.flac")
    assert report.num_restated == 1  # the header is believed, not the 9 seconds
    assert report.kept["de"].num_utterances == 1 and report.kept["de"].duration == 1.0


def test_a_line_is_what_lhotse_would_write(recordings, tmp_path):
    rows = [
        {"audio": "e.flac", "text": "Ja!", "speaker": "s", "language": "de"},
        {"audio": "a.wav", "offset": 0.25, "duration": 0.5, "text": "ja"},
    ]
    _, cuts, _ = prepared(manifest(recordings, rows), tmp_path / "out", units="characters")
    with gzip.open(tmp_path / "out" / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == [cut.to_dict() for cut in cuts]
    assert len(cuts) == 2


def test_the_same_corpus_gives_the_same_bytes(recordings, tmp_path):
    source = manifest(recordings, [{"audio": f"{name}.wav", "phones": "a b"} for name in "abcd"])
    files = []
    for name in ("one", "two"):
        prepared(source, tmp_path / name)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1] and "vocab.json" in files[0]
    assert not any(name.endswith(".part") for name in files[0])


def test_relative_paths_move_with_the_folder(recordings, tmp_path):
    corpus = tmp_path / "corpus"
    record(corpus / "wav" / "a.wav", 1.0)
    source = manifest(corpus, [{"audio": "wav/a.wav", "phones": "a"}])
    prepared(source, corpus / "cuts", relative_paths=True)
    assert ".." in gzip.decompress((corpus / "cuts" / "cuts.jsonl.gz").read_bytes()).decode()
    corpus.rename(tmp_path / "moved")
    (cut,) = CutFiles(tmp_path / "moved" / "cuts")
    assert Path(cut.recording.sources[0].source).is_file()


def test_relative_paths_hold_behind_a_link(recordings, tmp_path):
    source = manifest(recordings, [{"audio": "a.wav", "phones": "a b"}])
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    _, (cut,), _ = prepared(source, tmp_path / "link" / "out", relative_paths=True)
    assert Path(cut.recording.sources[0].source).samefile(recordings / "a.wav")


def test_a_corpus_is_not_its_own_output(recordings, tmp_path):
    """The second time the cuts of the first would be the corpus, and new recordings would be lost."""
    with pytest.raises(ValueError, match="`output` must be another folder than the corpus, but is"):
        prepared(recordings, recordings, units="none")
    assert prepared(recordings, recordings, units="none", format="folder")[0].num_kept == 5


@pytest.mark.parametrize("shards", [None, 2])
def test_a_full_disk_is_named_and_nothing_stays(recordings, tmp_path, shards):
    resource = pytest.importorskip("resource", reason="sizes of files are limited by the system")
    rows = [
        {"audio": f"{name}.wav", "text": f"{name}{n}", "id": f"{name}{n}"}
        for name in "abcd"
        for n in range(99)
    ]
    source = manifest(recordings, rows)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            prepared(source, tmp_path / "out", units="characters", shard_utterances=shards)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_channel_is_refused_where_all_are_heard(recordings, tmp_path):
    source = manifest(recordings, [{"audio": "e.flac", "phones": "a b"}])
    prepared(source, tmp_path / "out")
    path = tmp_path / "out" / "cuts.jsonl.gz"
    cut = json.loads(gzip.decompress(path.read_bytes()))
    path.write_text(json.dumps({**cut, "channel": 1}), encoding="utf-8")
    with pytest.raises(ManifestError, match="of which all channels are heard, but is channel 1 of 2; write"):
        list(CutFiles(path))
    recording = cut["recording"]
    halves = [{**recording["sources"][0], "channels": [channel]} for channel in (0, 1)]
    path.write_text(json.dumps({**cut, "recording": {**recording, "sources": halves}}), encoding="utf-8")
    with pytest.raises(
        ManifestError, match="but is channel 0 of 2; write the channel into a file of its own"
    ):
        list(CutFiles(path))


def test_decoding_finds_the_true_length(tmp_path):
    """An mp3 of changing rate without its first frame, which tells the length."""
    noise = np.random.default_rng(0).normal(0, 0.2, 44_100 * 2)
    sound = np.concatenate([np.zeros(44_100 * 3), noise])
    soundfile.write(tmp_path / "a.mp3", sound, 44_100, bitrate_mode="VARIABLE", compression_level=0.9)
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(content[content.index(b"\xff\xfb", content.index(b"Xing")) :])
    source = manifest(tmp_path, [{"audio": "a.mp3", "phones": "a b"}])
    _, (believed,), _ = prepared(source, tmp_path / "out")
    with pytest.raises(ManifestError, match="prepare the corpus again, with --check-audio where the file is"):
        load_cut(believed)
    _, (decoded,), _ = prepared(source, tmp_path / "out", check_audio=True)
    assert decoded.duration == pytest.approx(5.0, abs=0.1)
    assert len(load_cut(decoded)) == round(decoded.duration * 16_000)


def test_a_name_that_ends_in_raw_is_rejected_like_any_other(recordings, tmp_path):
    (recordings / "f.raw").write_bytes(b"\1\2" * 8000)
    source = manifest(recordings, [{"audio": name, "phones": "a b"} for name in ("a.wav", "f.raw")])
    _, cuts, (rejected,) = prepared(source, tmp_path / "out")
    assert len(cuts) == 1 and rejected["reason"] == "unreadable-audio" and "convert it" in rejected["detail"]


def test_digits_and_marks_count_as_labels(recordings, tmp_path):
    """1 s has 49 frames."""
    rows = [{"audio": "a.wav", "text": "12345678 " * 6}, {"audio": "b.wav", "text": "\u0915\u094b" * 25}]
    rows += [{"audio": "c.wav", "text": "x"}]
    _, _, rejected = prepared(manifest(recordings, rows), tmp_path / "out", units="characters")
    assert [row["reason"] for row in rejected] == ["too-many-labels"] * 2


def test_segments_lie_in_their_recording(recordings, tmp_path):
    rows = [
        {"audio": "a.wav", "offset": 0.25, "duration": 0.5, "phones": "a"},
        {"audio": "a.wav", "offset": 0.75, "phones": "a"},
        {"audio": "a.wav", "offset": 0.5, "duration": 0.55, "phones": "a"},
        {"audio": "a.wav", "offset": 0.625, "duration": 2.0, "phones": "a"},
        {"audio": "a.wav", "offset": 7.0, "phones": "a"},
    ]
    _, cuts, rejected = prepared(manifest(recordings, rows), tmp_path / "out")
    assert [(cut.start, cut.duration) for cut in cuts] == [(0.25, 0.5), (0.75, 0.25), (0.5, 0.5)]
    assert [row["reason"] for row in rejected] == ["past-end", "past-end"]
    assert "segment must lie in the 1.000 s of" in rejected[0]["detail"]


# ---- phones, characters, labels


def test_arpabet_becomes_ipa(recordings, tmp_path):
    rows = [{"audio": "a.wav", "phones": ["S OW0", "HH AA1 R D"]}]
    _, (cut,), _ = prepared(manifest(recordings, rows), tmp_path / "ipa", word_boundaries=True)
    assert cut.supervisions[0].custom["phones"] == "s oʊ | h ɑ ɹ d"
    assert "|" in Vocabulary.load(tmp_path / "ipa").symbols
    _, (cut,), _ = prepared(tmp_path / "manifest.jsonl", tmp_path / "as", as_written=True)
    assert cut.supervisions[0].custom["phones"] == "S OW0 HH AA1 R D"
    assert "|" not in Vocabulary.load(tmp_path / "as").symbols


def test_phones_are_made_of_text_where_there_are_none(recordings, tmp_path):
    def phonemise(text: str, language: str | None) -> list[list[str]]:
        if text == "x":
            raise ValueError("unknown word")
        return [list(word) for word in text.split()] if language == "de" else []

    rows = [
        {"audio": "a.wav", "text": "ja so"},
        {"audio": "b.wav", "text": "ja", "phones": ["", ""]},
        {"audio": "c.wav", "text": "x"},
        {"audio": "d.wav", "text": "ja", "language": "en"},
    ]
    source = manifest(recordings, rows)
    _, cuts, rejected = prepared(
        source, tmp_path / "o", phonemise=phonemise, language="de", word_boundaries=True
    )
    assert [cut.supervisions[0].custom["phones"] for cut in cuts] == ["j a | s o", "j a"]
    assert [(row["reason"], row["language"]) for row in rejected] == [
        ("no-phones", "de"),
        ("empty-transcript", "en"),
    ]
    assert "'x': unknown word" in rejected[0]["detail"]
    with pytest.raises(ManifestError, match="all 4 lines were rejected"):
        prepared(source, tmp_path / "o")
    assert "name a lexicon or a g2p" in rejections(tmp_path / "o")[0]["detail"]


def test_characters_are_what_is_spelled(recordings, tmp_path):
    rows = [
        {"audio": "a.wav", "text": "It's SO-so!"},
        {"audio": "b.wav", "text": "?!"},
        {"audio": "c.wav", "text": "so"},
    ]
    _, cuts, rejected = prepared(manifest(recordings, rows), tmp_path / "out", units="characters")
    assert [cut.supervisions[0].text for cut in cuts] == ["it's so so", "so"]
    assert (
        cuts[0].supervisions[0].custom == {"orthography": "It's SO-so!"}
        and cuts[1].supervisions[0].custom is None
    )
    assert [row["reason"] for row in rejected] == ["empty-transcript"]
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary.kind == "characters" and set(vocabulary.symbols) == {"<pad>", "|", *"'iost"}


@pytest.mark.parametrize(
    ("text", "language", "spelled"),
    [
        ("Press 1, please -- 'now'.", None, "press 1 please now"),
        ("İstanbul ISI", "tr", "istanbul ısı"),
        ("rock’n’roll", "en", "rock'n'roll"),
        ("Ame\u0301lie", "fr", "amélie"),
        ("नमस्ते", "hi", "नमस्ते"),
        ("你好。", "zh", "你好"),
    ],
)
def test_spelled_text(text, language, spelled):
    assert spelled_text(text, language) == spelled


def test_labels_are_numbered_in_order(recordings, tmp_path):
    rows = [
        {"audio": f"{name}.wav", "label": label}
        for name, label in zip("abcd", ["yes", "no", "yes", None], strict=True)
    ]
    source = manifest(recordings, rows)
    _, cuts, rejected = prepared(source, tmp_path / "out", units="label")
    assert [cut.supervisions[0].custom["label"] for cut in cuts] == ["yes", "no", "yes"]
    assert [row["reason"] for row in rejected] == ["empty-transcript"]
    assert read_labels(tmp_path / "out") == {"no": 0, "yes": 1}
    _, cuts, rejected = prepared(source, tmp_path / "other", units="label", label2id={"yes": 0, "maybe": 1})
    assert len(cuts) == 2 and read_labels(tmp_path / "other") == {"yes": 0, "maybe": 1}
    assert (
        rejected[0]["reason"] == "unknown-symbol"
        and "label must be known, but is 'no'" in rejected[0]["detail"]
    )


def test_labels_that_are_not_numbered_from_0_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"labels\.json: no such file; make it with unispeech prepare"
    ):
        read_labels(tmp_path)
    for content in ('{"a": 1}', "[]", "{", "{}", '{"a": "x"}'):
        (tmp_path / "labels.json").write_text(content)
        with pytest.raises(
            ManifestError, match=r"labels\.json: must be a JSON object of classes numbered from 0"
        ):
            read_labels(tmp_path)
    write_labels({"ü": 0}, tmp_path)
    assert read_labels(tmp_path) == {"ü": 0}


# ---- vocabularies


def test_a_given_vocabulary_is_kept_to(recordings, tmp_path):
    source = manifest(
        recordings, [{"audio": "a.wav", "phones": "a b"}, {"audio": "b.wav", "phones": "a q x"}]
    )
    vocabulary = Vocabulary.build(["a b c"], kind="phones")
    _, cuts, rejected = prepared(source, tmp_path / "out", vocabulary=vocabulary)
    assert len(cuts) == 1 and Vocabulary.load(tmp_path / "out").symbols == vocabulary.symbols
    assert rejected[0]["reason"] == "unknown-symbol" and "'q', 'x'" in rejected[0]["detail"]
    with pytest.raises(ValueError, match="`vocabulary` must hold characters, but holds phones"):
        prepared(source, tmp_path / "out", vocabulary=vocabulary, units="characters")


def test_languages_can_have_phones_of_their_own(recordings, tmp_path):
    rows = [{"audio": "a.wav", "phones": "a b", "language": "de"}, {"audio": "b.wav", "phones": "a"}]
    prepared(manifest(recordings, rows), tmp_path / "out", tag_languages=True)
    assert set(Vocabulary.load(tmp_path / "out").symbols) == {"<pad>", "(de)a", "(de)b", "(und)a"}


# ---- what cannot be trained on


def reasons(rejected: list[dict]) -> list[str]:
    return [row["reason"] for row in rejected]


def test_every_fault_has_its_reason(recordings, tmp_path):
    record(tmp_path / "short.wav", 399 / 16_000)
    record(tmp_path / "frame.wav", 400 / 16_000)
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    wav = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(wav[: len(wav) // 2])
    cases: list[tuple[dict | str, Reason | None]] = [
        ({"audio": "a.wav", "phones": "a b"}, None),
        ("{", "bad-line"),
        ({"audio": "a.wav", "phones": "a"}, "duplicate-id"),
        ({"audio": "gone.wav", "phones": "a"}, "missing-audio"),
        ({"audio": "text.wav", "phones": "a"}, "unreadable-audio"),
        ({"audio": "empty.wav", "phones": "a"}, "unreadable-audio"),
        ({"audio": "cut.wav", "phones": "a"}, "unreadable-audio"),
        ({"audio": "b.wav"}, "empty-transcript"),
        ({"audio": "c.wav", "text": "x"}, "no-phones"),
        ({"audio": "short.wav", "phones": "a"}, "too-short"),
        ({"audio": "frame.wav", "phones": "a"}, None),
        ({"id": "long", "audio": "frame.wav", "phones": "a b"}, "too-many-labels"),
        ({"id": "fits", "audio": "d.wav", "phones": " ".join("ab" * 24 + "a")}, None),
        ({"id": "repeats", "audio": "d.wav", "phones": " ".join("a" * 26)}, "too-many-labels"),
    ]
    lines = [row if isinstance(row, str) else json.dumps(row) for row, _ in cases]
    source = tmp_path / "m.jsonl"
    source.write_text("\n".join(lines))
    report, cuts, rejected = prepared(source, tmp_path / "out")
    assert reasons(rejected) == [reason for _, reason in cases if reason]
    assert [row["source"] for row in rejected] == [
        f"{source}:{number}" for number, (_, reason) in enumerate(cases, 1) if reason
    ]
    assert [cut.id for cut in cuts] == ["a", "frame", "fits"]
    assert report.num_broken == 5
    details = {row["reason"]: row["detail"] for row in rejected}
    assert "must last 0.025 s for one frame" in details["too-short"]
    assert (
        "must have at least 51 frames for 26 symbols with 25 repeats, but has 49"
        in details["too-many-labels"]
    )
    assert f"{source}:1 has it" in details["duplicate-id"]


def test_damage_behind_the_header_is_found_on_demand(recordings, tmp_path):
    flac = record(tmp_path / "x.flac", 2.0)
    data = bytearray(flac.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    flac.write_bytes(data)
    source = manifest(tmp_path, [{"audio": "x.flac", "phones": "a"}, {"audio": "a.wav", "phones": "a"}])
    _, cuts, _ = prepared(source, tmp_path / "headers")
    assert len(cuts) == 2
    _, cuts, rejected = prepared(source, tmp_path / "decoded", check_audio=True)
    assert len(cuts) == 1 and reasons(rejected) == ["unreadable-audio"]


def test_a_longest_utterance():
    check_length((), 3.0, max_seconds=3.0)
    with pytest.raises(UntrainableError, match=r"must last at most 3 s, but lasts 3\.010 s"):
        check_length((), 3.01, max_seconds=3.0)


def test_a_refused_corpus_leaves_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        prepared(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError):
        prepared(tmp_path / "nowhere", tmp_path / "old")
    assert (tmp_path / "old").is_dir()


def test_nothing_to_train_on_is_an_error_and_leaves_the_earlier_cuts(recordings, tmp_path):
    good, bad = (
        manifest(tmp_path / name, [{"audio": "../a.wav", "phones": p}]) for name, p in (("g", "a"), ("b", ""))
    )
    prepared(good, tmp_path / "out")
    before = (tmp_path / "out" / "cuts.jsonl.gz").read_bytes()
    with pytest.raises(
        ManifestError, match=r"something must be left to train on, but all 1 lines were rejected; .*rejected"
    ):
        prepared(bad, tmp_path / "out")
    assert (tmp_path / "out" / "cuts.jsonl.gz").read_bytes() == before
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(ManifestError, match=r"none\.jsonl: must hold utterances, but holds none"):
        prepared(tmp_path / "none.jsonl", tmp_path / "out")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.one_of(
            st.sampled_from(["{", "[]", '{"text": "no audio"}']),
            st.fixed_dictionaries({
                "audio": st.sampled_from(["a.wav", "b.wav", "gone.wav", "text.wav", "e.flac"]),
                "phones": st.sampled_from(["", "a", "a a", "b " * 60, None]),
                "part": st.sampled_from(["train", "dev"]),
                "id": st.sampled_from([None, "x", "y", "z"]),
                "offset": st.sampled_from([None, 0.5, -1, 3]),
            }),
        ),
        max_size=12,
    ),
    part=st.sampled_from([None, "train"]),
)
def test_no_line_is_lost(recordings, rows, part):
    (recordings / "text.wav").write_text("hello")
    # One line that is kept, so that there is something to train on.
    rows = [{"audio": "d.wav", "phones": "a", "part": "train"}, *rows]
    source = recordings / "m.jsonl"
    source.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    report, cuts, rejected = prepared(source, recordings / "out", part=part)
    assert report.num_lines == len(rows)
    assert report.num_kept == len(cuts) and report.num_rejected == len(rejected)
    assert len(cuts) + len(rejected) + report.num_left_out == len(rows)
    places = [row["source"] for row in rejected]
    assert len(set(places)) == len(places)
    assert part is not None or report.num_left_out == 0


# ---- which utterances


def test_conditions(recordings, tmp_path):
    rows = [
        {"audio": f"{name}.wav", "phones": "a", "speaker": speaker, "set": group}
        for name, speaker, group in zip("abcd", ["s1", "s2", "s3", "s1"], ["x", "x", "y", None], strict=True)
    ]
    source = manifest(recordings, rows)

    def ids(*where: str) -> list[str]:
        conditions = tuple(map(Condition.parse, where))
        return [cut.id for cut in prepared(source, tmp_path / "out", where=conditions)[1]]

    assert ids("speaker=s1", "speaker=s2") == ["a", "b", "d"]
    assert ids("speaker=s1", "set=x") == ["a"]
    assert ids("speaker!=s1") == ["b", "c"]
    assert ids("set!=x") == ["c", "d"]
    assert ids("id=c") == ["c"]
    with pytest.raises(
        ValueError, match=r"`where` must name a field of .*, but names 'speeker'; did you mean 'speaker'"
    ):
        ids("speeker=s1")
    with pytest.raises(ValueError, match=r"that 'speaker' has in .* \(s1, s2, s3\), but names 's9'"):
        ids("speaker=s9")
    for text in ("speaker", "=x", "!=x"):
        with pytest.raises(ValueError, match="`where` must be field=value or field!=value, but is"):
            Condition.parse(text)
    with pytest.raises(ManifestError, match="`part` must be one of none, it has no parts, but is dev"):
        prepared(source, tmp_path / "out", part="dev")


# ---- files of cuts


def test_files_of_cuts_are_read_again_and_again(recordings, tmp_path):
    source = manifest(recordings, [{"audio": f"{name}.wav", "phones": "a"} for name in "abcd"])
    prepared(source, tmp_path / "out")
    plain = tmp_path / "plain.jsonl"
    lines = gzip.decompress((tmp_path / "out" / "cuts.jsonl.gz").read_bytes())
    plain.write_bytes(codecs.BOM_UTF8 + lines + b"\n")
    cuts = CutFiles([tmp_path / "out", plain])
    assert [cut.id for cut in cuts] == [cut.id for cut in cuts] == [*"abcd", *"abcd"]


def test_files_that_are_no_cuts_are_refused(recordings, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"cuts\.jsonl\.gz: no such file; make it with unispeech prepare"
    ):
        CutFiles(tmp_path)
    prepared(manifest(recordings, [{"audio": "a.wav", "phones": "a"}]), tmp_path / "out")
    packed = (tmp_path / "out" / "cuts.jsonl.gz").read_bytes()
    cut = json.loads(gzip.decompress(packed))
    path = tmp_path / "x.jsonl"
    cases = {
        "{": r"x\.jsonl:1: line must be a lhotse cut, but is not \(JSONDecodeError",
        '{"a": 1}': r"x\.jsonl:1: line must be a lhotse cut",
        json.dumps({**cut, "supervisions": []}): r"x\.jsonl:1: cut must be a MonoCut of a recording with one",
        json.dumps(cut).replace(
            '"file"', '"command"'
        ): r"x\.jsonl:1: recording must be a file, but is 'command'",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(ManifestError, match=message):
            list(CutFiles(path))
    path.write_bytes(packed[:-20])
    with pytest.raises(ManifestError, match=r"x\.jsonl:\d: must be readable, but is not"):
        list(CutFiles(path))


# ---- real speech


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("where", "part", "units", "kept"),
    [
        (("dataset=speechocean762",), "train", "phones", 1240),
        (("dataset=fsdd", "speaker!=george"), None, "label", 1500),
        (("dataset=kerstin-de",), "dev", "characters", 64),
    ],
)
def test_shared_speech(shared_dir, tmp_path, where, part, units, kept):
    source = shared_dir / "data" / "speech" / "manifest.jsonl"
    report = prepare_corpus(
        source,
        tmp_path,
        Preparation(units=units, part=part, where=tuple(map(Condition.parse, where)), relative_paths=True),
    )
    assert (report.num_kept, report.num_rejected, report.num_lines) == (kept, 0, 16_786)
    assert report.num_left_out == 16_786 - kept
    if where[0] == "dataset=speechocean762" and part == "train":
        assert set(Vocabulary.load(tmp_path).symbols) == {"<pad>", *ARPABET_TO_IPA.values()}


@pytest.mark.slow
@pytest.mark.shared_data
def test_all_shared_speech_is_accounted_for(shared_dir, tmp_path):
    report, cuts, rejected = prepared(
        shared_dir / "data" / "speech" / "manifest.jsonl", tmp_path, units="characters"
    )
    assert len(cuts) + len(rejected) == report.num_lines == 16_786
    # Mandarin syllables have pinyin only, the commands of picovoice slots only.
    assert Counter(reasons(rejected)) == {"empty-transcript": 1707 + 350}
