"""The bare model and what all models share: batches against singles, short audio, arguments."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
import unispeech
from unispeech import UniSpeechForCTC, UniSpeechModel
from unispeech.frames import num_frames
from unispeech.models.base import pack_samples, wanted_states

NAMES = ("Model", "ForCTC", "ForSequenceClassification", "ForPreTraining")
lengths = st.lists(st.one_of(st.integers(0, 800), st.integers(0, 6000)), min_size=1, max_size=4)


def a_class(name):
    return getattr(unispeech, f"UniSpeech{name}")


def valid_parts(output, row, frames):
    # What an output says about one row: per-frame tensors cut to its frames, per-utterance tensors whole.
    fields = ("last_hidden_state", "extract_features", "projected_states", "ctc_logits")
    for field in fields:
        if output.get(field) is not None:
            yield output[field][row, :frames]
    if "logits" in output:
        logits = output["logits"]
        yield logits[row] if logits.ndim == 2 else logits[row, :frames]


@settings(max_examples=12, deadline=None)
@given(lengths, st.sampled_from(NAMES), st.sampled_from(tiny.NORMS), st.booleans())
def test_a_batch_gives_what_singles_give(lengths, name, norm, mixes):
    model = tiny.build(a_class(name), norm, use_weighted_layer_sum=mixes)
    x, mask = tiny.waveforms(*lengths)
    with torch.no_grad():
        together = model(x, mask)
        for row, length in enumerate(lengths):
            frames = num_frames(length)
            alone = model(x[row : row + 1, :length])
            pairs = zip(valid_parts(together, row, frames), valid_parts(alone, 0, frames), strict=True)
            for a, b in pairs:
                assert a.shape == b.shape
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(tiny.NORMS), st.floats(0, 1))
def test_any_mask_is_the_audio_that_it_keeps(seed, norm, share):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3000, generator=generator)
    mask = torch.rand(2, 3000, generator=generator) < torch.tensor([[share], [1.0]])
    model = tiny.build(UniSpeechModel, norm)
    with torch.no_grad():
        together = model(x, mask).last_hidden_state
        for row in range(2):
            alone = model(x[row][mask[row]][None]).last_hidden_state[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.int32, torch.float32])
def test_a_mask_of_any_type(kind):
    model = tiny.build(UniSpeechForCTC)
    x, mask = tiny.waveforms(4000, 3000)
    assert torch.equal(model(x, mask.to(kind)).logits, model(x, mask).logits)


def test_a_full_mask_is_no_mask():
    x, mask = tiny.waveforms(4000, 4000)
    for norm in tiny.NORMS:
        model = tiny.build(UniSpeechForCTC, norm)
        torch.testing.assert_close(model(x, mask).logits, model(x).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("training", [False, True])
def test_every_short_length(name, norm, training):
    model = tiny.build(a_class(name), norm, mask_feature_prob=0.3, layerdrop=0.3).train(training)
    labels = {"ForCTC": torch.tensor([[3], [-100]]), "ForPreTraining": torch.tensor([[3], [-100]])}.get(name)
    if name == "ForSequenceClassification":
        labels = torch.tensor([1, 2])
    for length in (0, 1, 2, 200, 399, 400, 401, 719, 720, 800):
        given = (
            {}
            if labels is None or (name != "ForSequenceClassification" and length < 400)
            else {"labels": labels}
        )
        output = model(torch.randn(2, length), output_hidden_states=True, output_attentions=True, **given)
        frames = num_frames(length)
        assert all(state.shape == (2, frames, 32) for state in output.hidden_states)
        assert all(m.shape == (2, 4, frames, frames) for m in output.attentions)
        for field in ("last_hidden_state", "ctc_logits"):
            assert output.get(field) is None or output[field].shape[1] == frames
        if given:
            assert output.loss.isfinite()
            model.zero_grad()
            output.loss.backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["ForCTC", "ForPreTraining"])
def test_a_transcript_without_audio_counts_as_nothing(name):
    model = tiny.build(a_class(name)).train()
    with pytest.warns(UserWarning, match=r"utterance 0 \(1 in 0 frames\)"):
        loss = model(torch.randn(1, 100), labels=torch.tensor([[3]])).loss
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_decides_every_draw(name):
    model = tiny.build(a_class(name), mask_feature_prob=0.3, layerdrop=0.3).train()
    x, mask = tiny.waveforms(6000, 4000)
    before = torch.get_rng_state()
    first, second, third = (model(x, mask, generator=torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_spec_augment_can_be_switched_off():
    x, _ = tiny.waveforms(6000)
    model = tiny.build(UniSpeechModel, apply_spec_augment=False, mask_feature_prob=0.5).train()
    expected = model(x).last_hidden_state
    given = model(x, mask_time_indices=torch.ones(1, 18)).last_hidden_state
    assert torch.equal(given, expected) and torch.equal(model.eval()(x).last_hidden_state, expected)


def test_masks_reach_only_the_frames_and_channels_they_name():
    model = tiny.build(UniSpeechModel, mask_feature_prob=0.3, mask_feature_length=3)
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x, _ = tiny.waveforms(6000)
    is_masked = torch.zeros(1, 18)
    is_masked[0, 4:9] = 1
    model(x, mask_time_indices=torch.zeros(1, 18))
    model(x, mask_time_indices=is_masked)
    torch.testing.assert_close(seen[1][0, 4:9], model.masked_spec_embed.expand(5, -1))
    assert torch.equal(seen[1][0, 9:], seen[0][0, 9:])
    model.train()(x, mask_time_indices=is_masked)
    is_cut = (seen[2] == 0).all(dim=1)[0]
    assert 3 <= is_cut.sum() < 32
    assert torch.equal(seen[2][..., ~is_cut], seen[1][..., ~is_cut])


def test_some_hidden_states_only():
    model = tiny.build(UniSpeechModel)
    x, _ = tiny.waveforms(4000)
    every = model(x, output_hidden_states=True).hidden_states
    some = model(x, output_hidden_states=[0, -1]).hidden_states
    assert [state is not None for state in some] == [True, False, False, True]
    assert torch.equal(some[0], every[0]) and torch.equal(some[3], every[3])


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(None, None), (False, None), (True, {0, 1, 2, 3}), ([1], {1}), ([-1, -4], {3, 0}), ([9], set())],
)
def test_which_states(asked, kept):
    found = wanted_states(asked, 3)
    assert (found if found is None else set(found)) == kept


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_of_transformers_is_refused_by_name(name):
    config = transformers.UniSpeechConfig(**tiny.sizes())
    with pytest.raises(TypeError, match=r"`config` must be a unispeech.UniSpeechConfig, but is a transf"):
        a_class(name)(config)
    a_class(name)(unispeech.UniSpeechConfig.from_dict(config.to_dict()))


def test_packing():
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]])
    is_valid = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    assert pack_samples(x, is_valid).tolist() == [[2, 4, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]]


def test_the_caller_s_tensors_are_left_alone():
    for name in NAMES:
        model = tiny.build(a_class(name), mask_feature_prob=0.3).train()
        x, mask = tiny.waveforms(4000, 3000)
        labels = (
            torch.tensor([1, 2]) if name == "ForSequenceClassification" else torch.tensor([[1, -100], [0, 2]])
        )
        given = [x, mask] + ([] if name == "Model" else [labels])
        copies = [tensor.clone() for tensor in given]
        model(*given)
        assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))
        assert not x.requires_grad


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(1, 800).short(),
            TypeError,
            "`input_values` must be a float tensor, but is torch.int16; divide",
        ),
        ([0.0], TypeError, "`input_values` must be a float tensor, but is list"),
        (
            torch.zeros(2, 1, 800),
            ValueError,
            r"must have shape \(B, S\), but has \(2, 1, 800\); drop the channel axis",
        ),
        (torch.zeros(800), ValueError, r"must have shape \(B, S\), but has \(800,\); add a batch axis"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_batch_of_waveforms(name, x, error, message):
    with pytest.raises(error, match=message):
        tiny.build(a_class(name))(x)


def test_frame_counts():
    model = tiny.build(UniSpeechForCTC)
    assert model._get_feat_extract_output_lengths(16000) == 49
    assert model._get_feat_extract_output_lengths(torch.tensor([0, 399, 400])).tolist() == [0, 0, 1]
    mask = torch.zeros(2, 4000)
    mask[0], mask[1, 1000:3000] = 1, 1
    assert model._get_feature_vector_attention_mask(12, mask).sum(1).tolist() == [12, 6]


def test_feature_penalty_is_reported_where_it_is_weighed():
    x, _ = tiny.waveforms(4000)
    assert tiny.build(UniSpeechModel)(x).feature_penalty is None
    model = tiny.build(UniSpeechModel, feature_penalty_weight=1.0)
    latents = model.feature_extractor(x)
    torch.testing.assert_close(model(x).feature_penalty, latents.square().mean())


def test_half_a_model_keeps_its_type():
    model = tiny.build(UniSpeechForCTC).double()
    x, mask = tiny.waveforms(4000, 3000)
    output = model(x.double(), mask, torch.tensor([[1, 2], [3, -100]]))
    assert output.logits.dtype == output.loss.dtype == torch.float64
