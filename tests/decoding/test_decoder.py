import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.decoding.decoder import GreedyDecoder, decode_blocks, find_seam
from unispeech.decoding.greedy import greedy


def log_probs(path, num_tokens=4, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.05, 0.3, size=(len(path), num_tokens)).astype(np.float32)
    rows[np.arange(len(path)), path] = rng.uniform(0.5, 0.9, size=len(path))
    return np.log(rows / rows.sum(axis=1, keepdims=True))


def test_a_seam_is_the_surest_blank_of_the_last_third():
    rows = log_probs([1, 0, 2, 1, 0, 0, 3, 0, 2])
    rows[7, 0] = -0.01
    assert find_seam(rows, blank=0) == 7


def test_a_late_seam_is_the_last_blank():
    assert find_seam(log_probs([0, 0, 2, 0, 3, 1]), blank=0, is_late=True) == 3
    assert find_seam(log_probs([1, 1, 2, 2, 3, 3]), blank=0, is_late=True) == 4
    assert find_seam(np.zeros((0, 4), np.float32), blank=0, is_late=True) == 0


@pytest.mark.parametrize(
    ("path", "seam"), [([1, 1, 1, 2, 2, 2, 3, 3], 6), ([1, 2, 2, 2, 2, 2], 1), ([1, 1, 1], 0), ([1], 0)]
)
def test_a_seam_without_a_late_blank_never_cuts_a_token(path, seam):
    assert find_seam(log_probs(path), blank=0) == seam


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20))
def test_greedy_in_sections_is_greedy_at_once(path, lengths, section_frames):
    rows = log_probs(path) if path else np.zeros((0, 4), np.float32)
    ends = np.minimum(np.cumsum(lengths, dtype=int), len(rows))
    blocks = np.split(rows, ends)
    found = list(decode_blocks(blocks, GreedyDecoder(0), 0, section_frames=section_frames))
    assert found == greedy(rows, 0)


def test_a_decoder_gets_bounded_sections():
    seen = []

    class Watcher(GreedyDecoder):
        def decode(self, log_probs):
            seen.append(len(log_probs))
            return super().decode(log_probs)

    blocks = [log_probs([0, 1, 0, 2, 0], seed=i) for i in range(40)]
    list(decode_blocks(blocks, Watcher(0), 0, section_frames=50))
    assert sum(seen) == 200
    assert max(seen) <= 55
    assert len(seen) > 3
