"""The beam search beside flashlight-text's, where that is installed (pip install flashlight-text)."""

import math
from collections import defaultdict

import numpy as np
import pytest
from ctc_cases import log_softmax

from unispeech.decoding.beam import BeamSettings, beam_search
from unispeech.decoding.ngram_fusion import SymbolModel
from unispeech.decoding.ngram_training import train_ngram
from unispeech.text import Vocabulary

REASON = "flashlight-text is not installed"
SYMBOLS = ("<pad>", "a", "b", "c", "d", "e")
VOCABULARY = Vocabulary(symbols=SYMBOLS, blank=0, kind="phones")


def flashlight(rows, lm, *, weight=0.0, beam=20):
    """Transcript -> its score, ends in blank and in symbol together."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason=REASON)
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=len(SYMBOLS),
        beam_threshold=1e9,
        lm_weight=weight,
        sil_score=0.0,
        log_add=True,
        criterion_type=decoder.CriterionType.CTC,
    )
    search = decoder.LexiconFreeDecoder(options, lm, 0, 0, [])
    rows = np.ascontiguousarray(rows, np.float32)
    found = defaultdict(list)
    for result in search.decode(rows.ctypes.data, *rows.shape):
        tokens, last = [], 0
        for token in result.tokens[1:-1]:
            if token not in (last, 0):
                tokens.append(token)
            last = token
        found[tuple(tokens)].append(result.score)
    return {tokens: float(np.logaddexp.reduce(scores)) for tokens, scores in found.items()}


def agree(ours, theirs):
    """The same transcripts in the same order with the same scores, where both keep nearly every path."""
    best = sorted(theirs, key=lambda tokens: -theirs[tokens])
    assert ours[0].tokens == best[0]
    for hypothesis in ours:
        assert hypothesis.score == pytest.approx(theirs[hypothesis.tokens], abs=1e-3)


EXACT = BeamSettings(beam=1500, nbest=10, min_prob=0.0)


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_flashlight_finds(seed):
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason=REASON)
    rows = log_softmax(np.random.default_rng(seed).normal(size=(6, len(SYMBOLS))) * 3)
    agree(beam_search([rows], 0, settings=EXACT)[0], flashlight(rows, decoder.ZeroLM(), beam=3000))


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_flashlight_finds_with_a_language_model(seed, tmp_path):
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason=REASON)
    if not hasattr(decoder, "KenLM"):
        pytest.skip("this flashlight-text comes without KenLM")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary", reason=REASON).Dictionary(
        list(SYMBOLS)
    )
    rng = np.random.default_rng(seed)
    model = train_ngram([rng.choice(list("abcde"), 8).tolist() for _ in range(20)], order=3)
    (tmp_path / "lm.arpa").write_text(model.to_arpa())
    lm = decoder.KenLM(str(tmp_path / "lm.arpa"), dictionary)
    rows = log_softmax(rng.normal(size=(6, len(SYMBOLS))) * 3)
    scorer = SymbolModel(model, VOCABULARY, weight=0.6)
    ours = beam_search([rows], 0, settings=EXACT, scorers=[scorer])[0]
    # KenLM's logarithms are decimal.
    agree(ours, flashlight(rows, lm, weight=0.6 * math.log(10), beam=3000))


@pytest.mark.parametrize("seed", range(8))
def test_on_longer_ones_it_loses_hardly_more_of_the_probability(seed):
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason=REASON)
    rows = log_softmax(np.random.default_rng(seed).normal(size=(60, len(SYMBOLS))) * 4)
    theirs = flashlight(rows, decoder.ZeroLM(), beam=40)
    # Theirs counts a transcript's two ends as two hypotheses, so its beam is given twice as much room.
    [ours] = beam_search([rows], 0, settings=BeamSettings(beam=20, min_prob=0.0))[0]
    assert ours.score >= max(theirs.values()) - 0.05
