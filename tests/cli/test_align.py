import io
import sys
from typing import get_args

import pytest

from tiny_recognisers import LETTERS, save_recogniser, write_babble
from unispeech import Aligner
from unispeech.cli import main
from unispeech.cli.align import Format
from unispeech.formats import FORMATS
from unispeech.formats.json import from_json
from unispeech.formats.textgrid_reader import parse_textgrid


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return str(write_babble(tmp_path_factory.mktemp("audio") / "talk.wav", 1.0))


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["align", *map(str, arguments)])
    return exit_.value.code


def test_json_is_what_the_aligner_gives(capsys, model_dir, audio):
    assert run(audio, "a ɹ | ŋ", "--phones", "-m", model_dir, "-f", "json") == 0
    found = from_json(capsys.readouterr().out)
    expected = Aligner(model_dir).align(audio, "a ɹ | ŋ", is_phones=True)
    assert (found.audio, found.text) == (audio, "a ɹ ŋ")
    assert [word.word for word in found.words] == ["aɹ", "ŋ"]
    assert [p.end for p in found.phones] == pytest.approx([p.end for p in expected.phones], abs=1e-4)


def test_a_table_by_lexicon_from_a_file_into_a_file(capsys, tmp_path, model_dir, audio):
    (tmp_path / "words.dict").write_text("rang ɹ a ŋ\n", encoding="utf-8")
    (tmp_path / "talk.txt").write_text("\ufeffRang, rang 7.\n", encoding="utf-8")
    lexicon, out = tmp_path / "words.dict", tmp_path / "out" / "talk.tsv"
    arguments = [audio, tmp_path / "talk.txt", "--lexicon", lexicon, "--wildcard", "-m", model_dir]
    assert run(*arguments, "-o", out) == 0
    assert capsys.readouterr() == ("", "")
    rows = [line.split("\t") for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["tier", "start", "end", "label", "score"]
    assert [row[3] for row in rows[1:]] == ["Rang", "rang", "7", *"ɹaŋɹaŋ*"]


def test_praat_and_elan_are_written(capsys, model_dir, audio):
    assert set(get_args(Format)) == set(FORMATS)
    for form in ("TextGrid", "short-TextGrid"):
        assert run(audio, "a ɹ | ŋ", "--phones", "-m", model_dir, "-f", form) == 0
        grid = parse_textgrid(capsys.readouterr().out)
        assert [t.name for t in grid.tiers] == ["words", "phones"]
        assert [i.label for i in grid.interval_tier("words").labelled()] == ["aɹ", "ŋ"]
    assert run(audio, "a ɹ | ŋ", "--phones", "-m", model_dir, "-f", "eaf") == 0
    assert "<ANNOTATION_VALUE>aɹ</ANNOTATION_VALUE>" in capsys.readouterr().out


def test_letters_from_standard_input(capsys, monkeypatch, tmp_path, audio):
    monkeypatch.setattr(sys, "stdin", io.StringIO("No one\n"))
    model = save_recogniser(tmp_path / "letters", LETTERS)
    assert run(audio, "-", "-m", model, "-f", "txt") == 0
    assert capsys.readouterr().out == "No one\n"


def test_what_is_wrong_is_one_line_and_status_2(capsys, monkeypatch, tmp_path, model_dir, audio):
    (tmp_path / "latin1.txt").write_bytes("für".encode("latin-1"))
    monkeypatch.setattr(sys, "stdin", None)
    cases = [
        ([audio, "q", "--phones"], "'q' cannot be (not among its symbols: q)"),
        ([audio, "a " * 99, "--phones"], "talk.wav: the recording must have at least 197 frames (3.94 s)"),
        ([audio, "rang"], "`phonemizer` must say how text is spoken"),
        ([audio, "rang", "--g2p", "espeak", "--lexicon", "l"], "must not be given together"),
        ([audio, tmp_path / "none.txt"], "none.txt: there is no such text file"),
        ([audio, tmp_path / "latin1.txt"], "latin1.txt: must be UTF-8 text, but is not"),
        ([audio, "-"], "`text` must not be - where standard input is closed"),
        ([tmp_path / "none.wav", "a", "--phones"], "none.wav: there is no such file"),
        ([audio, "a", "--phones", "--lexicon", "l"], "`lexicon` must be left out where the text is --phones"),
        ([audio, "a", "--phones", "-o", audio], "`--output` must not be what is read, but is"),
        ([audio, "a", "--phons"], "--phons"),
        ([audio, "--phons"], "there is no option --phons"),
    ]
    for arguments, message in cases:
        assert run(*arguments, "-m", model_dir) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("unispeech: ")
        assert message in err
        assert err.count("\n") == 1
