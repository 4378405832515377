import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unispeech.data import synthesis
from unispeech.data.cuts import CutFiles
from unispeech.data.espeak_speakers import choose_speakers
from unispeech.data.synthesis import synthesise_corpus
from unispeech.data.synthesis_plan import Size, SynthesisSettings, divide, plan_shard
from unispeech.data.synthesis_shard import make_shard
from unispeech.errors import ManifestError

TEXT = """\
The river bends twice before the old mill.
Nobody answered when the teacher called.
Fresh bread cools on the kitchen table.
A small red kite danced over the beach.
Please bring two chairs into the garden.
Her brother plays the cello every evening.
Snow covered the roofs of the village.
The judge asked a very simple question.
We saw five ships beyond the harbour wall.
Green tea tastes better in a thin cup.
His shoes were wet from the morning grass.
Turn left at the church and keep walking.
"""


def settings(**changes: object) -> SynthesisSettings:
    people = {
        name: choose_speakers(variants, voice="en", defaults=(), installed=variants, seed=5)
        for name, variants in (("speakers", ["f2", "m1", "klatt"]), ("unseen_speakers", ["f4", "m3"]))
    }
    return SynthesisSettings(**({"voice": "en", "seed": 5, "shard_size": 4, **people} | changes))


@pytest.fixture
def text(tmp_path: Path, has_espeak: None) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_corpus_is_what_its_cuts_say(text: Path, tmp_path: Path) -> None:
    noisy = settings(dev=0.25, noise_snr_db=(5, 20), noise_prob=0.5, reverb_prob=0.5)
    report = synthesise_corpus([text], tmp_path / "corpus", noisy, Size(utterances=12))
    assert {name: part.num_utterances for name, part in report.parts.items()} == {"train": 9, "dev": 3}
    assert report.num_sentences == 12 and not report.left_out
    parts = {name: list(CutFiles(tmp_path / "corpus" / name)) for name in ("train", "dev")}
    for cut in [*parts["train"], *parts["dev"]]:
        (supervision,) = cut.supervisions
        info = soundfile.info(cut.recording.sources[0].source)
        assert (info.samplerate, info.channels, info.frames) == (16000, 1, cut.recording.num_samples)
        assert cut.duration == info.frames / 16000 == supervision.duration
        phones = supervision.alignment["phone"]
        assert " ".join(item.symbol for item in phones) == supervision.custom["phones"]
        edges = [edge for item in phones for edge in (item.start, item.end)]
        assert edges == sorted(edges) and all(item.duration > 0 for item in phones)
        assert edges[0] >= 0.05 and cut.duration - edges[-1] >= 0.05
        words = supervision.alignment["word"]
        assert " ".join(item.symbol for item in words) == supervision.text.strip(".")
        assert (words[0].start, words[-1].end) == (edges[0], edges[-1])
        assert supervision.language == "en"
    texts, speakers = (
        {name: {getattr(c.supervisions[0], what) for c in cuts} for name, cuts in parts.items()}
        for what in ("text", "speaker")
    )
    assert len(texts["dev"]) == 3 and not texts["train"] & texts["dev"]
    assert speakers["train"] <= {"espeak-f2", "espeak-m1", "espeak-klatt"}
    assert speakers["dev"] <= {"espeak-f4", "espeak-m3"}


def test_clean_speech_is_silent_between_its_phones(text: Path, tmp_path: Path) -> None:
    synthesise_corpus([text], tmp_path / "corpus", settings(), Size(utterances=4))
    for cut in CutFiles(tmp_path / "corpus" / "train"):
        samples, _ = soundfile.read(cut.recording.sources[0].source)
        phones = cut.supervisions[0].alignment["phone"]
        first, last = round(phones[0].start * 16000), round(phones[-1].end * 16000)
        assert 0.01 < np.abs(samples).max() <= 0.99
        quiet = 0.02 * np.abs(samples).max()
        assert np.abs(samples[: first - 400]).max() < quiet and np.abs(samples[last + 1000 :]).max() < quiet
        assert np.abs(samples[first : first + 3200]).max() > quiet


def test_the_seed_gives_the_bytes_whatever_the_place_the_time_and_the_jobs(
    text: Path, tmp_path: Path
) -> None:
    noisy = settings(noise_snr_db=(5, 20), reverb_prob=0.5, dev=0.2)
    synthesise_corpus([text], tmp_path / "one", noisy, Size(utterances=10))
    time.sleep(1.1)  # espeak-ng would start its noise from the clock
    synthesise_corpus([text], tmp_path / "elsewhere" / "two", noisy, Size(utterances=10), jobs=3)
    first = digest(tmp_path / "one")
    assert len(first) > 12 and first == digest(tmp_path / "elsewhere" / "two")
    synthesise_corpus([text], tmp_path / "three", settings(seed=6), Size(utterances=10))
    third = digest(tmp_path / "three")
    assert first["train/shard-00000/en-train-000000.flac"] != third["train/shard-00000/en-train-000000.flac"]


def test_an_interrupted_run_goes_on_and_a_larger_size_extends(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, corpus = tmp_path / "whole", tmp_path / "corpus"
    synthesise_corpus([text], whole, settings(), Size(utterances=12))
    synthesise_corpus([text], corpus, settings(), Size(utterances=5))
    assert len(list(corpus.rglob("*.flac"))) == 5
    kept = (corpus / "train" / "shard-00000" / "en-train-000000.flac").stat().st_mtime_ns
    shutil.rmtree(corpus / "train" / "shard-00001")
    torn = corpus / "train" / ".shard-00001.unfinished"  # what a killed run leaves
    torn.mkdir()
    (torn / "en-train-000099.flac").write_bytes(b"half")
    heard = []
    synthesise_corpus(
        [text], corpus, settings(), Size(utterances=12), on_progress=lambda *now: heard.append(now)
    )
    assert digest(corpus) == digest(whole)
    assert (corpus / "train" / "shard-00000" / "en-train-000000.flac").stat().st_mtime_ns == kept
    assert [(part, count) for part, _, count in heard] == [("train", 4), ("train", 8), ("train", 12)]

    synthesise_corpus([text], corpus, settings(), Size(utterances=5))
    assert len(list(corpus.rglob("*.flac"))) == 5
    synthesise_corpus([text], corpus, settings(), Size(utterances=7))
    assert len(list(CutFiles(corpus / "train"))) == len(list(corpus.rglob("*.flac"))) == 7
    synthesise_corpus([text], corpus, settings(), Size(utterances=12))
    assert digest(corpus) == digest(whole)


def test_hours_are_reached_by_taking_sentences_again(text: Path, tmp_path: Path) -> None:
    report = synthesise_corpus([text], tmp_path / "corpus", settings(), Size(seconds=60.0))
    part = report.parts["train"]
    assert 60 <= part.seconds < 66 and part.num_utterances > 12
    cuts = list(CutFiles(part.cuts))
    assert len({cut.id for cut in cuts}) == len(cuts) == part.num_utterances
    assert len({cut.supervisions[0].text for cut in cuts}) == 12


def test_sentences_that_switch_language_are_left_out_and_counted(tmp_path: Path, has_espeak: None) -> None:
    text = tmp_path / "fr.txt"
    text.write_text("La petite maison rouge.\nLe package contient des headers.\n", encoding="utf-8")
    french = settings(
        voice="fr",
        speakers=choose_speakers(["f1"], voice="fr", defaults=(), installed=["f1"], seed=1),
    )
    report = synthesise_corpus([text], tmp_path / "corpus", french, Size(utterances=2))
    assert report.parts["train"].left_out == {"text must stay in language fr, but switches": 2}
    assert {c.supervisions[0].text for c in CutFiles(report.parts["train"].cuts)} == {
        "La petite maison rouge."
    }
    text.write_text("Le package contient des headers.\n", encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"must have speakable sentences, but has none \(4 times text must"
    ):
        synthesise_corpus([text], tmp_path / "nothing", french, Size(utterances=2))


def test_what_is_not_heard_is_left_out_and_counted(tmp_path: Path, has_espeak: None) -> None:
    (part,) = divide(["...", "Good morning."], settings())
    shard = make_shard(tmp_path / "shard", plan_shard(part, 0, settings(shard_size=2)), voice="en")
    assert [cut["supervisions"][0]["text"] for cut in shard.cuts] == ["Good morning."]
    assert shard.left_out == {"text must be heard, but is not": 1}


def test_speed(text: Path, tmp_path: Path) -> None:
    """Processor time of all processes, so that a busy machine does not matter."""
    synthesise_corpus([text], tmp_path / "first", settings(), Size(utterances=1))  # imports lhotse
    before = os.times()
    report = synthesise_corpus([text], tmp_path / "corpus", settings(shard_size=24), Size(utterances=24))
    factor = report.parts["train"].seconds / (sum(os.times()[:4]) - sum(before[:4]))
    print(f"synthesise: {factor:.0f} times real time")
    assert factor > 50


def test_another_corpus_is_not_written_over(text: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    synthesise_corpus([text], corpus, settings(), Size(utterances=1))
    with pytest.raises(
        ValueError, match="corpus: must be made by the same settings, but seed differ; choose"
    ):
        synthesise_corpus([text], corpus, settings(seed=6), Size(utterances=1))
    (corpus / "synthesis.json").unlink()
    with pytest.raises(
        ValueError, match="must be new, empty or a corpus of this command, but holds other files"
    ):
        synthesise_corpus([text], corpus, settings(), Size(utterances=1))


def test_what_a_crash_broke_is_made_again_or_named(text: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    synthesise_corpus([text], corpus, settings(), Size(utterances=4))
    whole = digest(corpus)
    (corpus / "train" / "shard-00000" / "shard.json").write_text("")
    synthesise_corpus([text], corpus, settings(), Size(utterances=4))
    (corpus / "train" / "shard-00000" / "cuts.jsonl.gz").write_bytes(b"\x1f\x8b")
    synthesise_corpus([text], corpus, settings(), Size(utterances=4))
    assert digest(corpus) == whole
    (corpus / "synthesis.json").write_text("")
    with pytest.raises(ManifestError, match=r"synthesis\.json: must say what the corpus was made of, but is"):
        synthesise_corpus([text], corpus, settings(), Size(utterances=4))


def test_what_cannot_be_made_is_said(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`jobs` must be at least 1, but is 0"):
        synthesise_corpus([text], tmp_path / "c", settings(), Size(utterances=1), jobs=0)
    with pytest.raises(ValueError, match="`size` must be positive and finite"):
        synthesise_corpus([text], tmp_path / "c", settings(), Size(seconds=0.0))
    text.write_text("Just one sentence.\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="must have sentences for two parts, but has 1 in all"):
        synthesise_corpus([text], tmp_path / "c", settings(dev=0.5), Size(utterances=2))
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'unispeech\[train\]'"):
        synthesise_corpus([text], tmp_path / "c", settings(), Size(utterances=1))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"noise_prob": 1.5}, r"`noise_prob` must lie in \[0, 1\], but is 1.5"),
        ({"reverb_prob": -0.1}, r"`reverb_prob` must lie in \[0, 1\], but is -0.1"),
        ({"dev": 1.0}, r"`dev` must lie in \[0, 1\), but is 1.0"),
        ({"seed": -1}, "`seed` must be at least 0, but is -1"),
        ({"rate_range": (200, 100)}, r"`rate_range` must rise within \[80, 450\], but is \[200, 100\]"),
        ({"num_words": (0, 4)}, r"`num_words` must rise from at least 1, but is \[0, 4\]"),
        ({"noise_snr_db": (9, 3)}, r"`noise_snr_db` must rise and be finite, but is \[9, 3\]"),
        ({"noise_snr_db": (3, float("inf"))}, r"`noise_snr_db` must rise and be finite, but is \[3, inf\]"),
        (
            {"noise_snr_db": (float("nan"),) * 2},
            r"`noise_snr_db` must rise and be finite, but is \[nan, nan\]",
        ),
        ({"dev": 0.1, "unseen_speakers": ()}, "`unseen_speakers` must not be empty where `dev` is not 0"),
        ({"shard_size": 0}, "`shard_size` must be at least 1, but is 0"),
    ],
)
def test_settings_have_limits(changes: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        settings(**changes)


def test_nobody_speaks_both_parts() -> None:
    with pytest.raises(
        ValueError, match="`unseen_speakers` must share no variant with `speakers`, but share f2"
    ):
        settings(dev=0.1, unseen_speakers=settings().speakers[:1])


def test_a_plan_depends_on_its_number_alone() -> None:
    plan = settings(
        noise_snr_db=(0, 10), noise_prob=0.5, reverb_prob=0.5, shard_size=300, rate_range=(120, 220)
    )
    (part,) = divide(TEXT.splitlines(), plan)
    first, second = list(plan_shard(part, 0, plan)), list(plan_shard(part, 1, plan))
    assert list(plan_shard(part, 1, plan)) == second
    assert len({u.id for u in first + second}) == 600
    assert 0.4 < np.mean([u.snr_db is not None for u in first]) < 0.6
    assert 0.4 < np.mean([u.is_reverberant for u in first]) < 0.6
    assert all(0 <= u.snr_db <= 10 for u in first if u.snr_db is not None)
    assert all(120 <= u.rate <= 220 for u in first) and len({u.rate for u in first}) > 20
    assert [u.text for u in first[:12]] != [u.text for u in first[12:24]]
    assert {u.text for u in first[:12]} == {u.text for u in first[12:24]}


def test_the_record_says_what_it_was_made_of(text: Path, tmp_path: Path) -> None:
    synthesise_corpus([text], tmp_path / "corpus", settings(), Size(utterances=1))
    record = json.loads((tmp_path / "corpus" / "synthesis.json").read_text("utf-8"))
    assert record["seed"] == 5 and record["speakers"][0]["variant"] == "f2" and record["espeak-ng"]
