"""The transcriber with a beam search, a language model, hotwords and an inventory."""

import numpy as np
import pytest

from tiny_recognisers import PHONES, babble, tiny_recogniser
from unispeech.decoding.beam import BeamSettings, beam_search
from unispeech.decoding.beam_decoder import BeamDecoder, NbestDecoder, join_nbest
from unispeech.decoding.hotwords import Hotword, Hotwords
from unispeech.decoding.inventory import restrict
from unispeech.pipelines.transcriber import Transcriber


@pytest.fixture(scope="module")
def model():
    return tiny_recogniser()


def test_what_comes_out_lies_in_the_inventory(model):
    audio = babble(2.0)
    inventory = restrict(PHONES, ["a", "ŋ"])
    plain = Transcriber(model, vocabulary=PHONES, device="cpu").transcribe(audio, 16_000)
    assert {phone.phone for phone in plain.phones} - {"a", "ŋ"}
    transcriber = Transcriber(model, vocabulary=PHONES, device="cpu", inventory=inventory)
    found = transcriber.transcribe(audio, 16_000)
    assert {phone.phone for phone in found.phones} <= {"a", "ŋ"}
    assert found.phones
    rows = np.concatenate(list(transcriber.log_probs(audio, 16_000)))
    assert rows.shape[1] == 3
    assert [transcript.text for transcript in transcriber.transcribe_batch([audio])] == [found.text]


def test_a_beam_lists_transcripts_and_alternatives(model):
    audio = babble(1.0)
    decoder = BeamDecoder(PHONES.blank, PHONES.special, settings=BeamSettings(beam=10, nbest=4))
    found = Transcriber(model, vocabulary=PHONES, device="cpu", decoder=decoder).transcribe(audio, 16_000)
    assert found.nbest[0].text == found.text
    scores = [reading.score for reading in found.nbest]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    for phone in found.phones:
        probs = {other.phone: other.prob for other in phone.alternatives}
        assert probs[phone.phone] == pytest.approx(phone.score)
        assert max(probs.values()) <= 1.0


def test_hotwords_change_what_is_written(model):
    audio = babble(1.0)
    scorer = Hotwords([Hotword((3,), -50.0)], len(PHONES))
    without = BeamDecoder(PHONES.blank, PHONES.special, scorers=[scorer])
    plain = BeamDecoder(PHONES.blank, PHONES.special)
    texts = [
        Transcriber(model, vocabulary=PHONES, device="cpu", decoder=decoder).transcribe(audio, 16_000).text
        for decoder in (plain, without)
    ]
    assert "t͡ʃ" in texts[0]
    assert "t͡ʃ" not in texts[1]


def test_sections_are_joined_by_their_best_transcripts():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 3))
    parts = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    settings = BeamSettings(beam=50, nbest=50, min_prob=0.0)
    sections = beam_search(list(parts), 0, settings=settings)
    found = join_nbest([sections[0], [], sections[1]], 5)
    every = sorted((a.score + b.score for a in sections[0] for b in sections[1]), reverse=True)
    assert [hypothesis.score for hypothesis in found] == pytest.approx(every[:5])
    assert found[0].tokens == sections[0][0].tokens + sections[1][0].tokens
    decoder = NbestDecoder(BeamDecoder(0, settings=settings))
    assert [span.token for span in decoder.decode(parts[0])] == list(sections[0][0].tokens)
    assert len(decoder.sections) == 1
