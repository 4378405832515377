"""Augmentation: what it does to sound, and that batches draw it the same way wherever they are read."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import DURATIONS, cut_of, equal, ids_of, loader_of, write_cuts

from unispeech.data.augmentation import (
    Augmentation,
    augment,
    change_speed,
    through_microphone,
    through_telephone,
)
from unispeech.frames import frame_to_seconds, num_frames

RATE = 16_000
ALL = Augmentation(speed=(0.9, 1.1), noise_prob=0.5, reverb_prob=0.5, microphone_prob=0.5, telephone_prob=0.5)


def tone(frequency: float, num_samples: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(num_samples) / RATE)).astype(np.float32)


def level(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(waveform[2000:-2000].astype(float) ** 2)))


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    return write_cuts(tmp_path_factory.mktemp("cuts"), DURATIONS)


# ---- what it does to sound


@given(num_samples=st.integers(0, 9000), factor=st.floats(0.5, 2.0))
@settings(deadline=None)
def test_speed_divides_the_length(num_samples, factor):
    changed = change_speed(tone(100, num_samples), factor)
    assert changed.dtype == np.float32 and abs(len(changed) - num_samples / factor) <= 1
    assert len(changed) <= max(num_samples / factor, 1)


def test_speed_moves_the_pitch():
    spectrum = np.abs(np.fft.rfft(change_speed(tone(1000), 1.1), RATE))
    assert abs(int(spectrum.argmax()) - 1100) <= 1
    waveform = tone(1000)
    assert change_speed(waveform, 1.0) is waveform


def test_a_telephone_keeps_its_band_and_the_place_of_what_is_said():
    assert level(through_telephone(tone(1000))) == pytest.approx(level(tone(1000)), rel=0.02)
    for frequency in (100, 3800, 6000):
        assert level(through_telephone(tone(frequency))) < 0.02 * level(tone(frequency))
    click = np.zeros(RATE, dtype=np.float32)
    click[5000] = 1.0
    assert int(np.abs(through_telephone(click)).argmax()) == 5000
    silence = np.zeros(10, dtype=np.float32)
    assert through_telephone(silence) is silence


def test_a_telephone_has_eight_bits():
    waveform = tone(1000)
    noise = through_telephone(waveform) - waveform
    # mu-law keeps about 38 dB between signal and error, whatever the level
    assert 30 < 20 * np.log10(level(waveform) / level(noise)) < 45
    quiet = through_telephone(waveform / 1000) * 1000
    np.testing.assert_allclose(quiet, through_telephone(waveform), atol=1e-3)


def test_a_microphone_tilts_the_bands_keeps_the_power_and_delays_nothing():
    low, high = tone(500), tone(2000)
    both = low + high
    coloured = through_microphone(both, 5.0, np.zeros(7))
    middle = slice(1000, -1000)  # the ends ring

    def amplitude(frequency: float) -> float:
        """That of the part of the coloured tones which is in phase with a tone."""
        wave = tone(frequency)[middle]
        return float(coloured[middle] @ wave / (wave @ wave))

    assert 20 * np.log10(amplitude(2000) / amplitude(500)) == pytest.approx(
        10, abs=0.1
    )  # two octaves of 5 dB
    assert level(coloured) == pytest.approx(level(both), rel=1e-3)
    rest = coloured[middle] - (amplitude(500) * low + amplitude(2000) * high)[middle]
    assert level(rest) < 0.01 * level(both)
    flat = through_microphone(both, 0.0, np.full(7, 3.0))
    np.testing.assert_allclose(flat, both, atol=1e-5)


def test_a_microphone_leaves_silence_as_it_is():
    silence = np.zeros(800, np.float32)
    np.testing.assert_array_equal(through_microphone(silence, 6.0, np.zeros(7)), silence)


def test_recipes_without_microphones_keep_their_samples():
    noisy = np.random.default_rng(3)
    augment(tone(500), Augmentation(), noisy)
    expected = np.random.default_rng(3)
    expected.random(3)
    assert noisy.random() == expected.random()


@given(num_samples=st.integers(0, 3000), seed=st.integers(0, 20))
@settings(deadline=None)
def test_any_length_keeps_its_length(num_samples, seed):
    everything = Augmentation(noise_prob=1, reverb_prob=1, microphone_prob=1, telephone_prob=1)
    waveform = np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)
    before = waveform.copy()
    changed = augment(waveform, everything, np.random.default_rng(seed))
    assert changed.shape == waveform.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
    np.testing.assert_array_equal(waveform, before)
    np.testing.assert_array_equal(changed, augment(waveform, everything, np.random.default_rng(seed)))


def test_shares_are_those_asked_for():
    waveform = tone(1000, 1000)
    names = ("noise_prob", "reverb_prob", "microphone_prob", "telephone_prob")
    for name, prob in itertools.product(names, (0.0, 0.3, 1.0)):
        chosen = Augmentation(**{name: prob})
        changed = [
            augment(waveform, chosen, np.random.default_rng(seed)) is not waveform for seed in range(300)
        ]
        assert np.mean(changed) == pytest.approx(prob, abs=0.08), name


def test_noise_has_the_level_asked_for():
    settings = Augmentation(noise_prob=1, noise_snr_db=(10, 10))
    for seed in range(5):
        noise = augment(tone(500), settings, np.random.default_rng(seed)) - tone(500)
        power = np.mean(tone(500).astype(float) ** 2) / np.mean(noise.astype(float) ** 2)
        assert 10 * np.log10(power) == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": (1.1, 0.9)}, r"`speed` must be a range in \[0.5, 2\], but is 1.1 to 0.9"),
        ({"speed": (0.1, 0.9)}, r"`speed` must be a range in \[0.5, 2\], but is 0.1 to 0.9"),
        ({"speed": (0.9, float("nan"))}, r"`speed` must be a range in \[0.5, 2\], but is 0.9 to nan"),
        ({"noise_snr_db": (30, 5)}, "`noise_snr_db` must be a range of decibels, but is 30 to 5"),
        ({"noise_prob": 1.1}, r"`noise_prob` must lie in \[0, 1\], but is 1.1"),
        ({"reverb_prob": -0.1}, r"`reverb_prob` must lie in \[0, 1\], but is -0.1"),
        ({"microphone_prob": 2.0}, r"`microphone_prob` must lie in \[0, 1\], but is 2"),
        ({"telephone_prob": float("nan")}, r"`telephone_prob` must lie in \[0, 1\], but is nan"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


# ---- in batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_with_any_number_of_workers_and_after_a_stop(cuts, num_workers):
    first = loader_of(cuts, augmentation=ALL)
    expected = [*first, *first]
    loader = loader_of(cuts, augmentation=ALL, num_workers=num_workers)
    stream = itertools.chain.from_iterable(itertools.repeat(loader))
    consumed = list(itertools.islice(stream, 3))
    resumed = loader_of(cuts, augmentation=ALL, num_workers=num_workers)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    stream = itertools.chain.from_iterable(itertools.repeat(resumed))
    again = [*consumed, *itertools.islice(stream, len(expected) - 3)]
    assert all(equal(one, other) for one, other in zip(expected, again, strict=True))


def test_processes_share_what_one_process_draws(cuts):
    alone = list(loader_of(cuts, augmentation=ALL))
    ranks = [list(loader_of(cuts, augmentation=ALL, rank=rank, world_size=2)) for rank in range(2)]
    for index, batch in enumerate(alone):
        assert equal(batch, ranks[index % 2][index // 2])


def test_a_lone_utterance_is_drawn_anew_in_every_epoch(tmp_path):
    loader = loader_of(write_cuts(tmp_path, [0.5]), augmentation=Augmentation(noise_prob=1))
    versions = [batch["input_values"] for _ in range(3) for batch in loader]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(versions, 2))


def test_epochs_and_seeds_draw_anew(cuts):
    def of_utterance(batches, name: str) -> torch.Tensor:
        return next(
            row[:length]
            for batch in list(batches)
            for row, length, other in zip(
                batch["input_values"], batch["num_samples"], batch["ids"], strict=True
            )
            if other == name
        )

    noisy = Augmentation(noise_prob=1)
    loader = loader_of(cuts, augmentation=noisy)
    versions = [of_utterance(loader, "7") for _ in range(3)]
    versions.append(of_utterance(loader_of(cuts, augmentation=noisy, seed=-4), "7"))
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(versions, 2))


def test_a_broken_neighbour_changes_nothing(tmp_path):
    path = write_cuts(tmp_path, DURATIONS[:6])
    options = {"augmentation": ALL, "num_buckets": 1, "batch_seconds": 30.0}
    (whole,) = loader_of(path, **options)
    (tmp_path / f"{whole['ids'][0]}.wav").unlink()
    (rest,) = loader_of(path, **options)
    assert rest["ids"] == whole["ids"][1:]
    for row, before in zip(rest["input_values"], whole["input_values"][1:], strict=True):
        num_samples = min(len(row), len(before))
        assert torch.equal(row[:num_samples], before[:num_samples])


def test_all_utterances_of_a_batch_have_one_speed_and_stay_within_the_limit(cuts):
    loader = loader_of(cuts, augmentation=Augmentation(speed=(0.8, 1.25)), batch_seconds=4.0)
    factors = []
    for _ in range(4):
        seen = []
        for batch in loader:
            own = [
                round(DURATIONS[int(name)] * RATE) / int(length)
                for name, length in zip(batch["ids"], batch["num_samples"], strict=True)
            ]
            assert max(own) - min(own) < 1e-3 and batch["input_values"].numel() <= 4.0 * RATE
            assert batch["labels"].tolist() == [[1, 2]] * len(own)
            factors.append(own[0])
            seen += batch["ids"]
        assert sorted(seen) == sorted(map(str, range(40)))
    assert min(factors) < 0.9 and max(factors) > 1.1 and min(factors) > 0.799 and max(factors) < 1.252


def test_what_would_be_too_long_when_slow_is_left_out(cuts):
    loader = loader_of(cuts, augmentation=Augmentation(speed=(0.5, 1.0)), batch_seconds=2.0)
    assert loader.plan.too_long == [str(i) for i, d in enumerate(DURATIONS) if d > 1.0]


def test_frame_labels_follow_the_speed(tmp_path):
    cuts = write_cuts(tmp_path, [0.5])
    cuts.write_text(
        json.dumps(cut_of("0", "0.wav", 8000, {"phones": "a b"}, [["a", 0.1, 0.1], ["b", 0.3, 0.1]]))
    )
    (batch,) = loader_of(cuts, augmentation=Augmentation(speed=(0.8, 0.8)))
    assert batch["num_samples"].tolist() == [10_000]
    (labels,) = batch["frame_labels"].tolist()
    assert len(labels) == num_frames(10_000)
    for frame, label in enumerate(labels):
        centre = frame_to_seconds(frame)
        assert label == (1 if 0.125 <= centre < 0.25 else 2 if 0.375 <= centre < 0.5 else 0), centre


def test_validation_is_never_augmented(cuts):
    with pytest.raises(ValueError, match="`augmentation` must be None without `shuffle`"):
        loader_of(cuts, augmentation=ALL, shuffle=False)


def test_a_state_of_another_speed_is_refused(cuts):
    state = loader_of(cuts).state_dict()
    loader_of(cuts, augmentation=Augmentation(noise_prob=0.5)).load_state_dict(state)
    with pytest.raises(ValueError, match="`state` must come from a loader of the same cuts"):
        loader_of(cuts, augmentation=ALL).load_state_dict(state)
    assert ids_of(loader_of(cuts, augmentation=Augmentation(noise_prob=1))) == ids_of(loader_of(cuts))
