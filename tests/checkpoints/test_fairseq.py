"""The original's files become our models: every container, every stage, every option."""

import json
import os

import fairseq_files as files
import numpy as np
import pytest
import torch
from transformers import UniSpeechForCTC as StockForCTC
from transformers import Wav2Vec2Processor

from unispeech.checkpoints import fairseq_settings
from unispeech.checkpoints.fairseq import convert_fairseq, read_dictionary, read_fairseq
from unispeech.checkpoints.fairseq_settings import parse_conv_layers
from unispeech.checkpoints.huggingface import load_model
from unispeech.errors import CheckpointError
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

CONTAINERS = pytest.mark.parametrize("container", ["args", "cfg", "omegaconf"])


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(files.DICTIONARY)
    return path


@CONTAINERS
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_stage_1(tmp_path, container, legacy):
    path = tmp_path / "x.pt"
    weights = files.save_fairseq(path, "labelled", container, legacy=legacy)
    converted = read_fairseq(path)
    model, config = converted.model, converted.model.config
    assert isinstance(model, UniSpeechForPreTraining) and not model.training
    assert converted.stage == "labelled"
    assert converted.do_normalize is True
    assert converted.notes == ()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 2, 4)
    assert config.intermediate_size == 24
    assert list(config.conv_dim) == [8] * 7
    assert list(config.conv_kernel) == [10, 3, 3, 3, 3, 2, 2]
    assert list(config.conv_stride) == [5, 2, 2, 2, 2, 2, 2]
    assert (config.feat_extract_norm, config.conv_bias, config.do_stable_layer_norm) == ("layer", True, True)
    assert (config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups) == (6, 2)
    assert (config.hidden_dropout, config.attention_dropout, config.activation_dropout) == (0.12, 0.13, 0.14)
    assert (config.feat_proj_dropout, config.feat_quantizer_dropout, config.final_dropout) == (
        0.15,
        0.16,
        0.17,
    )
    assert (config.layerdrop, config.feature_grad_mult) == (0.05, 0.5)
    assert (config.mask_time_prob, config.mask_time_length) == (0.6, 5)
    assert (config.mask_feature_prob, config.mask_feature_length) == (0.2, 3)
    assert (config.num_codevector_groups, config.num_codevectors_per_group) == (2, 3)
    assert (config.codevector_dim, config.proj_codevector_dim) == (12, 12)
    assert (config.contrastive_logits_temperature, config.num_negatives) == (0.2, 11)
    assert (config.negatives_from, config.gumbel_temperature) == ("all", 1.5)
    assert (config.diversity_loss_weight, config.feature_penalty_weight) == (0.2, 10)
    assert (config.replace_prob, config.ctc_weight) == (0.4, 0.3)
    assert (config.num_ctc_classes, config.vocab_size, config.pad_token_id) == (9, 9, 5)
    state = model.state_dict()
    own = {name.removeprefix("w2v_encoder.w2v_model."): tensor for name, tensor in weights.items()}
    assert len(state) == len(own)
    conv, position = "feature_extractor.conv_layers.3", "encoder.pos_conv_embed.conv.parametrizations"
    for name, key in {
        "unispeech.masked_spec_embed": "mask_emb",
        f"unispeech.{conv}.conv.bias": f"{conv}.0.bias",
        f"unispeech.{conv}.layer_norm.weight": f"{conv}.2.1.weight",
        "unispeech.encoder.layers.1.attention.k_proj.weight": "encoder.layers.1.self_attn.k_proj.weight",
        "unispeech.encoder.layers.1.layer_norm.bias": "encoder.layers.1.self_attn_layer_norm.bias",
        "unispeech.encoder.layers.0.feed_forward.output_dense.weight": "encoder.layers.0.fc2.weight",
        f"unispeech.{position}.weight.original1": "encoder.pos_conv.0.weight_v",
        "quantizer.codevectors": "quantizer.vars",
        "project_hid.weight": "final_proj.weight",
        "ctc_proj.bias": "w2v_encoder.proj.bias",
    }.items():
        assert torch.equal(state[name], own[key]), name


@CONTAINERS
def test_stage_2_has_no_head(tmp_path, container):
    path = tmp_path / "x.pt"
    files.save_fairseq(path, "continued", container)
    converted = read_fairseq(path)
    assert converted.stage == "continued"
    assert converted.model.config.ctc_weight == 0
    assert not converted.model.ctc_proj.weight.any()
    assert converted.notes == ("stage 2 has no CTC head: the one of the model is all zeros",)


@CONTAINERS
def test_fine_tuned(tmp_path, container):
    path = tmp_path / "x.pt"
    weights = files.save_fairseq(path, "fine-tuned", container)
    converted = read_fairseq(path)
    config = converted.model.config
    assert isinstance(converted.model, UniSpeechForCTC)
    assert torch.equal(converted.model.lm_head.weight, weights["w2v_encoder.proj.weight"])
    assert (config.hidden_size, config.num_attention_heads, config.do_stable_layer_norm) == (16, 4, True)
    assert (config.hidden_dropout, config.attention_dropout, config.activation_dropout) == (0.01, 0.02, 0.03)
    assert (config.feat_proj_dropout, config.final_dropout, config.layerdrop) == (0.04, 0.05, 0.06)
    assert (config.mask_time_prob, config.mask_time_length) == (0.7, 4)
    assert (config.mask_feature_prob, config.mask_feature_length) == (0.25, 2)
    assert (config.feature_grad_mult, config.ctc_zero_infinity) == (0, True)
    assert (config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id) == (9, 5, 6, 7)
    assert converted.do_normalize is True
    assert [note.split()[0] for note in converted.notes] == ["7", "no"]


def test_a_base_model_with_group_norm(tmp_path):
    path = tmp_path / "x.pt"
    weights = files.make_weights("labelled", norm="default", bias=False)
    files.save_fairseq(path, "labelled", "args", weights=weights, layer_norm_first=False, conv_bias=False)
    model = read_fairseq(path).model
    assert (model.config.feat_extract_norm, model.config.conv_bias) == ("group", False)
    assert model.config.do_stable_layer_norm is False
    norm = model.unispeech.feature_extractor.conv_layers[0].layer_norm.weight
    assert torch.equal(norm, weights["w2v_encoder.w2v_model.feature_extractor.conv_layers.0.2.weight"])


def test_half_precision_becomes_float32(tmp_path):
    weights = {name: tensor.half() for name, tensor in files.make_weights("labelled").items()}
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", weights=weights)
    assert {parameter.dtype for parameter in read_fairseq(tmp_path / "x.pt").model.parameters()} == {
        torch.float32
    }


def test_equal_widths_have_no_projection(tmp_path):
    weights = files.make_weights("fine-tuned", hidden=8)
    inner = files.argparse.Namespace(**files.PRETRAINING | {"encoder_embed_dim": 8})
    files.save_fairseq(tmp_path / "x.pt", "fine-tuned", "args", weights=weights, w2v_args=inner)
    converted = read_fairseq(tmp_path / "x.pt")
    x = torch.randn(3, 8)
    assert torch.equal(converted.model.unispeech.feature_projection.projection(x), x)
    assert "the file has no feature projection: the identity stands in for it" in converted.notes


def test_a_converted_directory_serves_transformers_too(tmp_path, vocab):
    files.save_fairseq(tmp_path / "x.pt", "fine-tuned", "args")
    converted = convert_fairseq(tmp_path / "x.pt", tmp_path / "out", vocab=vocab)
    waveforms = torch.randn(1, 2000)
    with torch.no_grad():
        expected = converted.model(waveforms).logits
        assert torch.equal(load_model(tmp_path / "out")(waveforms).logits, expected)
        stock = StockForCTC.from_pretrained(tmp_path / "out")(waveforms).logits
    assert torch.allclose(stock, expected, atol=1e-5)
    assert read_do_normalize(tmp_path / "out")
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary == converted.vocabulary
    assert vocabulary.symbols == ("a", "b", "|", "t", "s", "<pad>", "<s>", "</s>", "<unk>")
    assert (vocabulary.blank, vocabulary.word_boundary, vocabulary.unknown) == (5, 2, 8)
    processor = Wav2Vec2Processor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.pad_token_id == 5
    assert processor.decode([0, 0, 5, 0, 3]).split() == ["a", "a", "t"]
    assert processor.feature_extractor.do_normalize


def test_normalisation_is_what_the_file_says(tmp_path):
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", normalize=False)
    convert_fairseq(tmp_path / "x.pt", tmp_path / "out")
    assert not read_do_normalize(tmp_path / "out")
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", normalize=None)
    assert "does not say whether waveforms were normalised" in read_fairseq(tmp_path / "x.pt").notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize_input": True}, "`quantize_input` must be off, but is True"),
        ({"target_glu": True}, "`target_glu` must be off, but is True"),
        ({"transpose": False}, "`transpose` must be on, but is False"),
        ({"quantize_targets": False}, "`quantize_targets` must be on, but is False"),
        ({"encoder_layers": 24}, r"`encoder_layers` must agree with the weights \(2\), but is 24"),
        ({"encoder_embed_dim": 64}, r"`encoder_embed_dim` must agree with the weights \(16\), but is 64"),
        ({"activation_fn": "tanh"}, "`activation_fn` must be one of gelu, .* but is 'tanh'"),
        ({"conv_feature_layers": "[(8, 10, 5)]"}, "`conv_feature_layers` must agree with the weights"),
        (
            {"conv_feature_layers": "__import__('os')"},
            r"`conv_feature_layers` must list \(channels, kernel, stride\)",
        ),
        ({"latent_temp": "exit()"}, r"`latent_temp` must list numbers, but is 'exit\(\)'"),
        ({"dropout": 1.5}, "must lie in"),
        ({"encoder_attention_heads": 3}, "must be a multiple of `num_attention_heads`"),
    ],
)
def test_settings_that_cannot_be_followed(tmp_path, options, message):
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", **options)
    with pytest.raises(CheckpointError, match=rf"x\.pt: .*{message}") as caught:
        read_fairseq(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_settings_of_training_that_differ_are_noted(tmp_path):
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", mask_selection="normal", codebook_negatives=5)
    assert read_fairseq(tmp_path / "x.pt").notes == (
        "`mask_selection` is 'normal'; training here uses 'static'",
        "`codebook_negatives` is 5; training here uses 0",
    )


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (files.CONVS, [(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2),
        ("[(1, 2, 3)]", [(1, 2, 3)]),
        ([[4, 5, 6]], [(4, 5, 6)]),
    ],
)
def test_conv_layers_are_parsed(tmp_path, text, layers):
    assert parse_conv_layers(text, tmp_path) == layers


@pytest.mark.parametrize(
    "text",
    ["", "1", "[(1, 2)]", "[(1, 2, 3)] * 10000000000", "[(1,2,3)] - [1]", "a", "[(1,2,3)]*2.5", 7, None],
)
def test_conv_layers_of_another_kind_are_refused(tmp_path, text):
    with pytest.raises(CheckpointError, match=r"`conv_feature_layers` must list"):
        parse_conv_layers(text, tmp_path)


def without(weights, *names):
    return {name: tensor for name, tensor in weights.items() if not name.endswith(names)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "vars"), r"missing 1 weight \(quantizer.codevectors\)"),
        (
            lambda w: without(w, "fc1.weight"),
            "missing weight .*intermediate_dense.weight; the file is not complete",
        ),
        (
            lambda w: without(w, "encoder.layer_norm.bias", "proj.bias"),
            r"missing \d+ weights \(.*layer_norm.bias",
        ),
        (
            lambda w: w | {"decoder.x": torch.ones(1)},
            "must hold UniSpeech's weights only, but holds decoder.x",
        ),
        (lambda w: {name: torch.ones(1) for name in w}, "its weights must have UniSpeech's numbers of axes"),
        (lambda w: {name: 1.0 for name in w}, "must hold UniSpeech's weights only, but holds .* and more"),
        (
            lambda w: w | {"w2v_encoder.w2v_model.mask_emb": torch.ones(3)},
            r"`unispeech.masked_spec_embed` must have shape \(16,\), but has \(3,\)",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    files.save_fairseq(tmp_path / "x.pt", "labelled", "args", weights=change(files.make_weights("labelled")))
    with pytest.raises(CheckpointError, match=rf"x\.pt: {message}"):
        read_fairseq(tmp_path / "x.pt")


CIRCLE: dict = {}
CIRCLE["x"] = CIRCLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "must hold a fairseq checkpoint with `model`"),
        ({"a": 1}, "must hold a fairseq checkpoint with `model`"),
        ({"model": {}, "args": CIRCLE}, "its settings must not contain themselves"),
        ({"model": {1: 2}, "args": {"transpose": True}}, "must hold UniSpeech's weights only, but holds 1"),
        ({"model": {}, "args": None}, "must hold its settings as `args` or `cfg`, but holds model, args"),
    ],
)
def test_other_files_of_torch(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_fairseq(tmp_path / "x.pt")


def test_a_payload_in_a_whole_checkpoint_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'evidence'}",)

    content = {
        "model": files.make_weights("labelled"),
        "args": files.flat_args("labelled"),
        "extra_state": Payload(),
    }
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"refused: its pickle calls `(posix|nt)\.system`"):
        convert_fairseq(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "evidence").exists()
    assert not (tmp_path / "out").exists()


class TestEncoderSettings:
    """Fine-tuned files that do not repeat the settings of their encoder."""

    @pytest.fixture
    def path(self, tmp_path):
        (tmp_path / "tuned").mkdir()
        files.save_fairseq(tmp_path / "tuned" / "x.pt", "fine-tuned", "args", w2v_args=None)
        return tmp_path / "tuned" / "x.pt"

    def test_come_from_the_named_file(self, path, tmp_path):
        files.save_fairseq(tmp_path / "other.pt", "labelled", "cfg")
        assert read_fairseq(path, pretrained=tmp_path / "other.pt").model.config.num_attention_heads == 4

    def test_come_from_the_file_beside(self, path):
        files.save_fairseq(path.parent / "stage1.pt", "labelled", "args")
        converted = read_fairseq(path)
        assert converted.model.config.num_attention_heads == 4
        assert "the encoder's settings are those of stage1.pt, found beside the file" in converted.notes

    def test_are_those_of_a_published_size(self, path, monkeypatch):
        monkeypatch.setitem(fairseq_settings._PUBLISHED_HEADS, 16, 2)
        converted = read_fairseq(path)
        assert (converted.model.config.num_attention_heads, converted.model.config.do_stable_layer_norm) == (
            2,
            True,
        )
        assert "does not say how many attention heads" in " ".join(converted.notes)

    def test_or_are_asked_for(self, path):
        with pytest.raises(CheckpointError, match=r"must be known.*--pretrained"):
            read_fairseq(path)

    def test_of_a_file_that_is_none(self, path, tmp_path):
        torch.save([1], tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"other\.pt: must hold a fairseq checkpoint, but holds"):
            read_fairseq(path, pretrained=tmp_path / "other.pt")


class TestDictionary:
    """vocab.json of the release."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"vocab\.json: must be a JSON object of phones, but is not JSON"),
            ("[1]", "must be a JSON object of phones, but is list"),
            ("{}", "must be a dictionary of phones without <s>, <pad>, </s>, <unk>, but holds nothing"),
            ('{"a": 0, "<pad>": 1}', "must be a dictionary of phones without .*, but holds <pad>"),
            ('{"a": 0, "b": 1}', r"must have 5 phones for a head of 9 classes \(4 are special\), but has 2"),
        ],
    )
    def test_that_does_not_fit(self, vocab, text, message):
        vocab.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_dictionary(vocab, 9)

    def test_with_an_empty_phone(self, vocab):
        vocab.write_text('{"a": 0, "": 1, "b": 2, "c": 3, "d": 4}')
        vocabulary = read_dictionary(vocab, 9)
        assert vocabulary.symbols[1] == "<empty>"
        assert vocabulary.decode([0, 1, 2]) == ["a", "b"]

    def test_of_fairseq_has_its_blank_first(self, tmp_path):
        path = tmp_path / "dict.txt"
        path.write_text("aː 9\n| 8\nb 7\nts 6\nc 1\n")
        vocabulary = read_dictionary(path, 9)
        assert vocabulary.symbols == ("<pad>", "<s>", "</s>", "<unk>", "aː", "|", "b", "ts", "c")
        assert (vocabulary.blank, vocabulary.unknown, vocabulary.word_boundary) == (0, 3, 5)
        assert (vocabulary.kind, vocabulary.special) == ("phones", {0, 1, 2, 3})
        path.write_text("| 9\nE 8\nT 7\n' 6\nA 5\n")
        assert read_dictionary(path, 9).kind == "characters"

    def test_of_fairseq_sets_the_blank_of_the_model(self, tmp_path):
        (tmp_path / "dict.ltr.txt").write_text("a 5\nb 4\n| 3\nt 2\ns 1\n")
        files.save_fairseq(tmp_path / "x.pt", "fine-tuned", "args")
        converted = convert_fairseq(tmp_path / "x.pt", tmp_path / "out", vocab=tmp_path / "dict.ltr.txt")
        assert any("the blank is class 0: the special symbols of a text" in note for note in converted.notes)
        model = load_model(tmp_path / "out")
        config = model.config
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
        assert Vocabulary.load(tmp_path / "out") == converted.vocabulary
        model.eval()
        waveform = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
        logits = model(waveform).logits.log_softmax(-1)
        labels = torch.tensor([[4, 5]])
        num_frames = torch.tensor([logits.shape[1]])
        loss = torch.nn.functional.ctc_loss(
            logits.transpose(0, 1), labels, num_frames, torch.tensor([2]), blank=0, reduction="mean"
        )
        torch.testing.assert_close(model(waveform, labels=labels).loss, loss)

    def test_that_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no.json"):
            read_dictionary(tmp_path / "no.json", 9)


@pytest.mark.shared_data
def test_golden_model_a(shared_dir):
    """The authors' encoder outputs and CTC logits, whole and padded, to 1e-5."""
    golden = np.load(shared_dir / "golden" / "uniA_large_like.npz")
    converted = read_fairseq(
        shared_dir / "golden" / "uniA_large_like.pt", vocab=shared_dir / "golden" / "vocab.json"
    )
    model = converted.model
    assert converted.do_normalize is False
    assert converted.vocabulary.blank == model.config.pad_token_id == 7
    stated = json.loads((shared_dir / "golden" / "uniA_large_like.config.json").read_text())
    assert model.config.negatives_from == "all" and stated["negatives_from_everywhere"]
    assert model.config.ctc_weight == 0.5 and model.config.num_negatives == stated["num_negatives"]
    model.config.frame_count_rule = "original"
    waveforms = torch.from_numpy(golden["in/wav"]).float()
    mask = torch.from_numpy(~golden["in/padding_mask"]).long()
    with torch.no_grad():
        for group, x, attention_mask in (
            ("feat_nopad", waveforms[:1], None),
            ("feat_row1_alone", waveforms[1:, :17003], None),
            ("feat_pad", waveforms, mask),
        ):
            output = model.unispeech(x, attention_mask)
            np.testing.assert_allclose(output.last_hidden_state, golden[f"{group}/encoder_out"], atol=1e-5)
            np.testing.assert_allclose(output.extract_features, golden[f"{group}/feat_ln"], atol=1e-5)
        # The authors' evaluation replaces frames at random; the record says which, and by what.
        context = model.unispeech(waveforms, mask).last_hidden_state
        replaced = torch.from_numpy(golden["eval/replace_TB"]).T.bool()[..., None]
        logits = model.ctc_proj(torch.where(replaced, torch.from_numpy(golden["eval/q_hidden"]), context))
    np.testing.assert_allclose(logits.transpose(0, 1), golden["eval/ctc_logits_TBV"], atol=1e-5)


@pytest.mark.shared_data
def test_golden_model_d(shared_dir, tmp_path):
    """The authors' logits, log-probabilities, loss and best classes, from a converted directory."""
    folder = shared_dir / "golden"
    golden = np.load(folder / "ctcD_finetune.npz")
    convert_fairseq(folder / "ctcD_finetune.pt", tmp_path / "out", vocab=folder / "vocab.json")
    model = load_model(tmp_path / "out", frame_count_rule="original", ctc_loss_reduction="sum")
    source = np.load(folder / "uniA_large_like.npz")
    waveforms = torch.from_numpy(source["in/wav"]).float()
    mask = torch.from_numpy(~source["in/padding_mask"]).long()
    labels = torch.from_numpy(source["in/target"]).long()
    lengths = torch.from_numpy(source["in/target_lengths"])
    labels = labels.masked_fill(torch.arange(labels.shape[1]) >= lengths[:, None], -100)
    with torch.no_grad():
        output = model(waveforms, mask, labels)
    logits = output.logits.transpose(0, 1)
    np.testing.assert_allclose(logits, golden["eval/logits_TBV"], atol=1e-5)
    np.testing.assert_allclose(logits.log_softmax(-1), golden["eval/lprobs_TBV"], atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(-1), golden["eval/argmax_TB"])
    np.testing.assert_allclose(output.loss, golden["eval/ctc_loss_sum"], rtol=1e-6)
