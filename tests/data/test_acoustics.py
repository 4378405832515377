import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.data.acoustics import add_noise, add_reverb, coloured_noise, set_level

RATE = 16000


def tone(num_samples: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / RATE)).astype(np.float32)


@given(st.integers(1, 5000), st.floats(0, 2))
def test_noise_has_the_length_and_power_asked_for(num_samples: int, tilt: float) -> None:
    noise = coloured_noise(num_samples, tilt=tilt, rng=np.random.default_rng(0))
    assert noise.shape == (num_samples,) and noise.dtype == np.float32
    assert np.mean(noise.astype(float) ** 2) == pytest.approx(1, rel=1e-4)


def test_tilted_noise_is_darker() -> None:
    def share_of_highs(tilt: float) -> float:
        power = np.abs(np.fft.rfft(coloured_noise(1 << 14, tilt=tilt, rng=np.random.default_rng(1)))) ** 2
        return float(power[len(power) // 2 :].sum() / power.sum())

    assert share_of_highs(0) == pytest.approx(0.5, abs=0.03)
    assert share_of_highs(1) < 0.15 and share_of_highs(2) < 0.01


def test_the_ratio_is_met_over_the_speech() -> None:
    clean = np.pad(tone(), RATE // 2)
    speech = slice(RATE // 2, RATE * 3 // 2)
    noisy = add_noise(clean, snr_db=10, speech=speech, sample_rate=RATE, rng=np.random.default_rng(2))
    ratio = np.mean(clean[speech].astype(float) ** 2) / np.mean((noisy - clean).astype(float) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.01)
    assert noisy.dtype == np.float32


def test_a_room_leaves_the_direct_sound_where_it_was() -> None:
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    wet = add_reverb(click, decay=0.3, direct_db=0, sample_rate=RATE, rng=np.random.default_rng(3))
    assert len(wet) == RATE and int(np.argmax(np.abs(wet))) == 1000
    assert np.abs(wet[:1000]).max() < 1e-6 and wet[1000] == pytest.approx(0.5, abs=1e-6)
    tail = np.sum(wet[1001:].astype(float) ** 2) / 0.25
    assert tail == pytest.approx(1, rel=0.01)
    assert np.abs(wet[1000 + RATE // 2 :]).max() < 1e-3


def test_the_level_is_met_but_nothing_clips() -> None:
    speech = slice(0, RATE)
    quiet = set_level(tone(), level_db=-20, speech=speech)
    assert np.sqrt(np.mean(quiet.astype(float) ** 2)) == pytest.approx(0.1, rel=1e-4)
    assert np.abs(set_level(tone(), level_db=6, speech=speech)).max() == pytest.approx(0.99, rel=1e-6)
    silence = np.zeros(9, np.float32)
    assert set_level(silence, level_db=-20, speech=slice(0, 9)) is silence
