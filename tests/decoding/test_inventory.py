import sys

import numpy as np
import pytest
from ctc_cases import log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.decoding import articulation
from unispeech.decoding.articulation import nearest_phones
from unispeech.decoding.beam import beam_search
from unispeech.decoding.greedy import greedy
from unispeech.decoding.inventory import (
    collect_inventories,
    model_inventory,
    read_inventory,
    restrict,
    write_inventories,
)
from unispeech.errors import CheckpointError, ManifestError
from unispeech.text import Vocabulary

PHONES = Vocabulary(
    symbols=("<pad>", "<unk>", "|", "a", "ɡ", "t͡ʃ", "ɹ", "y", "õ"),
    blank=0,
    unknown=1,
    word_boundary=2,
    kind="phones",
)
TAGGED = Vocabulary(symbols=("<pad>", "(de)a", "(en)a", "(en)ɹ"), blank=0, kind="phones")
PHOIBLE = """InventoryID,Glottocode,ISO6393,LanguageName,Phoneme,SegmentClass
1,kore1280,kor,Korean,a,vowel
1,kore1280,kor,Korean,ɡ|k,consonant
1,kore1280,kor,Korean,˦,tone
2,kett1243,ket,Ket,a,vowel
3,kett1243,ket,Ket,ɹ,consonant
"""


def rows_of(num_symbols, num_frames=20, seed=0):
    return log_softmax(np.random.default_rng(seed).normal(size=(num_frames, num_symbols)) * 3).astype(
        np.float32
    )


def test_a_mask_renormalises_what_is_left():
    rows = rows_of(9)
    restriction = restrict(PHONES, ["a", "ɹ"])
    assert restriction.vocabulary.symbols == ("<pad>", "|", "a", "ɹ")
    assert (restriction.vocabulary.blank, restriction.vocabulary.word_boundary) == (0, 1)
    probs = np.exp(rows[:, [0, 2, 3, 6]].astype(float))
    assert np.allclose(np.exp(restriction.apply(rows)), probs / probs.sum(axis=1, keepdims=True), atol=1e-6)
    assert restriction.describe() == ""


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from(["a", "ɡ", "t͡ʃ", "ɹ", "y", "õ"]), min_size=1), st.integers(0, 99))
def test_what_comes_out_lies_in_the_inventory(inventory, seed):
    restriction = restrict(PHONES, sorted(inventory))
    rows = restriction.apply(rows_of(9, seed=seed))
    assert np.allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-5)
    [[best]] = beam_search([rows], 0)
    for tokens in (best.tokens, [span.token for span in greedy(rows, 0)]):
        assert {restriction.vocabulary.symbols[token] for token in tokens} <= inventory | {"|"}


def test_frames_in_which_nothing_of_the_inventory_is_probable_are_still_read():
    rows = np.full((1, 9), -2000.0)
    rows[0, [4, 3]] = [0.0, -1000.0]
    restricted = restrict(PHONES, ["a"]).apply(rows)
    assert restricted[0, 2] == 0.0


def test_symbols_are_compared_whatever_their_spelling():
    restriction = restrict(PHONES, ["g", "o\u0303", "õ"])
    assert restriction.vocabulary.symbols[2:] == ("ɡ", "õ")


def test_a_symbol_that_the_model_cannot_write_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"`inventory` must hold symbols that the model can write, but holds 'q', 'ħ'.*\(map\)",
    ):
        restrict(PHONES, ["a", "q", "ħ"])
    with pytest.raises(ValueError, match=r"`inventory` must hold at least one symbol, but is empty"):
        restrict(PHONES, [])


def test_phones_of_several_languages_count_as_one_unless_one_is_chosen():
    rows = rows_of(4)
    both = restrict(TAGGED, ["a"]).apply(rows)
    english = restrict(TAGGED, ["a"], language="en").apply(rows)
    probs = np.exp(rows.astype(float))
    assert np.allclose(np.exp(both[:, 1]), (probs[:, 1] + probs[:, 2]) / probs[:, :3].sum(axis=1), atol=1e-6)
    assert np.allclose(np.exp(english[:, 1]), probs[:, 2] / (probs[:, 0] + probs[:, 2]), atol=1e-6)


def test_other_symbols_count_as_the_nearest():
    pytest.importorskip("panphon", reason="the extra inventory is not installed")
    restriction = restrict(PHONES, ["a", "k", "u", "r", "ʃ", "m", "o"], mode="map")
    assert restriction.mapping == {"ɡ": "k", "t͡ʃ": "ʃ", "ɹ": "r", "y": "u", "õ": "o"}
    assert restriction.unreached == ("m",)
    assert restriction.describe() == "ɡ -> k, t͡ʃ -> ʃ, ɹ -> r, y -> u, õ -> o; nothing counts as m"
    rows = rows_of(9)
    probs = np.exp(rows.astype(float))
    expected = probs[:, 4] / (1.0 - probs[:, 1])
    assert np.allclose(np.exp(restriction.apply(rows)[:, 3]), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"`inventory` must hold IPA symbols that the model can reach.*'7'"):
        restrict(PHONES, ["a", "7"], mode="map")


def test_the_nearest_has_the_least_distance():
    distance = pytest.importorskip(
        "panphon.distance", reason="the extra inventory is not installed"
    ).Distance()
    inventory = ["p", "d", "k", "i", "ɔ"]
    for phone, nearest in nearest_phones(["b", "t", "e", "ɒ", "q", "aɪ"], inventory).items():
        distances = [distance.weighted_feature_edit_distance(phone, other) for other in inventory]
        assert distances[inventory.index(nearest)] == min(distances)


def test_without_panphon_mapping_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "panphon.distance", None)
    with pytest.raises(ImportError, match=r"needs panphon, which is not installed; pip install 'unispeech\["):
        articulation._distance.__wrapped__()


def test_an_inventory_is_read_from_text(tmp_path):
    path = tmp_path / "inventory.txt"
    path.write_text("a  t͡ʃ\n# vowels\ni # as in bee\na\n")
    assert read_inventory(path) == ["a", "t͡ʃ", "i"]
    path.write_text("# nothing\n")
    with pytest.raises(
        ManifestError, match=r"inventory.txt: inventory must hold at least one symbol, but is"
    ):
        read_inventory(path)
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(ManifestError, match=r"inventory.txt: text must be UTF-8, but is not"):
        read_inventory(path)


def test_an_inventory_is_read_from_phoible(tmp_path):
    path = tmp_path / "phoible.csv"
    path.write_text(PHOIBLE)
    for language in ("1", "kor", "kore1280", "Korean"):
        assert read_inventory(path, language=language) == ["a", "ɡ"]
    assert read_inventory(path, language="3") == ["ɹ"]
    with pytest.raises(
        ManifestError, match=r"must be chosen, but there are 2 for 'ket'; give.*2 \(Ket\), 3 \(K"
    ):
        read_inventory(path, language="ket")
    with pytest.raises(
        ManifestError, match=r"one inventory must be chosen, but there are 3; give as language"
    ):
        read_inventory(path)
    with pytest.raises(
        ManifestError, match=r"language must be one of the table's, but is 'Koreen'; did you mean"
    ):
        read_inventory(path, language="Koreen")
    path.write_text("Phoneme\na\nb\n")
    assert read_inventory(path, language="any") == ["a", "b"]
    path.write_text("Segment\na\n")
    with pytest.raises(ManifestError, match=r"phoible.csv:1: table must have a column Phoneme"):
        read_inventory(path)


def test_a_model_tells_its_languages(tmp_path):
    utterances = [("de", ["a", "y"]), ("de", ["a"]), (None, ["x"]), ("en", ["ɹ"])]
    assert collect_inventories(utterances, min_count=2) == {"de": ["a"], "en": []}
    write_inventories(tmp_path, collect_inventories(utterances))
    assert model_inventory(tmp_path, PHONES, "de") == ["a", "y"]
    assert [path.name for path in tmp_path.iterdir()] == ["languages.json"]
    assert model_inventory(tmp_path, TAGGED, "en") == ["a", "ɹ"]
    with pytest.raises(
        ValueError, match=r"`language` must be one of de, en, but is 'dee'; did you mean 'de'"
    ):
        model_inventory(tmp_path, PHONES, "dee")
    with pytest.raises(
        ValueError, match=r"must be left out for .*whose languages.json is missing, but is 'de'"
    ):
        model_inventory(tmp_path / "none", PHONES, "de")


@pytest.mark.parametrize(
    "content", ["x", "[]", '{"version": 2, "inventories": {}}', '{"version": 1, "inventories": {"de": [1]}}']
)
def test_a_broken_file_of_languages_is_refused(tmp_path, content):
    (tmp_path / "languages.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"languages.json: must be an object with version 1 and inventories"
    ):
        model_inventory(tmp_path, PHONES, "de")
