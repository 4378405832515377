"""The original's pre-training, replayed: losses to 1e-6, every gradient to 1e-4 of its largest value."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unispeech import UniSpeechConfig, UniSpeechForPreTraining

HERE = Path(__file__).parent
B, T, K, G, V = 2, 74, 7, 2, 5
ARCHITECTURE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "codevector_dim": 24,
    "proj_codevector_dim": 24,
    "num_codevectors_per_group": V,
    "num_ctc_classes": 11,
    "pad_token_id": 7,
    "num_negatives": K,
    "negatives_from": "all",
    "exclude_equal_negatives": True,
    "frame_count_rule": "original",
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(HERE / "pretraining.npz"))


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def build(golden, **overrides):
    model = UniSpeechForPreTraining(UniSpeechConfig(**ARCHITECTURE | overrides)).eval()
    weights = {k.removeprefix("weight/"): tensor(v) for k, v in golden.items() if k.startswith("weight/")}
    model.load_state_dict(weights)
    return model


def inputs(golden):
    target = tensor(golden["in/target"]).long()
    return (
        tensor(golden["in/wav"]),
        (~tensor(golden["in/padding_mask"])).long(),
        target.masked_fill(target == 8, -100),
    )


def negatives(indices, is_target):
    """(B, M * K) flat indices -> (B, T, K) at their frames."""
    table = torch.full((B, T, K), -1)
    for row in range(B):
        table[row, is_target[row]] = tensor(indices[row]).long().view(-1, K)
    return table


def noise(array, is_target):
    """(B * M * G, V) noise -> (B, T, G, V) at its frames."""
    table = torch.zeros(B, T, G, V)
    table[is_target] = tensor(array).view(-1, G, V)
    return table


def run_eval(golden, model):
    every = torch.ones(B, T, dtype=torch.bool)
    return model(
        *inputs(golden),
        sampled_negative_indices=negatives(golden["eval/neg_idx"], every),
        target_indices=every,
        replacement=tensor(golden["eval/replace_TB"]).T,
    )


def run_train(golden, model):
    model.train().set_gumbel_temperature(float(golden["in/gumbel_temp"]))
    every, is_masked = torch.ones(B, T, dtype=torch.bool), tensor(golden["train/mask"])
    return model(
        *inputs(golden),
        mask_time_indices=is_masked,
        target_indices=is_masked,
        sampled_negative_indices=negatives(golden["train/neg_idx"], is_masked),
        replacement=tensor(golden["train/replace_TB"]).T,
        gumbel_noise=(
            noise(golden["train/gumbel_target"], is_masked),
            noise(golden["train/gumbel_all"], every),
        ),
    )


def check_parts(output, golden, mode):
    def close(value, name, rel=1e-6):
        assert value.item() == pytest.approx(float(golden[f"{mode}/{name}"]), rel=rel)

    close(output.loss, "loss")
    close(output.ctc_loss, "ctc_loss_sum")
    close(output.contrastive_loss, "nce_loss_0")
    close(0.1 * output.diversity_loss, "nce_loss_1", rel=2e-6)
    close(output.code_perplexity, "quant_target/code_perplexity")
    close(output.prob_perplexity, "quant_target/prob_perplexity")
    assert output.num_targets == golden[f"{mode}/nce_sample_size"]
    logits = tensor(golden[f"{mode}/ctc_logits_TBV"]).transpose(0, 1)
    torch.testing.assert_close(output.ctc_logits, logits, rtol=0, atol=1e-5)


def test_evaluation_loss(golden):
    output = run_eval(golden, build(golden))
    check_parts(output, golden, "eval")
    right = golden["eval/correct"] / golden["eval/count"]
    assert output.contrastive_accuracy.item() == pytest.approx(right, abs=1e-6)
    is_equal = np.isneginf(golden["eval/contrastive_logits"][1:]).mean()
    assert output.equal_negatives.item() == pytest.approx(is_equal, abs=1e-6)


def test_training_loss_and_every_gradient(golden):
    model = build(golden)
    output = run_train(golden, model)
    check_parts(output, golden, "train")
    output.loss.backward()
    parameters = dict(model.named_parameters())
    assert {f"grad/{name}" for name in parameters} == {name for name in golden if name.startswith("grad/")}
    # A true gradient of 0 (a key's bias moves no softmax) is rounding noise in both: hence a floor.
    for name, parameter in parameters.items():
        expected = tensor(golden[f"grad/{name}"])
        bound = 1e-4 * max(expected.abs().max().item(), 1e-3)
        torch.testing.assert_close(
            parameter.grad, expected, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_activations_of_padded_rows_too(golden):
    model = build(golden)
    x, mask, _ = inputs(golden)
    seen = {}
    model.unispeech.feature_extractor.register_forward_hook(lambda m, a, r: seen.update(conv6=r))
    model.unispeech.encoder.pos_conv_embed.register_forward_hook(lambda m, a, r: seen.update(pos_conv=r))
    output = model.unispeech(x, mask, output_hidden_states=True)
    lengths = model.frame_lengths(mask.sum(1), x.shape[1])
    assert lengths.tolist() == (~golden["feat_pad/feat_padding_mask"]).sum(1).tolist() == [74, 53]
    found = {"layer2": output.hidden_states[-1], "x": output.last_hidden_state, "pos_conv": seen["pos_conv"]}
    for name, value in found.items():
        torch.testing.assert_close(value, tensor(golden[f"feat_pad/{name}"]), rtol=0, atol=1e-5)
    # The recorded batch has zeros behind the end; so has ours, whatever stood there.
    torch.testing.assert_close(seen["conv6"], tensor(golden["feat_pad/conv6"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_feature_penalty(golden, mode):
    run = run_eval if mode == "eval" else run_train
    plain = run(golden, build(golden))
    model = build(golden, feature_penalty_weight=10.0)
    output = run(golden, model)
    penalty = float(golden[f"{mode}/features_pen"]) * output.num_targets.item()
    assert output.feature_penalty.item() == pytest.approx(penalty, rel=1e-6)
    assert output.loss.item() == pytest.approx(plain.loss.item() + 0.5 * 10 * penalty, rel=1e-5)
