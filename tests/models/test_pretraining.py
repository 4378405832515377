"""The pre-training loss: its parts, its mix, its draws replayed, rows with and without transcripts."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from unispeech import UniSpeechForPreTraining
from unispeech.models.quantizer import gumbel_like

LABELS = torch.tensor([[3, 4, 4, 5], [6, 7, -100, -100]])
B, T, K, G, V = 2, 24, 7, 2, 5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(norm="layer", **overrides):
    return tiny.build(UniSpeechForPreTraining, norm, **overrides)


def draws(seed=0):
    """Everything that a training pass over (2, 8000) samples would draw."""
    generator = seeded(seed)
    mask = torch.rand(B, T, generator=generator) < 0.4
    mask[:, :2] = True
    negatives = torch.randint(0, T, (B, T, K), generator=generator) + torch.tensor([0, T])[:, None, None]
    noise = (gumbel_like(torch.empty(B, T, G, V), generator), gumbel_like(torch.empty(B, T, G, V), generator))
    return {
        "mask_time_indices": mask,
        "sampled_negative_indices": negatives,
        "replacement": torch.rand(B, T, generator=generator) < 0.5,
        "gumbel_noise": noise,
    }


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("source", ["masked", "all"])
def test_all_draws_given_are_a_replay(norm, source):
    model = build(norm, negatives_from=source).train()
    x, _ = tiny.waveforms(8000, 8000)
    given = draws()
    if source == "masked":
        del given["sampled_negative_indices"]
        given["generator"] = seeded()
    before = torch.get_rng_state()
    losses = []
    for _ in range(2):
        if source == "masked":
            given["generator"] = seeded()
        losses.append(model(x, labels=LABELS, **given).loss)
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), before)
    other = model(x, labels=LABELS, **(given | {"replacement": draws(1)["replacement"]})).loss
    assert other != losses[0]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_mix(alpha):
    model = build(ctc_weight=alpha, negatives_from="all", feature_penalty_weight=2.0)
    x, _ = tiny.waveforms(8000, 8000)
    out = model(x, labels=LABELS, **draws())
    beside = out.contrastive_loss + 0.1 * out.diversity_loss + 2.0 * out.feature_penalty
    torch.testing.assert_close(out.loss, alpha * out.ctc_loss + (1 - alpha) * beside)
    assert out.num_targets == draws()["mask_time_indices"].sum() and out.num_labelled == 2


def test_rows_without_transcript_count_fully():
    model = build(ctc_weight=0.3, negatives_from="all", diversity_loss_weight=0.0)
    x, _ = tiny.waveforms(8000, 8000)
    given = draws()
    both = LABELS.clone()
    both[1] = -100
    out = model(x, labels=both, **given)
    rows = []
    for row in range(2):
        alone = {name: value[row : row + 1] for name, value in given.items() if name != "gumbel_noise"}
        alone["sampled_negative_indices"] = alone["sampled_negative_indices"] - row * T
        rows.append(model(x[row : row + 1], labels=both[row : row + 1], **alone))
    assert out.num_labelled == 1
    torch.testing.assert_close(out.ctc_loss, rows[0].ctc_loss)
    expected = 0.3 * rows[0].ctc_loss + 0.7 * rows[0].contrastive_loss + rows[1].contrastive_loss
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(out.loss, rows[0].loss + rows[1].loss)


def test_no_transcripts_at_all():
    model = build(negatives_from="all")
    x, _ = tiny.waveforms(8000, 8000)
    out = model(x, **draws())
    assert out.ctc_loss is None and out.num_labelled is None
    torch.testing.assert_close(out.loss, out.contrastive_loss + 0.1 * out.diversity_loss)
    none = model(x, labels=torch.full((2, 3), -100), **draws())
    torch.testing.assert_close(none.loss, out.loss)
    assert none.ctc_loss == 0 and none.num_labelled == 0


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 6000), min_size=1, max_size=3), st.sampled_from(tiny.NORMS))
def test_the_loss_of_a_batch_is_the_sum_of_its_rows(lengths, norm):
    # The diversity belongs to the batch; the rest is a sum over rows, whoever sits beside them.
    model = build(norm, negatives_from="all", diversity_loss_weight=0.0)
    x, mask = tiny.waveforms(*lengths)
    width = max(model._get_feat_extract_output_lengths(max(lengths)), 0)
    frames = [model._get_feat_extract_output_lengths(length) for length in lengths]
    table = torch.full((len(lengths), width, 3), -1)
    for row, count in enumerate(frames):
        if count > 1:
            table[row, :count] = torch.randint(0, count, (count, 3)) + row * width
    labels = torch.tensor([[3] if count else [-100] for count in frames])
    with torch.no_grad():
        out = model(x, mask, labels, sampled_negative_indices=table)
        total, targets = 0.0, 0
        for row, count in enumerate(frames):
            alone = table[row : row + 1, :count]
            alone = torch.where(alone >= 0, alone - row * width, alone)
            single = model(
                x[row : row + 1, : lengths[row]], None, labels[row : row + 1], sampled_negative_indices=alone
            )
            total, targets = total + single.loss, targets + single.num_targets
    assert out.num_targets == targets
    torch.testing.assert_close(out.loss, torch.as_tensor(total), rtol=1e-4, atol=1e-4)


def test_targets_are_valid_frames_only():
    model = build().train()
    x, mask = tiny.waveforms(8000, 4000)
    out = model(x, mask, LABELS, mask_time_indices=torch.ones(2, T), generator=seeded())
    assert out.num_targets == 24 + 12
    evaluated = model.eval()(x, mask, LABELS)
    assert evaluated.num_targets == 24 + 12


def test_a_single_frame_has_no_negative_and_counts_as_nothing():
    model = build().train()
    out = model(torch.randn(1, 500), mask_time_indices=torch.ones(1, 1))
    assert out.num_targets == 0 and out.loss == 0 and out.contrastive_accuracy == 0


def test_negatives_equal_to_the_positive_are_left_out_on_request():
    x, _ = tiny.waveforms(8000, 8000)
    kept, left_out = (build(exclude_equal_negatives=flag, negatives_from="all") for flag in (False, True))
    a, b = kept(x, **draws()), left_out(x, **draws())
    assert a.equal_negatives == b.equal_negatives > 0
    assert b.contrastive_loss < a.contrastive_loss


def test_replacement_enters_the_phone_scores_only():
    model = build(negatives_from="all")
    x, _ = tiny.waveforms(8000, 8000)
    given = draws() | {"replacement": torch.zeros(B, T)}
    none = model(x, labels=LABELS, **given)
    every = model(x, labels=LABELS, **(given | {"replacement": torch.ones(B, T)}))
    torch.testing.assert_close(none.ctc_logits, model.ctc_proj(none.projected_states))
    torch.testing.assert_close(every.ctc_logits, model.ctc_proj(every.projected_quantized_states))
    assert none.contrastive_loss == every.contrastive_loss and none.ctc_loss != every.ctc_loss


def test_replacement_is_drawn_with_its_chance():
    model = build(replace_prob=0.3, mask_time_prob=0.0).train()
    x, _ = tiny.waveforms(16000, 16000, 16000, 16000)
    out = model(x, generator=seeded())
    replaced = torch.isclose(out.ctc_logits, model.ctc_proj(out.projected_quantized_states), atol=1e-6).all(
        -1
    )
    assert 0.2 < replaced.float().mean() < 0.4


def test_evaluation_without_targets_has_no_loss():
    out = build()(tiny.waveforms(8000)[0])
    assert out.loss is None and out.contrastive_loss is None and out.ctc_logits.shape == (1, 24, 11)


def test_negatives_of_another_row_are_refused():
    given = draws()
    given["sampled_negative_indices"][0] += T
    with pytest.raises(ValueError, match="`sampled_negative_indices` must stay within the utterance"):
        build()(tiny.waveforms(8000, 8000)[0], **given)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("target_indices", (2, 5), r"(B, T) = (2, 12)"),
        ("replacement", (1, 12), r"(B, T) = (2, 12)"),
        ("sampled_negative_indices", (2, 5, 7), r"(B, T, K) = (2, 12, 7)"),
        ("gumbel_noise", (2, 12, 2, 4), r"(B, T, G, V) = (2, 12, 2, 5)"),
    ],
)
def test_draws_of_another_shape_are_refused(name, shape, wanted):
    model = tiny.build(UniSpeechForPreTraining).train()
    given = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=re.escape(f"`{name}` must have shape {wanted}, but has {shape}.")):
        model(tiny.waveforms(4000, 4000)[0], **{name: (given, given) if name == "gumbel_noise" else given})


def test_the_temperature_must_be_positive():
    with pytest.raises(Exception, match="gumbel_temperature"):
        build().set_gumbel_temperature(0.0)


def test_losses_are_sums_with_their_counts():
    model = build()
    x, _ = tiny.waveforms(8000)
    once = model(x, labels=LABELS[:1])
    twice = model(x.repeat(2, 1), labels=LABELS[:1].repeat(2, 1))
    assert twice.num_targets == 2 * once.num_targets and twice.num_labelled == 2
    for field in ("ctc_loss", "diversity_loss"):
        torch.testing.assert_close(twice[field], 2 * once[field], rtol=1e-5, atol=0)
