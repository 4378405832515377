import numpy as np
from ctc_cases import spoken_like

from unispeech.decoding.beam import BeamSettings
from unispeech.decoding.beam_decoder import BeamDecoder
from unispeech.decoding.decoder import GreedyDecoder, decode_blocks
from unispeech.decoding.hotwords import Hotword, Hotwords


def test_it_decodes_like_the_greedy_decoder_where_frames_are_sure():
    rows = spoken_like(300, 20, sharpness=14.0)
    assert BeamDecoder(0).decode(rows) == GreedyDecoder(0).decode(rows)
    assert BeamDecoder(0).decode(rows[:0]) == []


def test_blocks_are_decoded_as_at_once():
    rows = spoken_like(900, 20, sharpness=14.0)
    decoder = BeamDecoder(0)
    found = list(decode_blocks(np.array_split(rows, 5), decoder, 0, section_frames=300))
    assert found == decoder.decode(rows)


def test_special_symbols_are_never_written():
    rows = np.log(np.array([[0.1, 0.6, 0.3], [0.8, 0.1, 0.1]]))
    decoder = BeamDecoder(0, forbidden=frozenset({0, 1}))
    spans = decoder.decode(rows)
    assert [(span.token, span.start_frame, span.end_frame) for span in spans] == [(2, 0, 1)]
    assert rows[0, 1] == np.log(0.6)
    [others] = decoder.alternatives(rows, spans)
    assert [other.token for other in others] == [2]


def test_many_are_searched_together():
    rows = [spoken_like(60, 8, seed=seed) for seed in range(3)]
    decoder = BeamDecoder(0, settings=BeamSettings(nbest=4), scorers=[Hotwords([Hotword((1, 2))], 8)])
    together = decoder.nbest_many(rows)
    assert [len(found) for found in together] == [4, 4, 4]
    assert [[h.tokens for h in found] for found in together] == [
        [h.tokens for h in decoder.nbest(row)] for row in rows
    ]
    scorer = decoder.scorers[0]
    for hypothesis in together[0]:
        assert np.isclose(hypothesis.score, hypothesis.log_prob + scorer.score(list(hypothesis.tokens)))
