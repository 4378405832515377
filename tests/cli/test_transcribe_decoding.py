"""The options of `unispeech transcribe` that decode with knowledge."""

import json

import pytest

from tiny_recognisers import PHONES, WORD_PHONES, save_recogniser, write_babble
from unispeech.cli import main
from unispeech.decoding.inventory import write_inventories
from unispeech.decoding.ngram_training import train_ngram


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoding")
    save_recogniser(folder / "model", PHONES)
    save_recogniser(folder / "words", WORD_PHONES)
    write_babble(folder / "a.wav", 1.0)
    write_babble(folder / "b.wav", 0.6, seed=1)
    model = train_ngram([["a", "ŋ", "a"], ["ɹ", "a"]], order=2)
    (folder / "lm.arpa").write_text(model.to_arpa(), encoding="utf-8")
    (folder / "lexicon.txt").write_text("tea  t a\ntea t s\nsat s a t\n")
    (folder / "words.arpa").write_text(train_ngram([["tea", "sat"]]).to_arpa())
    (folder / "inventory.txt").write_text("a ŋ\n", encoding="utf-8")
    (folder / "far.txt").write_text("a q\n")
    write_inventories(folder / "model", {"xx": ["a", "ɹ"]})
    return folder


def transcribe(capsys, folder, *arguments, model="model"):
    with pytest.raises(SystemExit) as stop:
        main(["transcribe", str(folder / "a.wav"), "-m", str(folder / model), *map(str, arguments)])
    return (stop.value.code or 0, *capsys.readouterr())


def test_nbest_and_alternatives_are_written(folder, capsys):
    status, out, _ = transcribe(capsys, folder, "--nbest", 3, "-f", "json")
    document = json.loads(out)
    assert status == 0
    assert document["nbest"][0]["text"] == document["text"]
    assert len(document["nbest"]) == 3
    assert {"phone", "prob"} == set(document["phones"][0]["alternatives"][0])


def test_a_language_model_and_hotwords_are_heard(folder, capsys):
    _, plain, _ = transcribe(capsys, folder, "--beam", 20)
    _, helped, _ = transcribe(capsys, folder, "--lm", folder / "lm.arpa", "--lm-weight", 5, "--lm-bonus", 2)
    _, kept_out, _ = transcribe(capsys, folder, "--hotword", "a=-50", "--hotword", "ɹ=-50")
    assert helped != plain
    assert not {"a", "ɹ"} & set(kept_out.split())


def test_words_are_said_as_the_lexicon_says(folder, capsys):
    options = ["--lexicon", folder / "lexicon.txt", "--lm", folder / "words.arpa", "--hotword", "tea sat=9"]
    status, out, err = transcribe(capsys, folder, *options, model="words")
    assert (status, err) == (0, "")
    assert set(out.split()) <= {"a", "t", "s"}


def test_what_comes_out_lies_in_the_inventory(folder, capsys):
    status, out, _ = transcribe(capsys, folder, "--inventory", folder / "inventory.txt")
    assert status == 0
    assert set(out.split()) <= {"a", "ŋ"}
    _, out, _ = transcribe(capsys, folder, "--language", "xx", "--beam", 5)
    assert set(out.split()) <= {"a", "ɹ"}


def test_a_mapping_is_shown(folder, capsys):
    pytest.importorskip("panphon", reason="the extra inventory is not installed")
    options = ["--inventory", folder / "inventory.txt", "--inventory-mode", "map"]
    status, out, err = transcribe(capsys, folder, *options)
    assert status == 0
    assert set(out.split()) <= {"a", "ŋ"}
    assert err.startswith("unispeech: inventory: t͡ʃ -> ŋ, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--nbest", "2", "--beam", "0"],
            "`--beam` must be above 0 where --lm, --hotword or --nbest",
        ),
        (
            ["--lm", "lm.arpa", "--lm-weight", "nan"],
            "the weight of `lm` must be finite and at least 0, but is",
        ),
        (
            ["--lm", "lm.arpa", "--lm-weight", "-5"],
            "the weight of `lm` must be finite and at least 0, but is",
        ),
        (["--lm", "lm.arpa", "--lm-bonus", "inf"], "the bonus of `lm` must be finite, but is inf"),
        (["--inventory", "far.txt"], "`inventory` must hold symbols that the model can write, but holds 'q'"),
        (["--language", "xy"], "`language` must be one of xx, but is 'xy'; did you mean 'xx'?"),
        (["--lm", "lexicon.txt"], "lexicon.txt:3: file must have a line \\data\\, but has none"),
        (["--hotword", "q"], "`hotword` 'q' must be in the lexicon or in the model's symbols"),
        (
            ["--hotword", "a", "--lexicon", "bad.txt"],
            "bad.txt:1: line must be a word and its phones, but",
        ),
        (["--hotword", "a", "--lexicon", "none.txt"], "none.txt: lexicon must hold at least one word"),
        (["--hotword", "a", "--lexicon", "a.wav"], "a.wav: text must be UTF-8, but is not"),
        (["--lm-bonus", "1"], "`--lm` must be given with --lm-weight and --lm-bonus, but is missing"),
        (["--beam", "5", "--lm-weight", "2"], "`--lm` must be given with --lm-weight and --lm-bonus, but is"),
        (["--lexicon", "lexicon.txt"], "`--lm` or `--hotword` must be given with --lexicon, but both are"),
        (
            ["--inventory-mode", "map"],
            "`--inventory` or `--language` must be given with --inventory-mode map, but both are missing",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder, capsys, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    (folder / "bad.txt").write_text("x\n")
    (folder / "none.txt").write_text("\n")
    status, _, err = transcribe(capsys, folder, *options)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith(f"unispeech: {message}")
