import builtins

import pytest

from labelled_cuts import cut, write_cuts
from tiny_recognisers import LETTERS, save_recogniser, write_babble
from unispeech import Transcriber
from unispeech.checkpoints.huggingface import load_model
from unispeech.engines.error_rates import LabelledSpeech
from unispeech.engines.torch_engine import TorchEngine
from unispeech.errors import ManifestError
from unispeech.pipelines.evaluation import evaluate_model

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def recogniser(folder):
    engine = TorchEngine(load_model(folder))
    return lambda waveform: engine.log_probs([waveform])[0]


@pytest.mark.parametrize("kind", ["phones", "characters"])
def test_rates_are_those_of_evaluate(tmp_path, kind):
    model = save_recogniser(tmp_path / "model", **({"vocabulary": LETTERS} if kind == "characters" else {}))
    paths = [write_babble(tmp_path / f"{i}.wav", 0.4 + 0.3 * i, i) for i in range(3)]
    texts = [Transcriber(model, engine="torch").transcribe(path).text for path in paths]
    if kind == "phones":
        cuts = [cut(path, phones=f"{text} a a") for path, text in zip(paths, texts, strict=True)]
    else:
        cuts = [cut(path, text=f"{text} no") for path, text in zip(paths, texts, strict=True)]
    data = write_cuts(tmp_path / "cuts", [*cuts, cut(paths[0], name="unlabelled")])
    seen = []
    run = recogniser(model)
    found = LabelledSpeech(data, model).measure(
        [run, lambda waveform: run(waveform)[:0]], KERNELS, STRIDES, seen.append
    )
    scores = evaluate_model(model, data).scores
    expected = scores.per if kind == "phones" else scores.cer
    assert 0 < expected.rate < 1
    assert found.rates == (expected.rate, 1.0)  # and all is deleted by the one that says nothing
    assert (found.unit, found.num_utterances, found.num_unreadable) == (kind, 3, 0)
    assert found.audio_seconds == sum(seen) == pytest.approx(2.1)


def test_what_is_shorter_than_a_frame_says_nothing(tmp_path):
    model = save_recogniser(tmp_path / "model")
    data = write_cuts(tmp_path / "cuts", [cut(write_babble(tmp_path / "a.wav", 0.02), phones="a")])
    found = LabelledSpeech(data, model).measure([recogniser(model)], KERNELS, STRIDES, lambda seconds: None)
    assert found.rates == (1.0,)


def test_unreadable_utterances_are_counted(tmp_path):
    model = save_recogniser(tmp_path / "model")
    good, gone = cut(write_babble(tmp_path / "a.wav", 0.5), phones="a"), cut(tmp_path / "b.wav", phones="a")
    speech = LabelledSpeech(write_cuts(tmp_path / "cuts", [good, gone]), model)
    found = speech.measure([recogniser(model)], KERNELS, STRIDES, lambda seconds: None)
    assert (found.num_utterances, found.num_unreadable) == (1, 1)
    speech = LabelledSpeech(write_cuts(tmp_path / "cuts", [gone]), model)
    with pytest.raises(ManifestError, match=r"no utterance can be read: .*b\.wav"):
        speech.measure([recogniser(model)], KERNELS, STRIDES, lambda seconds: None)


def test_speech_without_transcripts_is_refused(tmp_path):
    model = save_recogniser(tmp_path / "model")
    data = write_cuts(tmp_path / "cuts", [cut(write_babble(tmp_path / "a.wav", 0.5), text="tea")])
    with pytest.raises(ValueError, match="must hold an utterance with phones, but holds none; give"):
        LabelledSpeech(data, model)


def test_the_extra_is_named(tmp_path, monkeypatch):
    original = builtins.__import__

    def without_lhotse(name, *rest, **more):
        if name.startswith("unispeech.data"):
            raise ImportError("no lhotse", name="lhotse")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_lhotse)
    with pytest.raises(ImportError, match=r"labelled speech needs lhotse; .*'unispeech\[train\]'"):
        LabelledSpeech(tmp_path, tmp_path)
