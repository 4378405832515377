"""Labels of recordings: what the network gives, of any length, and what cannot be classified."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tiny_recognisers import babble, save_classifier, tiny_config, write_babble
from unispeech import Classifier, UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.audio import normalise_waveform
from unispeech.errors import CheckpointError, ManifestError
from unispeech.results import Classification

LABELS = ["yes", "no", "up", "down"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("model") / "words", LABELS)


@pytest.fixture(scope="module")
def classifier(model_dir):
    return Classifier(model_dir, window_seconds=2.0)


def classifier_of(**overrides):
    torch.manual_seed(0)
    fields = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    return UniSpeechForSequenceClassification(tiny_config(**(fields | overrides))).eval()


def scores_of(found):
    return {best.label: best.score for best in found.labels}


def test_scores_are_the_softmax_of_the_logits(classifier):
    waveform = babble(1.0)
    inputs = torch.from_numpy(normalise_waveform(waveform))[None]
    with torch.no_grad():
        expected = classifier.engine.model(inputs).logits[0].softmax(-1)
    found = classifier.classify(waveform, 16000, top_k=10)
    assert [scores_of(found)[name] for name in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [best.score for best in found.labels] == sorted(expected.tolist(), reverse=True)
    assert (found.audio, found.duration, found.windows) == ("", 1.0, None)
    assert classifier.classify(waveform, 16000, top_k=2).labels == found.labels[:2]


def test_a_batch_gives_what_singles_give(classifier, tmp_path):
    paths = [write_babble(tmp_path / f"{i}.wav", 0.3 + 0.4 * i, i) for i in range(4)]
    outcomes = dict(classifier.classify_many(paths))
    assert set(outcomes) == set(paths)
    for path in paths:
        alone = classifier.classify(path)
        assert outcomes[path].audio == alone.audio == str(path)
        assert scores_of(outcomes[path]) == pytest.approx(scores_of(alone), abs=1e-5)


def test_a_batch_of_none_gives_none(classifier):
    assert classifier.classify_batch([]) == []


def test_windows_of_a_long_recording_average_to_one_pass(monkeypatch):
    # Without attention and positions every frame sees itself only, so windows change nothing.
    model = classifier_of()
    for layer in model.unispeech.encoder.layers:
        monkeypatch.setattr(layer.attention, "forward", lambda x, mask=None, maps=False: (x * 0, None))
    monkeypatch.setattr(model.unispeech.encoder.pos_conv_embed, "forward", lambda x: x * 0)
    waveform = babble(7.3)
    whole = Classifier(model).classify(waveform, 16000)
    told = []
    cut = Classifier(model, window_seconds=2.0).classify(waveform, 16000, on_progress=told.append)
    assert scores_of(cut) == pytest.approx(scores_of(whole), abs=1e-4)
    bounds = [(window.start, window.end) for window in cut.windows]
    assert len(bounds) >= 4
    assert bounds[0][0] == 0.0
    assert bounds[-1][1] == cut.duration == pytest.approx(sum(told)) == 7.3
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert all(end - start < 2.0 + 0.02 for start, end in bounds)
    assert all(sum(scores_of(window).values()) == pytest.approx(1.0, abs=1e-5) for window in cut.windows)


def test_a_long_file_is_that_of_its_samples(classifier, tmp_path):
    path = write_babble(tmp_path / "long.wav", 5.0)
    from_file = classifier.classify(path)
    assert from_file.audio == str(path)
    assert from_file == dict(classifier.classify_many([path]))[path]
    assert len(from_file.windows) >= 3


def test_labels_that_do_not_exclude_each_other_have_scores_of_their_own():
    model = classifier_of(problem_type="multi_label_classification")
    waveform = babble(0.5)
    with torch.no_grad():
        logits = model(torch.from_numpy(normalise_waveform(waveform))[None]).logits[0]
    found = scores_of(Classifier(model).classify(waveform, 16000))
    assert [found[name] for name in LABELS] == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)


def test_a_checkpoint_of_transformers(tmp_path):
    from transformers import UniSpeechConfig as TheirConfig
    from transformers import UniSpeechForSequenceClassification as TheirModel

    ours = tiny_config()
    torch.manual_seed(0)
    sizes = {
        "conv_dim": ours.conv_dim,
        "hidden_size": ours.hidden_size,
        "num_hidden_layers": ours.num_hidden_layers,
        "num_attention_heads": ours.num_attention_heads,
        "intermediate_size": ours.intermediate_size,
        "num_conv_pos_embeddings": ours.num_conv_pos_embeddings,
        "num_conv_pos_embedding_groups": ours.num_conv_pos_embedding_groups,
    }
    config = TheirConfig(**sizes, id2label=dict(enumerate(LABELS)))
    model = TheirModel(config).eval()
    model.save_pretrained(tmp_path)
    waveform = babble(1.0)
    with torch.no_grad():
        expected = model(torch.from_numpy(normalise_waveform(waveform))[None]).logits[0].softmax(-1)
    for source in (tmp_path, model):
        found = scores_of(Classifier(source).classify(waveform, 16000))
        assert [found[name] for name in LABELS] == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_is_too_short_for_a_frame_has_no_labels(classifier):
    assert classifier.classify(np.zeros(399, np.float32), 16000).labels == []
    assert len(classifier.classify(np.zeros(400, np.float32), 16000).labels) == 4


def test_a_broken_file_stops_no_other(classifier, tmp_path):
    good, bad = write_babble(tmp_path / "good.wav", 0.4), tmp_path / "bad.wav"
    bad.write_text("no sound")
    outcomes = dict(classifier.classify_many([bad, good, tmp_path / "gone.wav"]))
    assert isinstance(outcomes[bad], ManifestError)
    assert isinstance(outcomes[good], Classification)
    assert isinstance(outcomes[tmp_path / "gone.wav"], FileNotFoundError)


def test_what_cannot_be_used(classifier, tmp_path):
    with pytest.raises(ValueError, match="`top_k` must be at least 1, but is 0"):
        classifier.classify(babble(0.5), 16000, top_k=0)
    with pytest.raises(ValueError, match="`batch_seconds` must be positive, but is 0"):
        Classifier(classifier_of(), batch_seconds=0)
    with pytest.raises(ValueError, match=r"`window_seconds` must be at least 1, but is 0\.5"):
        Classifier(classifier_of(), window_seconds=0.5)
    with pytest.raises(ValueError, match="`model` must have a classification head, but is UniSpeechForCTC"):
        Classifier(UniSpeechForCTC(tiny_config()))
    with pytest.raises(ValueError, match="must tell at least two labels apart, but age is a regression"):
        Classifier(classifier_of(id2label={0: "age"}, label2id={"age": 0}))
    with pytest.raises(ValueError, match="is a regression; run the model in Python"):
        Classifier(classifier_of(problem_type="regression"))
    UniSpeechForCTC(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="this looks like a fine-tuned checkpoint"):
        Classifier(tmp_path)
