"""Part by part against transformers' own UniSpeech: the same weights give the same activations to 1e-5."""

import pytest
import torch
import transformers

import tiny
import unispeech

NAMES = ("Model", "ForCTC", "ForSequenceClassification", "ForPreTraining")
CLOSE = {"rtol": 0, "atol": 1e-5}
PARTS = [
    *(f"feature_extractor.conv_layers.{i}" for i in range(7)),
    "feature_extractor",
    "feature_projection.layer_norm",
    "feature_projection.projection",
    "feature_projection",
    "encoder.pos_conv_embed.conv",
    "encoder.pos_conv_embed",
    "encoder.layer_norm",
    *(
        f"encoder.layers.{i}{part}"
        for i in range(3)
        for part in (
            "",
            ".attention",
            ".attention.q_proj",
            ".layer_norm",
            ".feed_forward",
            ".final_layer_norm",
        )
    ),
    "encoder",
]


def pair(name, norm, **overrides):
    ours = tiny.build(getattr(unispeech, f"UniSpeech{name}"), norm, **overrides)
    stock_class = getattr(transformers, f"UniSpeech{name}")
    stock = stock_class(transformers.UniSpeechConfig(**tiny.sizes(norm, **overrides))).eval()
    stock.load_state_dict(ours.state_dict())
    for model in (ours, stock):
        model.set_attn_implementation("eager")
    return ours, stock


def record(model):
    """Forward hooks that keep what every part returns."""
    seen = {}

    def keep(name):
        def hook(module, args, result):
            seen[name] = result if isinstance(result, torch.Tensor) else result[0]

        return hook

    for name in PARTS:
        model.get_submodule(name).register_forward_hook(keep(name))
    return seen


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("adapter_attn_dim", [None, 6])
def test_every_part_of_the_bare_model(norm, adapter_attn_dim):
    if norm == "group":
        adapter_attn_dim = None  # stock has adapters in norm-first models only
    ours, stock = pair("Model", norm, adapter_attn_dim=adapter_attn_dim)
    x, _ = tiny.waveforms(9000, 9000)
    a, b = record(ours), record(stock)
    ours(x), stock(x)
    assert len(a) == len(PARTS) >= 30
    for name in PARTS:
        torch.testing.assert_close(a[name], b[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_outputs_of_a_padded_batch(norm):
    ours, stock = pair("Model", norm, group_norm_over_padding=True)
    x, mask = tiny.waveforms(9000, 5000)
    a = ours(x, mask, output_hidden_states=True, output_attentions=True)
    b = stock(x, mask, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(a.last_hidden_state, b.last_hidden_state, **CLOSE)
    torch.testing.assert_close(a.extract_features, b.extract_features, **CLOSE)
    for field in ("hidden_states", "attentions"):
        assert len(a[field]) == len(b[field])
        for ours_value, stock_value in zip(a[field], b[field], strict=True):
            torch.testing.assert_close(ours_value, stock_value, **CLOSE)


def test_padding_agrees_where_stock_is_right():
    ours, stock = pair("Model", "layer")
    x, mask = tiny.waveforms(9000, 5000)
    a, b = ours(x, mask).last_hidden_state, stock(x, mask).last_hidden_state
    torch.testing.assert_close(a[0], b[0], **CLOSE)
    torch.testing.assert_close(a[1, :15], b[1, :15], **CLOSE)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_a_given_time_mask(norm):
    ours, stock = pair("Model", norm)
    x, _ = tiny.waveforms(9000, 9000)
    is_masked = torch.rand(2, 27) < 0.4
    a, b = (model(x, mask_time_indices=is_masked).last_hidden_state for model in (ours, stock))
    torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_recogniser_loss_and_gradients(norm, reduction):
    ours, stock = pair("ForCTC", norm, ctc_loss_reduction=reduction, group_norm_over_padding=True)
    x, mask = tiny.waveforms(9000, 5000)
    labels = torch.tensor([[3, 4, 4, 5], [6, 7, -100, -100]])
    a, b = ours(x, mask, labels=labels), stock(x, mask, labels=labels)
    torch.testing.assert_close(a.logits, b.logits, **CLOSE)
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-6, atol=0)
    check_gradients(ours, stock, a.loss, b.loss)


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("mixes", [False, True])
def test_classifier_loss_and_gradients(norm, mixes):
    ours, stock = pair(
        "ForSequenceClassification", norm, use_weighted_layer_sum=mixes, group_norm_over_padding=True
    )
    x, mask = tiny.waveforms(9000, 5000)
    labels = torch.tensor([1, 3])
    a, b = ours(x, mask, labels=labels), stock(x, mask, labels=labels)
    torch.testing.assert_close(a.logits, b.logits, **CLOSE)
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-5, atol=0)
    check_gradients(ours, stock, a.loss, b.loss)


def check_gradients(ours, stock, our_loss, stock_loss):
    our_loss.backward(), stock_loss.backward()
    expected = {name: p.grad for name, p in stock.named_parameters()}
    for name, parameter in ours.named_parameters():
        if expected[name] is None:
            assert parameter.grad is None
            continue
        bound = 1e-4 * max(expected[name].abs().max().item(), 1e-2)
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=bound)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_pretraining_outputs(norm):
    ours, stock = pair("ForPreTraining", norm)
    x, _ = tiny.waveforms(9000, 9000)
    a, b = ours(x), stock(x)
    for field in ("projected_states", "projected_quantized_states"):
        torch.testing.assert_close(a[field], b[field], **CLOSE)
    torch.testing.assert_close(a.codevector_perplexity, b.codevector_perplexity, rtol=1e-4, atol=0)


def test_contrastive_logits_of_transformers_callers():
    target, negatives, predicted = torch.randn(1, 2, 5, 8), torch.randn(4, 2, 5, 8), torch.randn(2, 5, 8)
    a, b = (
        cls.compute_contrastive_logits(target, negatives, predicted, 0.1)
        for cls in (unispeech.UniSpeechForPreTraining, transformers.UniSpeechForPreTraining)
    )
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"mask_time_prob": 0.0},
        {"use_weighted_layer_sum": True},
        {"conv_bias": True},
        {"adapter_attn_dim": 4},
    ],
)
def test_state_dicts(name, norm, overrides):
    if norm == "group" and "adapter_attn_dim" in overrides:
        overrides = {}
    with torch.device("meta"):
        ours = getattr(unispeech, f"UniSpeech{name}")(tiny.config(norm, **overrides)).state_dict()
        sizes = tiny.sizes(norm, **overrides)
        stock = getattr(transformers, f"UniSpeech{name}")(transformers.UniSpeechConfig(**sizes)).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in stock.items()}


@pytest.mark.parametrize("name", NAMES)
def test_output_fields_start_with_transformers(name):
    ours, stock = pair(name, "layer")
    x, _ = tiny.waveforms(4000)
    both = [model(x, output_hidden_states=True, output_attentions=True) for model in (ours, stock)]
    a, b = (list(output) for output in both)
    assert [key for key in a if key in b] == b


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", tiny.NORMS)
def test_directories_travel_both_ways(name, norm, tmp_path):
    ours_class, stock_class = (getattr(module, f"UniSpeech{name}") for module in (unispeech, transformers))
    ours, stock = pair(name, norm)
    x, _ = tiny.waveforms(5000)
    ours.save_pretrained(tmp_path / "ours")
    stock.save_pretrained(tmp_path / "stock")
    expected = ours(x)[0]
    for model_class, folder in ((stock_class, "ours"), (ours_class, "stock"), (ours_class, "ours")):
        model, report = model_class.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        torch.testing.assert_close(model(x)[0], expected, **CLOSE)


def test_published_names_of_the_weight_norm(tmp_path):
    model = tiny.build(unispeech.UniSpeechForCTC)
    model.config.save_pretrained(tmp_path)
    old = {"original0": "weight_g", "original1": "weight_v"}
    weights = {}
    for name, value in model.state_dict().items():
        for new_name, old_name in old.items():
            name = name.replace(f"parametrizations.weight.{new_name}", old_name)
        weights[name] = value
    assert sum(name.endswith(("weight_g", "weight_v")) for name in weights) == 2
    torch.save(weights, tmp_path / "pytorch_model.bin")
    again, report = unispeech.UniSpeechForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    x, _ = tiny.waveforms(5000)
    assert torch.equal(again(x).logits, model(x).logits)
