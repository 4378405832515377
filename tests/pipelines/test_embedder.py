"""Representations: what the model gives, layers and sums of them, pooling, windows in bounded memory."""

import numpy as np
import pytest
import torch

from tiny_recognisers import babble, save_recogniser, tiny_config, tiny_recogniser, write_babble
from unispeech import Embedder, UniSpeechForPreTraining
from unispeech.audio import normalise_waveform
from unispeech.errors import ManifestError
from unispeech.pipelines.embedder import parse_layer, pool_frames


@pytest.fixture(scope="module")
def model():
    return tiny_recogniser()


def states_of(model, waveform):
    with torch.no_grad():
        inputs = torch.from_numpy(normalise_waveform(waveform))[None]
        output = model.base_model(inputs, output_hidden_states=True)
    return output.last_hidden_state[0].numpy(), [state[0].numpy() for state in output.hidden_states]


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_layers_are_those_of_the_model(norm):
    model = tiny_recogniser(feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    waveform = babble(0.8)
    context, states = states_of(model, waveform)
    near = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(Embedder(model).embed(waveform, 16000), context, **near)
    for layer in (0, 1, 2, -1, -3):
        found = Embedder(model, layer=layer).embed(waveform, 16000)
        np.testing.assert_allclose(found, states[layer], **near)
    found = Embedder(model, layer={0: 0.25, -1: 2.0}).embed(waveform, 16000)
    np.testing.assert_allclose(found, 0.25 * states[0] + 2 * states[-1], **near)
    assert (np.abs(context - states[-1]).max() > 0.1) == (norm == "layer")


def test_models_of_transformers_give_the_same(tmp_path):
    from transformers import UniSpeechModel as TheirModel

    path = save_recogniser(tmp_path / "model")
    theirs = TheirModel.from_pretrained(path)
    waveform = babble(0.5)
    for layer in (None, 1):
        ours = Embedder(path, layer=layer).embed(waveform, 16000)
        np.testing.assert_allclose(Embedder(theirs, layer=layer).embed(waveform, 16000), ours, atol=1e-4)


def test_any_head_will_do(tmp_path):
    torch.manual_seed(0)
    pretrainer = UniSpeechForPreTraining(tiny_config()).eval()
    pretrainer.save_pretrained(tmp_path)
    found = Embedder(tmp_path).embed(babble(0.5), 16000)
    np.testing.assert_array_equal(found, Embedder(pretrainer).embed(babble(0.5), 16000))


def test_pooling(model):
    waveform = babble(0.8)
    frames = Embedder(model).embed(waveform, 16000)
    mean = Embedder(model, pooling="mean").embed(waveform, 16000)
    np.testing.assert_allclose(mean, frames.mean(axis=0), atol=1e-5)
    both = Embedder(model, pooling="mean+std").embed(waveform, 16000)
    np.testing.assert_allclose(both, np.concatenate([mean, frames.std(axis=0)]), atol=1e-5)


def test_pooling_in_blocks_keeps_its_digits():
    frames = np.random.default_rng(0).normal(1e4, 1e-2, size=(1000, 3)).astype(np.float32)
    found = pool_frames(np.split(frames, [10, 11, 700]), with_deviation=True)
    np.testing.assert_allclose(found[:3], frames.astype(float).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found[3:], frames.astype(float).std(axis=0), rtol=1e-4)


def test_half_precision(model):
    half, full = (Embedder(model, dtype=dtype).embed(babble(0.5), 16000) for dtype in ("float16", "float32"))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.astype(np.float16))
    with pytest.raises(
        ValueError, match=r"`dtype` must hold every value, but float16 does not hold .*float32"
    ):
        Embedder(model, layer={1: 1e6}, dtype="float16").embed(babble(0.5), 16000)


def test_windows_give_every_frame_once_as_in_one_pass(monkeypatch):
    # Without attention and positions every frame sees itself only, so windows change nothing.
    model = tiny_recogniser()
    for layer in model.unispeech.encoder.layers:
        monkeypatch.setattr(layer.attention, "forward", lambda x, mask=None, maps=False: (x * 0, None))
    monkeypatch.setattr(model.unispeech.encoder.pos_conv_embed, "forward", lambda x: x * 0)
    waveform = babble(7.3)
    whole = Embedder(model).embed(waveform, 16000)
    cut = Embedder(model, window_seconds=2.0, overlap_seconds=0.3).embed(waveform, 16000)
    assert cut.shape == whole.shape == (364, 32)
    np.testing.assert_allclose(cut, whole, atol=1e-4)
    pooled = Embedder(model, window_seconds=2.0, overlap_seconds=0.3, pooling="mean+std")
    expected = np.concatenate([whole.mean(axis=0), whole.std(axis=0)])
    np.testing.assert_allclose(pooled.embed(waveform, 16000), expected, atol=1e-4)


def test_windows_are_computed_as_they_are_taken(model, tmp_path, monkeypatch):
    path = write_babble(tmp_path / "long.wav", 6.0)
    embedder = Embedder(model, window_seconds=2.0, overlap_seconds=0.2)
    passes = []
    states = embedder.engine.states
    monkeypatch.setattr(embedder.engine, "states", lambda *a, **k: passes.append(1) or states(*a, **k))
    told = []
    [(_, found)] = embedder.embed_many([path], on_progress=told.append)
    assert (found.shape, found.duration, passes) == ((299, 32), 6.0, [])
    next(iter(found.blocks))
    assert len(passes) == 1
    found.vectors()
    assert len(passes) >= 3
    assert sum(told) == pytest.approx(6.0)


def test_a_batch_gives_what_singles_give(model, tmp_path):
    paths = [write_babble(tmp_path / f"{i}.wav", 0.3 + 0.4 * i, i) for i in range(3)]
    embedder = Embedder(model)
    for path, found in embedder.embed_many(paths):
        assert found.audio == str(path)
        vectors = found.vectors()
        assert vectors.shape == found.shape
        np.testing.assert_allclose(vectors, embedder.embed(path), atol=1e-5)


def test_what_is_too_short_for_a_frame_has_none_and_cannot_be_pooled(model, tmp_path):
    assert Embedder(model).embed(np.zeros(399, np.float32), 16000).shape == (0, 32)
    pooled = Embedder(model, pooling="mean")
    with pytest.raises(ValueError, match=r"`audio`: must have a frame to be pooled, but lasts 0\.025 s"):
        pooled.embed(np.zeros(399, np.float32), 16000)
    short, good = write_babble(tmp_path / "short.wav", 0.01), write_babble(tmp_path / "good.wav", 0.4)
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    outcomes = dict(pooled.embed_many([short, bad, good]))
    assert str(outcomes[short]).startswith(f"{short}: must have a frame to be pooled, but lasts 0.010 s")
    assert isinstance(outcomes[bad], ManifestError)
    assert outcomes[good].shape == (32,)


def test_what_the_vectors_are(model, tmp_path):
    path = save_recogniser(tmp_path / "model")
    assert Embedder(path).describe() == {
        "model": str(path),
        "layer": "context",
        "pooling": "none",
        "dtype": "float32",
        "frame_rate": 50.0,
        "first_frame": 0.0125,
    }
    for layer, said in ((-1, "2"), ({-1: 0.5, 0: 0.25}, "2=0.5,0=0.25"), (0, "0")):
        assert Embedder(model, layer=layer).describe()["layer"] == said
        assert Embedder(model, layer=parse_layer(said)).layers == Embedder(model, layer=layer).layers
    assert parse_layer("context") is None


def test_what_cannot_be_used(model):
    with pytest.raises(ValueError, match=r"`pooling` must be one of none, mean, mean\+std, but is 'max'"):
        Embedder(model, pooling="max")
    with pytest.raises(ValueError, match="`dtype` must be one of float32, float16, but is 'int8'"):
        Embedder(model, dtype="int8")
    for layer in (3, -4, {3: 1.0}):
        with pytest.raises(
            ValueError, match=r"`layer` must lie in \[-3, 2\] for a model of 2 layers, but is"
        ):
            Embedder(model, layer=layer)
    with pytest.raises(ValueError, match="`layer` must have finite weights, but has nan for 1"):
        Embedder(model, layer={1: float("nan")})
    with pytest.raises(ValueError, match="`layer` must name a layer at least, but is empty"):
        Embedder(model, layer={})
    for text in ("last", "1=x", "1=1=1", "1.5", "1=0.5,2"):
        with pytest.raises(ValueError, match="`layer` must be context, a number, or a weighted sum such as"):
            parse_layer(text)
    with pytest.raises(ValueError, match=r"`layer` must name each layer once, but is '1=0\.5,1=0\.5'"):
        parse_layer("1=0.5,1=0.5")
