import json
import shutil

import numpy as np
import pytest
import torch

from tiny_recognisers import (
    LETTERS,
    PHONES,
    WORD_PHONES,
    babble,
    save_classifier,
    save_recogniser,
    tiny_config,
    tiny_recogniser,
    write_babble,
)
from unispeech import Transcriber, UniSpeechModel
from unispeech.errors import CheckpointError, ManifestError
from unispeech.pipelines import recordings
from unispeech.results import Transcript
from unispeech.text import Vocabulary


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_recogniser(tmp_path_factory.mktemp("model") / "phones")


@pytest.fixture(scope="module")
def transcriber(model_dir):
    return Transcriber(model_dir)


def scripted(vocabulary, paths, prob=0.9, **settings):
    """A transcriber whose network says, frame by frame, what each path says."""
    transcriber = Transcriber(tiny_recogniser(vocabulary), vocabulary=vocabulary, **settings)

    def logits(waveforms):
        longest = max(map(len, paths))
        rows = np.full((len(paths), longest, len(vocabulary)), (1 - prob) / (len(vocabulary) - 1))
        for row, path in enumerate(paths):
            for frame, symbol in enumerate(path):
                rows[row, frame, vocabulary.symbols.index(symbol)] = prob
        return torch.from_numpy(np.log(rows / rows.sum(axis=2, keepdims=True)))

    transcriber.engine.logits = logits
    return transcriber


def samples_for(num_frames: int) -> int:
    return (num_frames - 1) * 320 + 400


def is_same(one: Transcript, other: Transcript) -> None:
    assert [(p.phone, p.start, p.end) for p in one.phones] == [
        (p.phone, p.start, p.end) for p in other.phones
    ]
    assert [p.score for p in one.phones] == pytest.approx([p.score for p in other.phones], abs=1e-5)
    assert (one.audio, one.text, one.duration) == (other.audio, other.text, other.duration)


# -- from frames to symbols and seconds ----------------------------------------------------------------------


def test_spikes_are_the_frames_in_which_phones_win():
    path = ["<pad>", "t͡ʃ", "t͡ʃ", "<pad>", "a", "ŋ", "<pad>", "ŋ"]
    transcript = scripted(PHONES, [path], times="spikes").transcribe(babble(samples_for(8) / 16000), 16000)
    assert transcript.text == "t͡ʃ a ŋ ŋ"
    # Frame t is centred at 12.5 ms + 20 t ms and stands for 10 ms on either side.
    assert [(p.phone, p.start, p.end) for p in transcript.phones] == [
        ("t͡ʃ", pytest.approx(0.0225), pytest.approx(0.0625)),
        ("a", pytest.approx(0.0825), pytest.approx(0.1025)),
        ("ŋ", pytest.approx(0.1025), pytest.approx(0.1225)),
        ("ŋ", pytest.approx(0.1425), pytest.approx(0.1625)),
    ]
    assert [p.score for p in transcript.phones] == pytest.approx([0.9] * 4)
    assert transcript.words is None
    assert transcript.duration == samples_for(8) / 16000
    assert transcript.phones[-1].end <= transcript.duration


def test_special_symbols_are_never_shown():
    transcript = scripted(PHONES, [["a", "<unk>", "ɹ"]]).transcribe(babble(samples_for(3) / 16000), 16000)
    assert transcript.text == "a ɹ"
    assert [p.phone for p in transcript.phones] == ["a", "ɹ"]


def test_characters_make_words():
    path = ["|", "n", "o", "|", "<pad>", "|", "o", "n", "e", "|"]
    transcript = scripted(LETTERS, [path], times="spikes").transcribe(babble(samples_for(10) / 16000), 16000)
    assert transcript.text == "no one"
    assert [p.phone for p in transcript.phones] == list("noone")
    assert [(w.word, w.start, w.end) for w in transcript.words] == [
        ("no", pytest.approx(0.0225), pytest.approx(0.0625)),
        ("one", pytest.approx(0.1225), pytest.approx(0.1825)),
    ]
    assert [w.score for w in transcript.words] == pytest.approx([0.9, 0.9])


def test_phones_with_boundaries_make_words_and_text_without_bars():
    transcript = scripted(WORD_PHONES, [["t", "a", "|", "s"]]).transcribe(
        babble(samples_for(4) / 16000), 16000
    )
    assert transcript.text == "t a s"
    assert [w.word for w in transcript.words] == ["ta", "s"]


def test_a_word_vocabulary_gives_no_words_for_silence(tmp_path):
    transcriber = Transcriber(tiny_recogniser(LETTERS), vocabulary=LETTERS)
    transcript = transcriber.transcribe(np.zeros(16000, np.float32), 16000)
    assert (transcript.text, transcript.phones, transcript.words) == ("", [], [])


# -- odd recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [1, 10, 399])
def test_audio_shorter_than_a_frame_gives_an_empty_transcript(transcriber, num_samples):
    transcript = transcriber.transcribe(babble(1.0)[:num_samples], 16000)
    assert transcript == Transcript(audio="", duration=num_samples / 16000, text="", phones=[])


@pytest.mark.parametrize("level", [0.0, 0.25])
@pytest.mark.parametrize("noise", [0, 1])
def test_digital_silence_gives_an_empty_transcript(transcriber, level, noise):
    steps = np.random.default_rng(0).integers(-noise, noise + 1, size=16000)
    transcript = transcriber.transcribe((level + steps / 32768).astype(np.float32), 16000)
    assert (transcript.text, transcript.phones, transcript.duration) == ("", [], 1.0)


def test_one_frame_is_enough(transcriber):
    assert len(transcriber.transcribe(babble(0.025), 16000).phones) <= 1


def test_normalisation_makes_the_level_irrelevant(transcriber):
    loud = transcriber.transcribe(babble(1.0), 16000)
    assert loud.phones
    assert transcriber.transcribe(babble(1.0) * 0.25, 16000).text == loud.text


def test_do_normalize_is_taken_from_the_preprocessor(tmp_path):
    folder = save_recogniser(tmp_path / "raw", do_normalize=False)
    transcriber = Transcriber(folder, engine="torch")
    assert not transcriber.do_normalize
    seen = []
    run = transcriber.engine.logits
    transcriber.engine.logits = lambda waveforms: seen.append(waveforms) or run(waveforms)
    waveform = babble(0.5)
    transcriber.transcribe(waveform, 16000)
    assert np.array_equal(seen[0][0], waveform)
    assert Transcriber(folder, do_normalize=True).do_normalize


# -- a batch gives what singles give -------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_many_equal_singles(tmp_path, norm):
    folder = save_recogniser(
        tmp_path / norm,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_bias=norm == "layer",
    )
    lengths = [0.9, 0.02, 2.1, 0.4, 1.3, 0.025, 0.7]
    paths = [write_babble(tmp_path / f"{i}.wav", length, i) for i, length in enumerate(lengths)]
    one_batch = Transcriber(folder, batch_seconds=100.0)
    outcomes = dict(one_batch.transcribe_many(paths))
    assert outcomes.keys() == set(paths)
    assert sum(len(outcome.phones) for outcome in outcomes.values()) > 20
    alone = Transcriber(folder)
    for path in paths:
        is_same(outcomes[path], alone.transcribe(path))


def test_many_report_the_broken_and_do_the_rest(tmp_path, transcriber):
    good = write_babble(tmp_path / "good.wav", 0.5)
    text, empty, missing = tmp_path / "text.wav", tmp_path / "empty.flac", tmp_path / "missing.wav"
    text.write_text("not a sound")
    empty.write_bytes(b"")
    outcomes = dict(transcriber.transcribe_many([text, str(good), missing, empty, tmp_path]))
    assert isinstance(outcomes[str(good)], Transcript)
    assert outcomes[str(good)].audio == str(good)
    assert isinstance(outcomes[text], ManifestError)
    assert isinstance(outcomes[empty], ManifestError)
    assert isinstance(outcomes[missing], FileNotFoundError)
    assert isinstance(outcomes[tmp_path], IsADirectoryError)
    for path in (text, empty, missing, tmp_path):
        assert str(path) in str(outcomes[path])


def test_many_report_a_file_that_breaks_after_its_header_was_read(tmp_path, transcriber, monkeypatch):
    paths = [write_babble(tmp_path / f"{i}.wav", 0.5, i) for i in range(2)]
    opened = recordings.open_recording

    def open_and_lose(path):
        recording = opened(path)
        if path == paths[0]:
            path.unlink()
        return recording

    monkeypatch.setattr(recordings, "open_recording", open_and_lose)
    outcomes = dict(transcriber.transcribe_many(paths))
    assert isinstance(outcomes[paths[0]], FileNotFoundError)
    assert isinstance(outcomes[paths[1]], Transcript)


def test_many_take_a_generator_as_it_is_needed(tmp_path, transcriber, monkeypatch):
    monkeypatch.setattr(recordings, "NUM_AHEAD", 2)
    path = write_babble(tmp_path / "a.wav", 0.1)
    taken = []
    results = transcriber.transcribe_many(taken.append(i) or path for i in range(6))
    next(results)
    assert len(taken) == 2
    assert len(list(results)) == 5


# -- what cannot be used -------------------------------------------------------------------------------------


def test_a_wrong_rate_is_refused(transcriber):
    with pytest.raises(ValueError, match="audio: sample rate must be 16000 Hz, but is 8000"):
        transcriber.transcribe(babble(0.1), 8000)


def test_samples_need_a_rate_and_files_none(tmp_path, transcriber):
    with pytest.raises(ValueError, match="`sample_rate` must be the rate of the samples in Hz, but is None"):
        transcriber.transcribe(babble(0.1))
    with pytest.raises(ValueError, match=r"`sample_rate` must be None for a file.* but is 16000"):
        transcriber.transcribe(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(transcriber, value):
    waveform = babble(0.1)
    waveform[3] = value
    with pytest.raises(ValueError, match="`audio` must be finite, but 1 of 1600"):
        transcriber.transcribe(waveform, 16000)


def test_integers_and_three_axes_are_refused(transcriber):
    with pytest.raises(TypeError, match="`audio` must hold floats"):
        transcriber.transcribe(np.zeros(1600, np.int16), 16000)
    with pytest.raises(ValueError, match=r"`audio` must have shape \(S,\), but has \(2, 1, 1600\)"):
        transcriber.transcribe(np.zeros((2, 1, 1600), np.float32), 16000)


def test_a_batch_of_no_length_is_refused(model_dir):
    with pytest.raises(ValueError, match="`batch_seconds` must be positive, but is 0"):
        Transcriber(model_dir, batch_seconds=0)


def test_a_directory_without_weights_is_refused(tmp_path, model_dir):
    shutil.copytree(model_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CheckpointError, match="bare: must hold weights, but has neither"):
        Transcriber(tmp_path / "bare")


def test_a_directory_without_vocabulary_is_refused(tmp_path, model_dir):
    shutil.copytree(model_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("vocab.json"))
    with pytest.raises(CheckpointError, match=r"bare: has no vocab\.json"):
        Transcriber(tmp_path / "bare")
    assert Transcriber(tmp_path / "bare", vocabulary=PHONES).vocabulary is PHONES


def test_a_vocabulary_of_another_size_is_refused(tmp_path, model_dir):
    shutil.copytree(model_dir, tmp_path / "other")
    Vocabulary(symbols=("<pad>", "a"), blank=0, kind="phones").save(tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"other: `vocabulary` must have as many symbols .*\(7\).* has 2; take"
    ):
        Transcriber(tmp_path / "other")


def test_a_vocabulary_with_another_blank_is_refused(tmp_path, model_dir):
    shutil.copytree(model_dir, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 3}))
    with pytest.raises(CheckpointError, match=r"blank at the config's `pad_token_id` \(3\), but has it at 0"):
        Transcriber(tmp_path / "other")


def test_a_classifier_is_refused(tmp_path):
    folder = save_classifier(tmp_path / "classifier", ["yes", "no"])
    with pytest.raises(
        CheckpointError, match=r"UniSpeechForSequenceClassification or run it with .unispeech classify"
    ):
        Transcriber(folder)


def test_a_model_in_memory_needs_a_vocabulary_and_a_head():
    with pytest.raises(ValueError, match="`vocabulary` must be given along with a model in memory"):
        Transcriber(tiny_recogniser())
    with pytest.raises(ValueError, match="`model` must have a CTC head, but is UniSpeechModel"):
        Transcriber(UniSpeechModel(tiny_config()), vocabulary=PHONES)


# -- where models come from ----------------------------------------------------------------------------------


def test_a_model_in_memory_stays_as_it_is():
    model = tiny_recogniser().train()
    model.unispeech.feature_extractor.eval()
    transcriber = Transcriber(model, vocabulary=PHONES)
    first = transcriber.transcribe(babble(0.5), 16000)
    is_same(first, transcriber.transcribe(babble(0.5), 16000))  # no dropout, no masks
    assert model.training
    assert not model.unispeech.feature_extractor.training


def test_half_precision_weights_run_in_float32(tmp_path, model_dir):
    shutil.copytree(
        model_dir, tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    tiny_recogniser().half().save_pretrained(tmp_path / "half")
    transcriber = Transcriber(tmp_path / "half", engine="torch")
    assert transcriber.engine.model.dtype == torch.float32
    assert transcriber.transcribe(babble(0.5), 16000).phones


def test_hugging_faces_own_model_is_read_alike(tmp_path, model_dir, transcriber):
    from transformers import UniSpeechForCTC as Oracle

    oracle = Oracle.from_pretrained(model_dir)
    oracle.save_pretrained(tmp_path / "theirs")
    PHONES.save(tmp_path / "theirs")
    waveform = babble(1.0)
    is_same(
        Transcriber(tmp_path / "theirs").transcribe(waveform, 16000), transcriber.transcribe(waveform, 16000)
    )
    # Their class in memory works too.
    is_same(
        Transcriber(oracle.eval(), vocabulary=PHONES).transcribe(waveform, 16000),
        transcriber.transcribe(waveform, 16000),
    )
