import builtins

import pytest
import torch

from labelled_cuts import cut, write_cuts
from tiny_recognisers import (
    LETTERS,
    WORD_PHONES,
    save_classifier,
    save_recogniser,
    tiny_config,
    write_babble,
)
from unispeech import Transcriber, UniSpeechModel
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.errors import CheckpointError
from unispeech.metrics import error_rate
from unispeech.pipelines.evaluation import NO_GROUP, evaluate_model


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    return [write_babble(folder / f"{i}.wav", 0.4 + 0.3 * i, i) for i in range(3)]


@pytest.fixture(scope="module")
def phone_model(tmp_path_factory):
    return save_recogniser(tmp_path_factory.mktemp("models") / "phones")


def test_a_recogniser_that_is_right_makes_no_errors(tmp_path, recordings, phone_model):
    transcriber = Transcriber(phone_model)
    cuts = [cut(path, phones=transcriber.transcribe(path).text) for path in recordings]
    seen = []
    evaluation = evaluate_model(phone_model, write_cuts(tmp_path, cuts), on_progress=seen.append)
    assert evaluation.scores.per.rate == 0.0
    assert evaluation.scores.per.num_reference == sum(
        len(c["supervisions"][0]["custom"]["phones"].split()) for c in cuts
    )
    assert (evaluation.scores.cer, evaluation.scores.wer, evaluation.scores.accuracy) == (None, None, None)
    assert evaluation.confusions == []
    assert evaluation.groups == {}
    assert sum(seen) == pytest.approx(evaluation.audio_seconds) == pytest.approx(2.1)


def test_errors_are_counted_over_all_and_by_group(tmp_path, recordings, phone_model):
    transcriber = Transcriber(phone_model)
    said = [transcriber.transcribe(path).text.split() for path in recordings]
    references = [[*said[0], "a", "a"], said[1][1:], said[2]]
    speakers = ["eva", "tom", None]
    cuts = [
        cut(path, phones=" ".join(phones), speaker=speaker)
        for path, phones, speaker in zip(recordings, references, speakers, strict=True)
    ]
    evaluation = evaluate_model(phone_model, write_cuts(tmp_path, cuts), by="speaker")
    assert evaluation.scores.per == error_rate(references, said)
    assert list(evaluation.groups) == [NO_GROUP, "eva", "tom"]
    assert evaluation.groups["tom"].per == error_rate([references[1]], [said[1]])
    assert evaluation.groups[NO_GROUP].per.rate == 0.0
    assert sum(group.num_utterances for group in evaluation.groups.values()) == 3
    found = {(c.reference, c.hypothesis): c.count for c in evaluation.confusions}
    assert sum(found.values()) == 3
    assert sum(count for (said_, heard), count in found.items() if heard is None) == 2


def test_a_symbol_that_the_vocabulary_lacks_is_an_error(tmp_path, recordings, phone_model):
    text = Transcriber(phone_model).transcribe(recordings[0]).text
    evaluation = evaluate_model(phone_model, write_cuts(tmp_path, [cut(recordings[0], phones=text + " ʘ")]))
    assert evaluation.scores.per.deletions == 1


def test_segments_of_a_recording_are_scored_by_their_own_audio(tmp_path, phone_model):
    import soundfile

    path = write_babble(tmp_path / "long.wav", 2.0)
    samples, rate = soundfile.read(path)
    soundfile.write(tmp_path / "part.wav", samples[8000:20000], rate, subtype="PCM_16")
    text = Transcriber(phone_model).transcribe(tmp_path / "part.wav").text
    cuts = [cut(path, start=0.5, duration=0.75, phones=text)]
    assert evaluate_model(phone_model, write_cuts(tmp_path / "d", cuts)).scores.per.rate == 0.0


def test_spelling_models_get_words_and_characters(tmp_path, recordings):
    model = save_recogniser(tmp_path / "letters", LETTERS)
    transcriber = Transcriber(model)
    texts = [transcriber.transcribe(path).text for path in recordings]
    texts[0] += " one"
    evaluation = evaluate_model(
        model, write_cuts(tmp_path, [cut(p, text=t) for p, t in zip(recordings, texts, strict=True)])
    )
    assert evaluation.scores.per is None
    assert evaluation.scores.wer.deletions == 1
    assert evaluation.scores.wer.num_reference == sum(len(t.split()) for t in texts)
    assert evaluation.scores.cer.deletions == 3
    assert evaluation.scores.cer.num_reference == sum(len(t.replace(" ", "")) for t in texts)


def test_phones_with_boundaries_get_words_too(tmp_path, recordings):
    model = save_recogniser(tmp_path / "words", WORD_PHONES)
    words = [word.word for word in Transcriber(model).transcribe(recordings[0]).words]
    text = " | ".join(" ".join(word) for word in words)
    evaluation = evaluate_model(model, write_cuts(tmp_path, [cut(recordings[0], phones=text)]))
    assert evaluation.scores.wer.rate == evaluation.scores.per.rate == 0.0
    assert evaluation.scores.wer.num_reference == len(words)


def test_a_classifier_gets_accuracy(tmp_path, recordings):
    labels = ["yes", "no", "stop"]
    folder = save_classifier(tmp_path / "classifier", labels)
    model = load_model(folder)
    from unispeech.audio import load_audio, normalise_waveform

    best = []
    for path in recordings:
        with torch.no_grad():
            logits = model(torch.from_numpy(normalise_waveform(load_audio(path)))[None]).logits
        best.append(labels[int(logits.argmax())])
    wrong = next(label for label in labels if label != best[2])
    cuts = [
        cut(path, label=label, language="en")
        for path, label in zip(recordings, [*best[:2], wrong], strict=True)
    ]
    evaluation = evaluate_model(folder, write_cuts(tmp_path, cuts), by="language")
    assert evaluation.scores.accuracy.num_correct == 2
    assert evaluation.scores.accuracy.num_total == 3
    assert evaluation.groups["en"].accuracy == evaluation.scores.accuracy
    [confusion] = evaluation.confusions
    assert (confusion.reference, confusion.hypothesis, confusion.count) == (wrong, best[2], 1)


def test_what_cannot_be_scored_is_counted(tmp_path, recordings, phone_model):
    broken = tmp_path / "broken.wav"
    broken.write_text("text")
    cuts = [
        cut(recordings[0], phones="a"),
        cut(recordings[1], text="no phones"),
        cut(broken, phones="a"),
        cut(tmp_path / "missing.wav", phones="a"),
    ]
    evaluation = evaluate_model(phone_model, write_cuts(tmp_path, cuts))
    assert evaluation.scores.num_utterances == 1
    assert evaluation.num_unlabelled == 1
    assert evaluation.unreadable.keys() == {"broken", "missing"}
    assert str(broken) in evaluation.unreadable["broken"]


def test_nothing_to_score_is_refused(tmp_path, recordings, phone_model):
    cuts = [cut(recordings[0], text="no phones")]
    with pytest.raises(
        ValueError, match="must hold an utterance with phones that can be read, but holds none of 1"
    ):
        evaluate_model(phone_model, write_cuts(tmp_path, cuts))


def test_a_label_of_another_model_is_refused(tmp_path, recordings):
    folder = save_classifier(tmp_path / "classifier", ["yes", "no"])
    cuts = [cut(recordings[0], label="yess")]
    with pytest.raises(
        ValueError, match=r"0: label must be one of the model's \(yes, no\), but is 'yess'.*yes"
    ):
        evaluate_model(folder, write_cuts(tmp_path, cuts))


def test_an_unknown_language_of_a_tagged_vocabulary_is_refused(tmp_path, recordings):
    from unispeech.text import Vocabulary

    tagged = Vocabulary(symbols=("<pad>", "(en)a", "(de)a"), blank=0, kind="phones")
    model = save_recogniser(tmp_path / "tagged", tagged)
    cuts = [cut(recordings[0], phones="a", language="fr")]
    with pytest.raises(ValueError, match="0: `language` must be one of de, en, but is 'fr'"):
        evaluate_model(model, write_cuts(tmp_path, cuts))


def test_a_model_without_a_head_is_refused(tmp_path, recordings):
    save_model(UniSpeechModel(tiny_config()), tmp_path / "base")
    data = write_cuts(tmp_path, [cut(recordings[0], phones="a")])
    with pytest.raises(
        ValueError, match="base: must recognise or classify, but is a UniSpeechModel; finetune it"
    ):
        evaluate_model(tmp_path / "base", data)


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path, recordings, phone_model):
    import shutil

    shutil.copytree(phone_model, tmp_path / "other")
    LETTERS.save(tmp_path / "other")
    data = write_cuts(tmp_path, [cut(recordings[0], phones="a")])
    with pytest.raises(CheckpointError, match="`vocabulary` must have as many symbols"):
        evaluate_model(tmp_path / "other", data)


def test_data_that_is_not_there_is_named(tmp_path, phone_model):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        evaluate_model(phone_model, tmp_path / "nowhere")


def test_without_lhotse_the_extra_is_named(tmp_path, phone_model, monkeypatch):
    real = builtins.__import__

    def without_lhotse(name, *args, **kwargs):
        if name == "unispeech.data.collation":
            raise ModuleNotFoundError("No module named 'lhotse'", name="lhotse")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_lhotse)
    with pytest.raises(ImportError, match=r"evaluation needs lhotse; .*unispeech\[train\]"):
        evaluate_model(phone_model, tmp_path)
