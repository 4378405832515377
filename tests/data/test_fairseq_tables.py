"""fairseq's tables as the original has them: which label file counts, and what its numbers stand for."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unispeech.data.corpora import Preparation, prepare_corpus
from unispeech.data.cuts import CutFiles
from unispeech.data.dictionaries import read_symbols
from unispeech.data.readers import read_corpus
from unispeech.data.utterances import BadLine, Utterance
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary


def write(folder: Path, **files: str) -> Path:
    """Write files named with `_dot_` for a dot."""
    for name, content in files.items():
        (folder / name.replace("_dot_", ".")).write_text(content, encoding="utf-8")
    return folder


def fairseq(folder: Path, **labels: str) -> Path:
    return write(folder, train_dot_tsv=f"{folder}/wav\na.wav\t16000\nsub/b.wav\t8000\n", **labels)


def phones(folder: Path, **settings) -> list[str]:
    return [item.phones for item in read_corpus(folder, **settings)]


def test_fairseq_with_phones_and_letters(tmp_path):
    fairseq(tmp_path, train_dot_ltr="H I | Y O U |\nA |\n", train_dot_phn="h aɪ | j u\nə\n")
    first, second = read_corpus(tmp_path)
    assert (first.id, first.audio, first.text, first.phones) == (
        "a", tmp_path / "wav" / "a.wav", "HI YOU", "h aɪ | j u",
    )  # fmt: skip
    assert (second.id, second.text, second.part) == ("sub/b", "A", "train")
    write(tmp_path, train_dot_wrd="hi you\na\n")
    assert next(read_corpus(tmp_path)).text == "hi you"


def test_fairseq_with_numbers(tmp_path):
    fairseq(tmp_path, train_dot_id="2 0\n1\n")
    with pytest.raises(ManifestError, match=r"train\.id: numbers must have their phones in vocab\.json"):
        list(read_corpus(tmp_path))
    write(tmp_path, vocab_dot_json='{"a": 9, "b": 9, "c": 9}')
    assert [item.phones for item in read_corpus(tmp_path)] == ["c a", "b"]
    write(tmp_path, train_dot_id="2 0\n3\n")
    with pytest.raises(ManifestError, match=r"train\.id:2: number must lie in \[0, 2\], but is 3"):
        list(read_corpus(tmp_path))
    write(tmp_path, vocab_dot_json="{")
    with pytest.raises(ManifestError, match=r"vocab\.json: must be a JSON object of phones"):
        list(read_corpus(tmp_path))


def test_fairseq_labels_must_fit_the_table(tmp_path):
    fairseq(tmp_path, train_dot_wrd="only one\n")
    with pytest.raises(
        ManifestError, match=r"train\.wrd:1: labels must have a line for each of the 2 recordings, but have 1"
    ):
        list(read_corpus(tmp_path))


def test_fairseq_tables(tmp_path):
    write(tmp_path, a_dot_tsv="/wav\nno tab\n", b_dot_tsv="", train_dot_tsv="wav\nx.wav\t1\n")
    bad = next(read_corpus(tmp_path / "a.tsv"))
    assert isinstance(bad, BadLine) and bad.source.endswith("a.tsv:2") and "path<TAB>frames" in bad.detail
    with pytest.raises(ManifestError, match=r"b\.tsv:1: first line must be the folder"):
        list(read_corpus(tmp_path / "b.tsv", format="fairseq"))
    assert [item.audio for item in read_corpus(tmp_path)] == [tmp_path / "wav" / "x.wav"]
    with pytest.raises(ManifestError, match=r"part must be one of the tables \(a, b, train\), but is dev"):
        list(read_corpus(tmp_path, part="dev"))


class TestTables:
    def test_as_the_original_wrote_them(self, tmp_path):
        write(tmp_path, t_dot_tsv="/datablob/ky/wavs_16k/\nc_1.wav\t114816\t16000\nc_2.wav\t48000\t48000\n")
        first, second = read_corpus(tmp_path)
        assert (first.audio, first.duration) == (Path("/datablob/ky/wavs_16k/c_1.wav"), 7.176)
        assert (first.id, first.is_segment, first.part) == ("c_1", False, "t")
        assert second.duration == 1.0  # the third column is the rate of the second
        write(tmp_path, t_dot_tsv="/x\nc.wav\t0\t16000\n")
        assert next(read_corpus(tmp_path)).duration is None

    def test_recordings_elsewhere_and_in_another_format(self, tmp_path):
        clips = tmp_path / "clips"
        clips.mkdir()
        write(tmp_path, t_dot_tsv="/datablob\na.wav\t1\nb.wav\t1\nc.wav\t1\n")
        write(clips, a_dot_mp3="", a_dot_flac="", b_dot_wav="", b_dot_mp3="")
        found = [item.audio for item in read_corpus(tmp_path, recordings=clips)]
        assert found == [clips / "a.mp3", clips / "b.wav", clips / "c.wav"]

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            (
                "data.zip:1024:32000\t16000",
                r"must be a file of its own, but lies in an archive \(data.zip:1024",
            ),
            ("a.wav\tmany", "line must be `path<TAB>frames`, with the sample rate behind if any, but is"),
            ("a.wav\t1\t-1", "line must be `path<TAB>frames`"),
            ("a.wav\t1\t0", "line must be `path<TAB>frames`"),
            ("\t1", "line must be `path<TAB>frames`"),
        ],
    )
    def test_lines_that_cannot_be_read(self, tmp_path, line, fault):
        write(tmp_path, t_dot_tsv=f"/x\n{line}\nb.wav\t1\n")
        bad, good = read_corpus(tmp_path)
        assert isinstance(bad, BadLine) and bad.source.endswith("t.tsv:2") and bad.reason == "bad-line"
        assert isinstance(good, Utterance)
        with pytest.raises(AssertionError, match=fault):
            raise AssertionError(bad.detail)

    def test_settings_of_fairseq_for_another_format(self, tmp_path):
        write(tmp_path, m_dot_jsonl="{}\n")
        for name in ("dictionary", "recordings"):
            with pytest.raises(
                ValueError, match=f"`{name}` must be given for a fairseq table only, but .*jsonl"
            ):
                list(read_corpus(tmp_path / "m.jsonl", **{name: tmp_path}))


class TestNumbers:
    def test_idx_comes_before_id(self, tmp_path):
        fairseq(
            tmp_path, train_dot_id="0\n0\n", train_dot_idx="1\n2 1\n", vocab_dot_json='{"a":0,"b":1,"c":2}'
        )
        assert phones(tmp_path) == ["b", "c b"]

    def test_written_phones_give_the_word_boundaries_where_they_agree(self, tmp_path, caplog):
        fairseq(
            tmp_path, train_dot_id="0 1 1\n2 0\n", train_dot_phone="a b | b\nc | b\n",
            vocab_dot_json='{"a": 0, "b": 0, "c": 0}',
        )  # fmt: skip
        with caplog.at_level(logging.WARNING):
            assert phones(tmp_path) == ["a b | b", "c a"]
        assert "1 of 2 lines are other phones than in train.phone; the numbers are taken" in caplog.text

    def test_written_phones_alone_serve_where_nothing_says_what_numbers_are(self, tmp_path):
        fairseq(tmp_path, train_dot_id="0\n1\n", train_dot_phone="a | b\nb\n")
        assert phones(tmp_path) == ["a | b", "b"]

    def test_one_of_two_dictionaries_must_be_named(self, tmp_path):
        fairseq(tmp_path, train_dot_id="0\n1\n", vocab_dot_json='{"a":0,"b":1}')
        write(tmp_path, phonesMatches_reduced_dot_json='{"x":0,"y":1}')
        with pytest.raises(
            ManifestError,
            match=r"train\.id: numbers must be those of one dictionary, but phonesMatches_reduced\.json, "
            r"vocab\.json lie beside it; name the one that counts with --dictionary",
        ):
            phones(tmp_path)
        assert phones(tmp_path, dictionary=tmp_path / "phonesMatches_reduced.json") == ["x", "y"]
        with pytest.raises(FileNotFoundError, match=r"none\.json"):
            phones(tmp_path, dictionary=tmp_path / "none.json")

    def test_tags_become_the_language(self, tmp_path, caplog):
        fairseq(
            tmp_path, train_dot_id="0 1 2\n3 4 5\n",
            vocab_sep_dot_json='{"(es)a":0,"(es)":1,"(es)tʃ":2,"(fr)a":3,"":4,"(es)b":5}',
        )  # fmt: skip
        with caplog.at_level(logging.WARNING):
            first, second = read_corpus(tmp_path)
        assert (first.phones, first.language) == ("a tʃ", "es")
        assert (second.phones, second.language) == ("(fr)a (es)b", None)
        assert "2 numbers stand for an empty phone and are left out" in caplog.text

    def test_text_dictionaries_begin_behind_the_special_symbols(self, tmp_path):
        fairseq(tmp_path, train_dot_id="4 5\n6\n")
        write(tmp_path, dict_dot_ltr_dot_txt="a 10\nb 5\n\nd e 2 #fairseq:overwrite\n")
        assert phones(tmp_path) == ["a b", "d e"]
        write(tmp_path, train_dot_id="4\n3\n")
        with pytest.raises(ManifestError, match=r"train\.id:2: number must lie in \[4, 6\], but is 3"):
            phones(tmp_path)

    @pytest.mark.parametrize("number", ["x", "-1", "9" * 5000])
    def test_what_is_no_number(self, tmp_path, number):
        fairseq(tmp_path, train_dot_id=f"0\n{number}\n", vocab_dot_json='{"a":0}')
        with pytest.raises(ManifestError, match=r"train\.id:2: number must lie in \[0, 0\], but is"):
            phones(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.json", "{", r"v\.json: must be a JSON object of phones, but is not JSON"),
        ("v.json", "[" * 100_000, r"v\.json: must be a JSON object of phones, but is not JSON"),
        ("v.json", "[]", r"v\.json: must be a JSON object of phones, but is list"),
        ("v.json", '{"a":0,"<s>":1}', r"v\.json: must be a dictionary of phones without .*, but holds <s>"),
        ("d.txt", "", r"d\.txt: must be a dictionary of phones without .*, but holds nothing"),
        ("d.txt", "a 1\nb\n", r"d\.txt:2: line must be `symbol count`, but is 'b'"),
        ("d.txt", "a 1\nb x\n", r"d\.txt:2: line must be `symbol count`, but is 'b x'"),
        ("d.txt", "a 1\nb 1\na 2\n", r"d\.txt:3: symbol must be unique, but a stands in line 1"),
    ],
)
def test_dictionaries_that_are_none(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_symbols(tmp_path / name)


def test_a_dictionary_of_other_bytes(tmp_path):
    (tmp_path / "v.json").write_bytes(b'{"\xff": 0}')
    with pytest.raises(ManifestError, match=r"v\.json: text must be UTF-8, but is not"):
        read_symbols(tmp_path / "v.json")


def test_a_lone_number_is_one_phone(tmp_path):
    (tmp_path / "wav" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        soundfile.write(tmp_path / "wav" / f"{name}.wav", np.zeros(8_000), 16_000)
    fairseq(tmp_path, train_dot_id="1\n0 1\n", vocab_dot_json='{"(es)a": 0, "(es)tʃ": 1}')
    prepare_corpus(tmp_path, tmp_path / "out", Preparation())
    prepare_corpus(tmp_path / "out", tmp_path / "again", Preparation())
    for folder in ("out", "again"):
        cuts = list(CutFiles(tmp_path / folder))
        assert [cut.supervisions[0].custom["phones"] for cut in cuts] == ["tʃ", "a tʃ"]


def test_a_lone_written_phone_is_one_phone(tmp_path):
    (tmp_path / "wav" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        soundfile.write(tmp_path / "wav" / f"{name}.wav", np.zeros(8_000), 16_000)
    fairseq(tmp_path, train_dot_phone="aɪ\nh aɪ\n")
    prepare_corpus(tmp_path, tmp_path / "out", Preparation())
    assert Vocabulary.load(tmp_path / "out").symbols == ("<pad>", "aɪ", "h")


def test_a_tagged_release_is_prepared_whole(tmp_path):
    """From numbers of vocab_sep.json and Common Voice's clips to cuts and a tagged vocabulary."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in "ab":
        soundfile.write(clips / f"{name}.mp3", np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    write(
        tmp_path, train_sep_dot_tsv="/elsewhere\na.wav\t16000\t16000\nb.wav\t16000\t16000\n",
        train_sep_dot_id="0 1\n2 3\n", vocab_sep_dot_json='{"(ky)a":0,"(ky)ʃ":1,"(sv)a":2,"(sv)oː":3}',
    )  # fmt: skip
    preparation = Preparation(tag_languages=True, recordings=clips)
    report = prepare_corpus(tmp_path, tmp_path / "out", preparation)
    assert (report.num_kept, report.num_restated) == (2, 0)
    cuts = list(CutFiles(tmp_path / "out"))
    supervisions = [cut.supervisions[0] for cut in cuts]
    assert [(s.language, s.custom["phones"]) for s in supervisions] == [("ky", "a ʃ"), ("sv", "a oː")]
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary.symbols == ("<pad>", "(ky)a", "(ky)ʃ", "(sv)a", "(sv)oː")
