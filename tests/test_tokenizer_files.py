"""Vocabularies in files: that transformers and we read each other, and what is refused."""

import json
import subprocess
import sys
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.audio import normalise_waveform
from unispeech.errors import CheckpointError
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

PHONES = ("h ə l oʊ | w ɜː l d", "t͡ʃ aː n", "t͡s a ɪ aɪ")


def phones(*symbols, **fields):
    return Vocabulary(symbols=("<pad>", *symbols), blank=0, kind="phones", **fields)


def write_files(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def processor(folder):
    from transformers import Wav2Vec2Processor

    return Wav2Vec2Processor.from_pretrained(folder)


def read_frames(vocabulary, ids):
    """What a greedy decoder does: repeats merged, blanks out, text."""
    return vocabulary.join(vocabulary.decode([index for index, _ in groupby(ids)]))


class TestOurFiles:
    @pytest.mark.parametrize(
        "vocabulary",
        [
            Vocabulary.build(PHONES, kind="phones"),
            Vocabulary.build(["a b c"], kind="phones"),
            Vocabulary.build(["a b", "c"], kind="phones", languages=["en", "de"]),
            Vocabulary.build(["guten Tag", "ça va"], kind="characters"),
            Vocabulary(
                symbols=("<s>", "a", "<unk>", "[mask]", "</s>", "aː", "<blank>"),
                blank=6,
                kind="phones",
                unknown=2,
                special=frozenset({0, 3, 4}),
            ),
            Vocabulary(symbols=("a", "|", "b", "[PAD]"), blank=3, kind="characters", word_boundary=1),
            Vocabulary(symbols=("a", "#", "b", "[PAD]"), blank=3, kind="phones", word_boundary=1),
        ],
        ids=["boundaries", "phones", "tagged", "characters", "foreign", "other blank", "other boundary"],
    )
    def test_transformers_decodes_as_we_do(self, tmp_path, vocabulary):
        vocabulary.save(tmp_path)
        assert Vocabulary.load(tmp_path) == vocabulary
        tokenizer = processor(tmp_path).tokenizer
        assert len(tokenizer) == len(vocabulary)
        assert tokenizer.get_vocab() == {symbol: i for i, symbol in enumerate(vocabulary.symbols)}
        assert tokenizer.pad_token_id == vocabulary.blank
        # transformers fails on no frames at all.
        printed = [
            index for index in range(len(vocabulary)) if index not in vocabulary.special - {vocabulary.blank}
        ]
        frames = st.lists(st.sampled_from(printed), min_size=1)

        @given(frames)
        @settings(max_examples=50, deadline=None)
        def decodes_alike(ids):
            assert tokenizer.decode(ids) == read_frames(vocabulary, ids)

        decodes_alike()

    def test_transformers_encodes_as_we_do_without_espeak(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "phonemizer", None)
        vocabulary = Vocabulary.build(PHONES, kind="phones")
        vocabulary.save(tmp_path)
        assert processor(tmp_path)(text=PHONES[0]).input_ids == vocabulary.encode(PHONES[0])
        vocabulary = Vocabulary.build(["guten tag"], kind="characters")
        vocabulary.save(tmp_path)
        assert processor(tmp_path)(text="tag guten").input_ids == vocabulary.encode("tag guten")

    def test_what_transformers_saves_again_is_the_same(self, tmp_path):
        for kind in ("phones", "characters"):
            vocabulary = Vocabulary.build(["a b | c"], kind=kind)
            vocabulary.save(tmp_path / kind)
            processor(tmp_path / kind).save_pretrained(tmp_path / f"again {kind}")
            assert Vocabulary.load(tmp_path / f"again {kind}") == vocabulary

    @pytest.mark.parametrize("do_normalize", [True, False])
    def test_the_feature_extractor(self, tmp_path, do_normalize):
        phones("a").save(tmp_path, do_normalize=do_normalize, return_attention_mask=do_normalize)
        extractor = processor(tmp_path).feature_extractor
        assert (extractor.do_normalize, extractor.return_attention_mask) == (do_normalize, do_normalize)
        assert extractor.sampling_rate == 16_000
        if do_normalize:
            waveform = np.sin(np.arange(800, dtype=np.float32)) + 0.1
            expected = extractor(waveform, sampling_rate=16_000).input_values[0]
            np.testing.assert_allclose(normalise_waveform(waveform), expected, atol=1e-5)
        assert read_do_normalize(tmp_path) is do_normalize
        for name in ("processor_config", "preprocessor_config"):
            (tmp_path / f"{name}.json").rename(tmp_path / "aside")
            assert read_do_normalize(tmp_path) is do_normalize
            (tmp_path / "aside").rename(tmp_path / f"{name}.json")

    def test_waveforms_are_normalised_unless_told(self, tmp_path):
        assert read_do_normalize(tmp_path)

    def test_another_sample_rate_is_refused(self, tmp_path):
        write_files(tmp_path, preprocessor_config={"sampling_rate": 8000})
        with pytest.raises(CheckpointError, match="`sampling_rate` must be 16000, but is 8000"):
            read_do_normalize(tmp_path)

    @pytest.mark.parametrize(("value", "written"), [("false", '"false"'), (0, "0"), (None, "null")])
    def test_a_switch_that_is_neither_true_nor_false_is_refused(self, tmp_path, value, written):
        write_files(tmp_path, preprocessor_config={"do_normalize": value})
        line = f"^{tmp_path}/preprocessor_config.json: `do_normalize` must be true or false, but is {written}"
        with pytest.raises(CheckpointError, match=line):
            read_do_normalize(tmp_path)
        write_files(tmp_path, processor_config={"feature_extractor": {"do_normalize": value}})
        with pytest.raises(CheckpointError, match=r"/processor_config.json: `do_normalize` must be true or"):
            read_do_normalize(tmp_path)

    def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch):
        phones("a").save(tmp_path)

        def no_space(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", no_space)
        with pytest.raises(OSError, match="No space left"):
            phones("b").save(tmp_path)
        assert Vocabulary.load(tmp_path) == phones("a")
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_loading_imports_neither_torch_nor_transformers(self, tmp_path):
        phones("a").save(tmp_path)
        script = (
            "import sys; from unispeech.text import Vocabulary; Vocabulary.load(sys.argv[1]); "
            "print({'torch', 'transformers'} & set(sys.modules))"
        )
        run = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert run.stdout == "set()\n"


LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6}
ESPEAK = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "n": 4, "aɪ": 5, "t͡ʃ": 6}
DEFAULTS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


class TestFilesOfOthers:
    """Layouts as they lie on the Hub, from 2020 until today."""

    def test_characters_without_a_class(self, tmp_path):
        settings = {**DEFAULTS, "do_lower_case": False, "do_normalize": True}
        vocabulary = Vocabulary.load(write_files(tmp_path, vocab=LETTERS, tokenizer_config=settings))
        assert vocabulary.kind == "characters"
        assert (vocabulary.blank, vocabulary.word_boundary, vocabulary.unknown) == (0, 4, 3)
        assert vocabulary.special == {0, 1, 2, 3}
        assert read_frames(vocabulary, [1, 6, 6, 0, 6, 4, 5, 2]) == "TT E"

    def test_characters_in_the_layout_of_today(self, tmp_path):
        from transformers import Wav2Vec2CTCTokenizer

        write_files(tmp_path, vocab=LETTERS)
        tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
        tokenizer.save_pretrained(tmp_path)
        vocabulary = Vocabulary.load(tmp_path)
        assert (vocabulary.kind, vocabulary.word_boundary, vocabulary.special) == (
            "characters",
            4,
            {0, 1, 2, 3},
        )
        assert read_frames(vocabulary, [6, 6, 0, 6, 4, 5]) == tokenizer.decode([6, 6, 0, 6, 4, 5])

    def test_phones_for_espeak(self, tmp_path):
        settings = {
            **DEFAULTS,
            "phone_delimiter_token": " ",
            "word_delimiter_token": None,
            "do_phonemize": True,
            "phonemizer_backend": "espeak",
            "tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer",
        }
        vocabulary = Vocabulary.load(write_files(tmp_path, vocab=ESPEAK, tokenizer_config=settings))
        assert (vocabulary.kind, vocabulary.blank, vocabulary.word_boundary) == ("phones", 1, None)
        assert vocabulary.encode("naɪt͡ʃ") == [4, 5, 6]
        assert read_frames(vocabulary, [0, 1, 4, 4, 5, 1, 5]) == "n aɪ aɪ"
        del settings["tokenizer_class"]
        write_files(tmp_path, tokenizer_config=settings)
        assert Vocabulary.load(tmp_path) == vocabulary

    def test_a_bar_among_phones_is_the_boundary(self, tmp_path):
        settings = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer", "word_delimiter_token": None}
        write_files(tmp_path, vocab={**ESPEAK, "|": 7}, tokenizer_config=settings)
        assert Vocabulary.load(tmp_path).word_boundary == 7

    def test_tokens_in_brackets_behind_the_vocabulary(self, tmp_path):
        tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>"}
        write_files(
            tmp_path,
            vocab={"a": 0, "|": 1, "[UNK]": 2, "[PAD]": 3},
            special_tokens_map={**tokens, "pad_token": {"content": "[PAD]", "lstrip": False}},
            added_tokens={"<s>": 4, "</s>": 5},
        )
        vocabulary = Vocabulary.load(tmp_path)
        assert vocabulary.symbols == ("a", "|", "[UNK]", "[PAD]")
        assert (vocabulary.blank, vocabulary.unknown, vocabulary.special) == (3, 2, {2, 3})
        write_files(tmp_path, config={"vocab_size": 6})
        vocabulary = Vocabulary.load(tmp_path)
        assert vocabulary.symbols == ("a", "|", "[UNK]", "[PAD]", "<s>", "</s>")
        assert vocabulary.special == {2, 3, 4, 5}

    def test_added_tokens_of_today(self, tmp_path):
        added = {
            "3": {"content": "<pad>", "special": True},
            "4": {"content": "[noise]", "special": True},
            "5": {"content": "b", "special": False},
        }
        settings = {
            "pad_token": "<pad>",
            "added_tokens_decoder": added,
            "model_specific_special_tokens": {"word_delimiter_token": "#"},
            "extra_special_tokens": {"sil": "[sil]"},
        }
        vocab = {"a": 0, "#": 1, "[sil]": 2, "<pad>": 3}
        write_files(tmp_path, vocab=vocab, tokenizer_config=settings, config={"vocab_size": 6})
        vocabulary = Vocabulary.load(tmp_path)
        assert vocabulary.symbols == ("a", "#", "[sil]", "<pad>", "[noise]", "b")
        assert vocabulary.special == {2, 3, 4}
        assert vocabulary.word_boundary == 1

    def test_one_vocabulary_per_language(self, tmp_path):
        nested = {"deu": {"<pad>": 0, "ü": 1}, "eng": {"<pad>": 0, "w": 1}}
        write_files(tmp_path, vocab=nested, tokenizer_config={"target_lang": "eng"})
        assert Vocabulary.load(tmp_path).symbols == ("<pad>", "w")
        assert Vocabulary.load(tmp_path, language="deu").symbols == ("<pad>", "ü")
        with pytest.raises(CheckpointError, match="one of deu, eng, but is 'ger'"):
            Vocabulary.load(tmp_path, language="ger")
        write_files(tmp_path, tokenizer_config={})
        with pytest.raises(CheckpointError, match=r"`language` must be one of deu, eng, but is None\."):
            Vocabulary.load(tmp_path)

    @pytest.mark.parametrize(("symbols", "kind"), [("ab", "characters"), (["a", "aː"], "phones")])
    def test_a_bare_vocabulary(self, tmp_path, symbols, kind):
        write_files(tmp_path, vocab={symbol: i for i, symbol in enumerate(["<pad>", "<s>", *symbols])})
        vocabulary = Vocabulary.load(tmp_path)
        assert vocabulary.kind == kind
        assert vocabulary.special == {0, 1}


class TestBrokenFiles:
    def refused(self, folder, line, **files):
        write_files(folder, **files)
        with pytest.raises(CheckpointError, match=line) as caught:
            Vocabulary.load(folder)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(folder))

    def test_no_vocabulary(self, tmp_path):
        self.refused(
            tmp_path, r": has no vocab\.json; copy the one .* there, or write one with Vocabulary\.save\."
        )
        with pytest.raises(CheckpointError, match=r"nowhere: has no vocab\.json"):
            Vocabulary.load(tmp_path / "nowhere")

    def test_not_json(self, tmp_path):
        self.refused(tmp_path, r"vocab\.json: must be JSON in UTF-8, but cannot be read", vocab="{'a': 0")

    def test_not_an_object(self, tmp_path):
        self.refused(tmp_path, r"vocab\.json: must hold a JSON object, but holds a list\.", vocab=["a"])

    def test_no_blank(self, tmp_path):
        self.refused(tmp_path, r"hold the `pad_token` '<pad>' as the CTC blank, but lacks it", vocab={"a": 0})

    @pytest.mark.parametrize("index", ["0", 0.0, True, None])
    def test_ids_that_are_no_integers(self, tmp_path, index):
        self.refused(tmp_path, r"ids must be integers, but 'a' has", vocab={"a": index, "<pad>": 1})

    def test_ids_with_a_hole(self, tmp_path):
        self.refused(tmp_path, r"ids must run from 0 to 1, but are without 1\.", vocab={"<pad>": 0, "a": 2})

    def test_ids_twice(self, tmp_path):
        vocab = {"<pad>": 0, "a": 1, "b": 1, "c": 2}
        self.refused(tmp_path, r"ids must run from 0 to 3, but are without 3\.", vocab=vocab)

    def test_an_empty_symbol(self, tmp_path):
        self.refused(tmp_path, r"vocab\.json: `symbols` must be distinct and not", vocab={"<pad>": 0, "": 1})

    def test_a_language_for_one_vocabulary(self, tmp_path):
        write_files(tmp_path, vocab={"<pad>": 0})
        with pytest.raises(CheckpointError, match=r"`language` must be None .* but is 'en'"):
            Vocabulary.load(tmp_path, language="en")
