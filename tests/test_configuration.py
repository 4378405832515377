"""The configuration: transformers' fields and defaults, ranges, relations, misspelt names."""

import json
import warnings
from dataclasses import fields

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

import tiny
from unispeech import UniSpeechConfig, UniSpeechForPreTraining, UniSpeechModel
from unispeech.configuration import base_config, large_config


def test_every_field_of_transformers_with_its_default():
    stock = {
        f.name: getattr(transformers.UniSpeechConfig(), f.name) for f in fields(transformers.UniSpeechConfig)
    }
    ours = UniSpeechConfig()
    assert len(stock) >= 55
    assert {name: getattr(ours, name) for name in stock} == stock


def test_dictionaries_agree():
    stock, ours = transformers.UniSpeechConfig().to_dict(), UniSpeechConfig().to_dict()
    assert {name: ours[name] for name in stock} == stock
    added = set(ours) - set(stock)
    assert added == {
        "adapter_attn_dim",
        "ctc_weight",
        "exclude_equal_negatives",
        "feature_grad_mult",
        "feature_penalty_weight",
        "frame_count_rule",
        "group_norm_over_padding",
        "gumbel_temperature",
        "negatives_from",
    } - set(stock)


def test_files_travel_both_ways(tmp_path):
    UniSpeechConfig(hidden_size=48, mask_time_prob=0.3, gumbel_temperature=0.5).save_pretrained(tmp_path)
    stock = transformers.UniSpeechConfig.from_pretrained(tmp_path)
    assert (stock.hidden_size, stock.mask_time_prob) == (48, 0.3)
    stock.save_pretrained(tmp_path)
    ours = UniSpeechConfig.from_pretrained(tmp_path)
    assert (ours.hidden_size, ours.mask_time_prob, ours.gumbel_temperature) == (48, 0.3, 0.5)
    assert json.loads(ours.to_json_string())["model_type"] == "unispeech"
    assert ours.inputs_to_logits_ratio == stock.inputs_to_logits_ratio == 320


@pytest.mark.parametrize(
    ("field", "value", "condition"),
    [
        ("mask_time_prob", 1.5, r"lie in \[0, 1\], but is 1.5"),
        ("hidden_dropout", -1, r"lie in \[0, 1\], but is -1"),
        ("hidden_dropout", 2.0, r"lie in \[0, 1\], but is 2.0"),
        ("replace_prob", 7, r"lie in \[0, 1\], but is 7"),
        ("num_negatives", -5, "be at least 1, but is -5"),
        ("vocab_size", 0, "be at least 1, but is 0"),
        ("num_hidden_layers", -1, "be at least 0, but is -1"),
        ("layer_norm_eps", 0.0, "be above 0, but is 0.0"),
        ("gumbel_temperature", 0, "be above 0, but is 0"),
        ("diversity_loss_weight", -0.1, "be at least 0, but is -0.1"),
        ("conv_dim", (16, 0, 16, 16, 16, 16, 16), "be at least 1"),
        ("feat_extract_norm", "batch", "be one of group, layer, but is 'batch'"),
        ("ctc_loss_reduction", "median", "be one of sum, mean, but is 'median'"),
        ("negatives_from", "some", "be one of masked, all, but is 'some'"),
        ("frame_count_rule", "guess", "be one of convolution, original, but is 'guess'"),
        ("hidden_act", "gelo", "name an activation, but is 'gelo'; did you mean 'gelu'"),
        ("feat_extract_activation", "xyzzy", "name an activation, but is 'xyzzy'; the names are"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value, condition):
    with pytest.raises(StrictDataclassError, match=rf"^`{field}` must {condition}.*$"):
        UniSpeechConfig(**{field: value})
    config = UniSpeechConfig()
    with pytest.raises(StrictDataclassError, match=rf"^`{field}` must {condition}.*$"):
        setattr(config, field, value)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("hidden_size", 768.0, "must be of type int, but is 768.0."),
        ("hidden_size", None, "must be of type int, but is None."),
        ("conv_bias", "yes", "must be of type bool, but is 'yes'."),
        ("layerdrop", "0.1", "must be of type float | int, but is '0.1'."),
        ("conv_dim", ["a"] * 7, f"must be of type list[int] | tuple[int, ...], but is {['a'] * 7}."),
    ],
)
def test_values_of_another_type_are_refused_by_name(field, value, line):
    with pytest.raises(StrictDataclassError) as caught:
        UniSpeechConfig(**{field: value})
    assert str(caught.value) == f"`{field}` {line}"


def test_what_a_file_states_wrongly_is_told_on_one_line(tmp_path):
    UniSpeechConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 768', '"hidden_size": "768"'))
    with pytest.raises(StrictDataclassError, match=r"^`hidden_size` must be of type int, but is '768'.$"):
        UniSpeechConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "field",
    ["initializer_range", "diversity_loss_weight", "contrastive_logits_temperature", "layer_norm_eps"],
)
def test_whole_numbers_are_numbers(field):
    assert getattr(UniSpeechConfig(**{field: 1}), field) == 1


def test_convolution_lists_of_unequal_length():
    with pytest.raises(
        StrictDataclassError, match=r"^`conv_dim`, `conv_stride` and `conv_kernel` must have equal lengths"
    ):
        UniSpeechConfig(conv_dim=(16, 16))


@pytest.mark.parametrize(
    ("model_class", "overrides", "message"),
    [
        (
            UniSpeechModel,
            {"num_attention_heads": 5},
            r"`hidden_size` \(32\) must be a multiple of `num_attention_heads` \(5\)",
        ),
        (
            UniSpeechModel,
            {"num_conv_pos_embedding_groups": 3},
            r"multiple of `num_conv_pos_embedding_groups` \(3\), but leaves 2",
        ),
        (
            UniSpeechForPreTraining,
            {"num_codevector_groups": 5},
            r"`codevector_dim` \(24\) must be a multiple",
        ),
    ],
)
def test_widths_that_do_not_divide(model_class, overrides, message):
    config = tiny.config(**overrides)
    with pytest.raises(ValueError, match=message):
        model_class(config)


def test_convolutional_adapters_do_not_exist():
    with pytest.raises(ValueError, match="`add_adapter` must be False"):
        UniSpeechConfig(add_adapter=True)


def test_misspelt_names_are_warned_of_and_others_are_stored():
    with pytest.warns(
        UserWarning,
        match="`mask_time_probs` is not a field of UniSpeechConfig; did you mean `mask_time_prob`",
    ):
        UniSpeechConfig(mask_time_probs=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert UniSpeechConfig(my_own_note="kept").my_own_note == "kept"


def test_published_sizes():
    assert base_config() == UniSpeechConfig()
    large = large_config(vocab_size=40)
    assert (large.hidden_size, large.num_hidden_layers, large.vocab_size) == (1024, 24, 40)
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        large_config(hidden_size=0)
