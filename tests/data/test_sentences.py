from pathlib import Path

import pytest

from unispeech.data.sentences import find_fault, read_sentences
from unispeech.errors import ManifestError


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("Two words.", None),
        ("L'été, déjà? \u00abNon!\u00bb", None),
        ("Ünlü (küçük) harfler\u2026", None),
        ("नमस्ते दुनिया", None),
        ("如要必要，请保存。", None),
        ("", "empty"),
        ("One", "too short"),
        ("a b c d e f g h i j k l m n o", "too long"),
        ("Room 12 is free.", "digits or odd characters"),
        ("Write to a@b now.", "digits or odd characters"),
        ("Откройте Writer сейчас.", "two scripts"),
        ("... --- ...", "too short"),
    ],
)
def test_what_is_taken(sentence: str, fault: str | None) -> None:
    assert find_fault(sentence, num_words=(2, 14)) == fault


def test_every_line_is_taken_or_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffA good one.\n\na  GOOD one!\nNumber 9 fails.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Another good one.\r\nShort\n", encoding="utf-8")
    sentences, left_out = read_sentences([tmp_path / "a.txt", tmp_path / "b.txt"], num_words=(2, 14))
    assert sentences == ["A good one.", "Another good one."]
    assert left_out == {"empty": 1, "repeated": 1, "digits or odd characters": 1, "too short": 1}


def test_a_file_of_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"a.txt: must have sentences .* has none \(2 digits"):
        read_sentences([tmp_path / "a.txt"], num_words=(1, 9))


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"Fine words.\nM\xfcll\n")
    with pytest.raises(ManifestError, match=r"a.txt:2: text must be UTF-8, but is not\."):
        read_sentences([tmp_path / "a.txt"], num_words=(1, 9))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_sentences([tmp_path / "none.txt"], num_words=(1, 9))


def test_a_sentence_in_both_unicode_forms_is_one(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("La man\u0303ana es larga.\nLa ma\u00f1ana es larga.\n", encoding="utf-8")
    assert read_sentences([path], num_words=(2, 14)) == (["La ma\u00f1ana es larga."], {"repeated": 1})
