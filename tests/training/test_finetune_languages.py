"""What a fine-tuned model knows of its languages: written beside it, found by `transcribe --language`."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from tone_corpus import write_corpus, write_recipe
from unispeech.cli.decoding import DecodingOptions
from unispeech.decoding.inventory import model_inventory
from unispeech.text import Vocabulary
from unispeech.training.finetune import run_finetuning
from unispeech.training.targets import collect_languages

torch.set_num_threads(1)

KNOWN = {"ky": ["b", "d"], "sv": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of two languages with phones of their own, and of none."""
    folder = write_corpus(tmp_path_factory.mktemp("tones") / "train", 5, with_times=False)
    with gzip.open(folder / "cuts.jsonl.gz", "rt", encoding="utf-8") as file:
        cuts = [json.loads(line) for line in file]
    said = [("sv", "a b"), ("sv", "c a"), ("ky", "d b"), ("ky", "b"), (None, "d")]
    for cut, (language, phones) in zip(cuts, said, strict=True):
        supervision = cut["supervisions"][0]
        supervision["language"] = language
        supervision["custom"] = {"phones": phones}
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in cuts)
    return folder


def test_a_run_leaves_its_languages_and_so_does_its_resumption(corpus, tmp_path):
    run_finetuning(write_recipe(tmp_path / "r.yaml", corpus, schedule={"num_updates": 2}), tmp_path / "run")
    path = tmp_path / "run" / "last" / "languages.json"
    assert json.loads(path.read_text())["inventories"] == KNOWN
    vocabulary = Vocabulary.load(path.parent)
    assert model_inventory(path.parent, vocabulary, "ky") == ["b", "d"]
    _, restriction = DecodingOptions(language="sv").prepare(str(path.parent))
    assert restriction.vocabulary.symbols == ("<pad>", "a", "b", "c")
    path.unlink()  # as a checkpoint of before
    run_finetuning(None, tmp_path / "run", ["schedule.num_updates=3"], resume=True)
    assert json.loads(path.read_text())["inventories"] == KNOWN


def test_symbols_that_the_model_lacks_are_no_part_of_a_language(corpus):
    vocabulary = Vocabulary(symbols=("<pad>", "|", "b", "d"), blank=0, word_boundary=1, kind="phones")
    assert collect_languages([corpus], vocabulary) == {"ky": ["b", "d"], "sv": ["b"]}


def test_tagged_phones_and_characters_need_no_file(corpus):
    tagged = Vocabulary(symbols=("<pad>", "(sv)a", "(ky)b"), blank=0, kind="phones")
    assert collect_languages([corpus], tagged) == {}
    assert collect_languages([corpus], Vocabulary(symbols=("<pad>", "a"), blank=0, kind="characters")) == {}
