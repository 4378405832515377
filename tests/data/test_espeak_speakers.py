import pytest

from unispeech.data.espeak import EspeakProcess
from unispeech.data.espeak_speakers import TRAIN_VARIANTS, UNSEEN_VARIANTS, choose_speakers

KNOWN = ("f1", "f2", "m1")


def choose(choice: object, seed: int = 1, **more: object) -> tuple:
    settings = {"voice": "en", "defaults": KNOWN, "installed": (*KNOWN, "m9"), "seed": seed} | more
    return choose_speakers(choice, **settings)


def test_those_kept_for_testing_are_not_trained_on() -> None:
    assert not set(TRAIN_VARIANTS) & set(UNSEEN_VARIANTS)
    assert len(set(TRAIN_VARIANTS)) == len(TRAIN_VARIANTS) >= 40
    assert len(set(UNSEEN_VARIANTS)) == len(UNSEEN_VARIANTS) >= 10
    shunned = (
        "whisper",
        "croak",
        "robosoft",
        "Demonic",
        "UniRobot",
        "announcer",
        "fast",
        "anikaRobot",
        "zac",
    )
    assert not [v for v in (*TRAIN_VARIANTS, *UNSEEN_VARIANTS) if v.startswith((*shunned, "Tweaky"))]


def test_espeak_has_all_of_them(has_espeak: None) -> None:
    with EspeakProcess("en") as process:
        assert set(TRAIN_VARIANTS) | set(UNSEEN_VARIANTS) <= set(process.variants)


def test_all_of_the_defaults_that_are_installed() -> None:
    assert {speaker.variant for speaker in choose(None)} == set(KNOWN)
    assert {speaker.variant for speaker in choose(None, installed=("m1",))} == {"m1"}


def test_a_number_beyond_the_variants_takes_them_again_with_another_pitch() -> None:
    speakers = choose(7)
    names = [speaker.name for speaker in speakers]
    assert len(set(names)) == 7 and {s.variant for s in speakers} == set(KNOWN)
    assert names[3] == f"{names[0]}-2" and names[6] == f"{names[0]}-3"
    assert len({(s.pitch, s.pitch_range) for s in speakers}) > 5
    assert choose(7) == speakers and choose(2) == speakers[:2] and choose(7, seed=2) != speakers


def test_names_may_have_a_voice_of_their_own() -> None:
    bare, british = choose(["m9", "en-gb+f2"])
    assert (bare.voice, bare.variant, british.voice, british.variant) == ("en", "m9", "en-gb", "f2")
    assert bare == choose(["m9"])[0]


@pytest.mark.parametrize(
    ("choice", "line"),
    [
        (0, "`speakers` must be at least 1, but is 0"),
        ([], "`speakers` must name each speaker once, but is empty"),
        (["f1", "f1"], "`speakers` must name each speaker once, but is f1,f1"),
        (["en+M1"], "`speakers` must be variants of espeak-ng, but hold 'M1'; did you mean 'm1'"),
    ],
)
def test_bad_choices(choice: object, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        choose(choice)


def test_a_seed_is_not_negative() -> None:
    with pytest.raises(ValueError, match="`seed` must be at least 0, but is -1"):
        choose_speakers(None, voice="en", defaults=["f1"], installed=["f1"], seed=-1)
