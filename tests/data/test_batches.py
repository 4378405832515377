"""Batches: what is in them, which utterances they hold, and that a run goes on where it stopped."""

import itertools
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unispeech.data.batches import BatchLoader, make_loader
from unispeech.data.collation import CutBatches, load_cut, pad_labels, padding_fraction
from unispeech.data.cuts import CutFiles
from unispeech.data.sampling import BatchPlan, Position, bucket_bounds
from unispeech.errors import ManifestError
from unispeech.frames import frame_to_seconds, num_frames
from unispeech.text import Vocabulary

VOCABULARY = Vocabulary.build(["a b c"], kind="phones")
DURATIONS = [round(0.3 + 0.07 * (i * 7 % 23), 4) for i in range(40)]


def write_cuts(folder: Path, durations: list[float], **custom) -> Path:
    """Recordings of noise and their cuts; every utterance is a speaker of its own loudness."""
    folder.mkdir(exist_ok=True)
    with (folder / "cuts.jsonl").open("w") as file:
        for index, duration in enumerate(durations):
            num_samples = round(duration * 16_000)
            noise = np.random.default_rng(index).normal(0.05, 0.05 + 0.001 * index, num_samples)
            soundfile.write(folder / f"{index}.wav", noise, 16_000)
            fields = {"phones": "a b", "label": "yes" if index % 2 else "no", **custom}
            file.write(json.dumps(cut_of(str(index), f"{index}.wav", num_samples, fields)) + "\n")
    return folder / "cuts.jsonl"


def cut_of(name: str, source: str, num_samples: int, custom: dict, alignment: list | None = None) -> dict:
    duration = num_samples / 16_000
    supervision = {
        "id": name, "recording_id": name, "start": 0.0, "duration": duration, "channel": 0, "custom": custom,
        "text": "ab c",
    }  # fmt: skip
    if alignment is not None:
        supervision["alignment"] = {"phone": alignment}
    recording = {
        "id": name, "sources": [{"type": "file", "channels": [0], "source": source}], "sampling_rate": 16_000,
        "num_samples": num_samples, "duration": duration,
    }  # fmt: skip
    return {
        "id": name, "start": 0.0, "duration": duration, "channel": 0, "supervisions": [supervision],
        "recording": recording, "type": "MonoCut",
    }  # fmt: skip


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> Path:
    return write_cuts(tmp_path_factory.mktemp("cuts"), DURATIONS)


def loader_of(path: Path, **options) -> BatchLoader:
    return make_loader(path, **{"vocabulary": VOCABULARY, "batch_seconds": 6.0, "seed": 3, **options})


def ids_of(batches) -> list[list[str]]:
    return [batch["ids"] for batch in batches]


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


# ---- what is in a batch


def test_a_batch_is_padded_and_normalised_by_utterance(cuts):
    for batch in loader_of(cuts):
        inputs, lengths = batch["input_values"], batch["num_samples"]
        assert inputs.dtype == torch.float32 and inputs.shape == (len(batch["ids"]), int(lengths.max()))
        assert torch.equal(batch["attention_mask"].sum(1), lengths)
        for row, length, name in zip(inputs, lengths, batch["ids"], strict=True):
            assert length == round(DURATIONS[int(name)] * 16_000)
            assert abs(float(row[:length].mean())) < 1e-5 and abs(float(row[:length].var()) - 1) < 1e-3
            assert not row[length:].any()
        assert batch["labels"].tolist() == [[1, 2]] * len(batch["ids"])
        assert padding_fraction(batch) == pytest.approx(1 - int(lengths.sum()) / inputs.numel())
        assert "frame_labels" not in batch and "unreadable" not in batch


def test_a_batch_can_stay_as_loud_as_it_is(cuts):
    batch = next(iter(loader_of(cuts, do_normalize=False)))
    assert float(batch["input_values"].abs().max()) <= 1 and abs(float(batch["input_values"].mean())) > 0.01


def test_classes(cuts):
    batch = next(iter(loader_of(cuts, vocabulary=None, label2id={"no": 0, "yes": 1})))
    assert batch["labels"].tolist() == [int(name) % 2 for name in batch["ids"]]
    assert "labels" not in next(iter(loader_of(cuts, vocabulary=None)))


def test_characters_are_those_of_the_text(cuts):
    characters = Vocabulary.build(["ab c"], kind="characters")
    batch = next(iter(loader_of(cuts, vocabulary=characters)))
    assert characters.join(characters.decode(batch["labels"][0].tolist())) == "ab c"


def test_pad_labels():
    assert pad_labels([[1, 2], [], [3]]).tolist() == [[1, 2], [-100, -100], [3, -100]]
    assert pad_labels([[], []]).tolist() == [[-100], [-100]]


def test_frame_labels_hold_the_phone_at_the_centre(tmp_path):
    cuts = write_cuts(tmp_path, [0.5, 0.4])
    rows = [json.loads(line) for line in cuts.read_text().splitlines()]
    timed = cut_of(
        "0", "0.wav", 8000, {"phones": "a b c"}, [["b", 0.2, 0.1], ["a", 0.1, 0.1], ["qq", 0.4, 0.1]]
    )
    cuts.write_text("\n".join(map(json.dumps, [timed, rows[1]])))
    batch = next(iter(loader_of(cuts, shuffle=False)))
    row = batch["ids"].index("0")
    labels = batch["frame_labels"]
    assert labels.shape == (2, num_frames(8000)) and labels.dtype == torch.int64
    assert set(labels[1 - row].tolist()) == {-100}
    for frame, label in enumerate(labels[row].tolist()):
        centre = frame_to_seconds(frame)
        # 0.3 to 0.4 s is a gap; what the vocabulary lacks is not known
        expected = 1 if 0.1 <= centre < 0.2 else 2 if 0.2 <= centre < 0.3 else -100 if centre >= 0.4 else 0
        assert label == expected, centre


def test_frame_labels_follow_the_geometry_of_the_model(tmp_path):
    cuts = write_cuts(tmp_path, [0.5])
    cuts.write_text(json.dumps(cut_of("0", "0.wav", 8000, {"phones": "a"}, [["a", 0.25, 0.25]])))
    batch = next(iter(loader_of(cuts, kernels=(10, 8), strides=(5, 8))))
    assert batch["frame_labels"].shape == (1, num_frames(8000, (10, 8), (5, 8)))
    assert abs(float((batch["frame_labels"] == 1).float().mean()) - 0.5) < 0.01


def test_utterances_without_targets(cuts, tmp_path):
    unlabelled = write_cuts(tmp_path, [0.5, 0.6], phones=None, label=None)
    with pytest.raises(
        ManifestError, match=r"0: cut must have phones, but has none; prepare the corpus with the same"
    ):
        loader_of(unlabelled)
    with pytest.raises(ManifestError, match="0: cut must have a label, but has none"):
        loader_of(unlabelled, vocabulary=None, label2id={"no": 0})
    batch = next(iter(loader_of([cuts, unlabelled], allow_unlabelled=True, num_buckets=1, batch_seconds=100)))
    assert sorted(map(tuple, batch["labels"].tolist()))[:3] == [(-100, -100), (-100, -100), (1, 2)]
    batch = next(iter(loader_of(unlabelled, vocabulary=None, label2id={"no": 0}, allow_unlabelled=True)))
    assert set(batch["labels"].tolist()) == {-100}


def test_targets_that_are_not_known_are_named(cuts):
    with pytest.raises(
        ManifestError,
        match=r"cuts\.jsonl: phones must be in the vocabulary, but these are not: "
        r"b \(40 times, first in 0\); prepare the corpus with --vocabulary",
    ):
        loader_of(cuts, vocabulary=Vocabulary.build(["a"], kind="phones"))
    with pytest.raises(ManifestError, match="1: label must be one of the classes, but is 'yes'"):
        loader_of(cuts, vocabulary=None, label2id={"no": 0})
    with pytest.raises(ValueError, match="`vocabulary` and `label2id` must not be given together"):
        CutBatches(vocabulary=VOCABULARY, label2id={"no": 0})


def test_segments_are_read_alone(tmp_path):
    time = np.arange(48_000) / 48_000
    soundfile.write(
        tmp_path / "x.flac", np.stack([np.sin(2 * np.pi * 440 * time), np.zeros(48_000)], 1), 48_000
    )
    cut = cut_of("x", "x.flac", 16_000, {})
    cut["recording"].update(sampling_rate=48_000, num_samples=48_000)
    whole, middle = (tmp_path / f"{name}.jsonl" for name in ("whole", "middle"))
    whole.write_text(json.dumps(cut))
    middle.write_text(json.dumps({**cut, "start": 0.25, "duration": 0.5}))
    (one,), (other,) = CutFiles(whole), CutFiles(middle)
    assert len(load_cut(other)) == 8000
    # resampling sees silence where the neighbours were
    np.testing.assert_allclose(load_cut(one)[4100:11_900], load_cut(other)[100:7900], atol=1e-3)


def test_a_recording_that_changed_is_not_read(tmp_path):
    path = write_cuts(tmp_path, [0.5])
    soundfile.write(tmp_path / "0.wav", np.ones(80_000), 16_000)
    (cut,) = CutFiles(path)
    with pytest.raises(
        ManifestError, match=r"0\.wav: utterance must last 0\.500 s as in the cuts, but lasts 5\.000 s"
    ):
        load_cut(cut)


def test_segments_of_what_is_broken_are_refused(tmp_path):
    path = write_cuts(tmp_path, [0.5])
    row = {**json.loads(path.read_text()), "start": 0.1, "duration": 0.3}
    path.write_text(json.dumps(row))
    (cut,) = CutFiles(path)
    soundfile.write(tmp_path / "0.wav", np.full(8000, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(ManifestError, match=r"0\.wav: samples must be finite, but are not"):
        load_cut(cut)
    (tmp_path / "0.wav").write_text("text")
    with pytest.raises(ManifestError, match=r"0\.wav: must be audio"):
        load_cut(cut)


# ---- which utterances go together


@pytest.mark.parametrize("num_buckets", [1, 4, 30, None])
def test_an_epoch_holds_every_utterance_once_within_the_limit(cuts, num_buckets):
    loader = loader_of(cuts, num_buckets=num_buckets, batch_utterances=5)
    for _ in range(3):
        batches = list(loader)
        assert sorted(itertools.chain(*ids_of(batches))) == sorted(map(str, range(40)))
        for batch in batches:
            assert batch["input_values"].numel() <= 6.0 * 16_000 and len(batch["ids"]) <= 5
    assert (loader.plan.num_utterances, loader.plan.duration) == (40, pytest.approx(sum(DURATIONS)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    durations=st.lists(st.floats(0.05, 12.0), min_size=1, max_size=60),
    batch_seconds=st.floats(1.0, 30.0),
    num_buckets=st.integers(1, 40),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_plans_lose_and_repeat_nothing(durations, batch_seconds, num_buckets, world_size, seed):
    from lhotse.cut import MonoCut

    made = [MonoCut(id=str(i), start=0, duration=d, channel=0) for i, d in enumerate(durations)]
    fitting = sorted(cut.id for cut in made if cut.duration <= batch_seconds)
    if not fitting:
        with pytest.raises(ManifestError, match=r"`cuts` must hold an utterance of 0 to .* s, but hold none"):
            BatchPlan(made, batch_seconds=batch_seconds)
        return
    plan = BatchPlan(made, batch_seconds=batch_seconds, num_buckets=num_buckets, seed=seed)
    assert len(plan.too_long) == len(made) - len(fitting)
    ends, seen = set(), []
    for rank in range(world_size):
        for position, batch in plan.share(Position(), rank, world_size):
            if batch is None:
                ends.add(position)
            else:
                seen += [cut.id for cut in batch.cuts]
                assert len(batch.cuts) * max(cut.duration for cut in batch.cuts) <= batch_seconds * (1 + 1e-9)
    assert sorted(seen) == fitting and len(ends) == 1


def test_epochs_differ_and_seeds_count(cuts):
    loader = loader_of(cuts)
    first, second = ids_of(loader), ids_of(loader)
    assert first != second and loader.epoch == 2
    assert ids_of(loader_of(cuts)) == first
    assert ids_of(loader_of(cuts, seed=4)) != first


def test_validation_is_the_same_pass_every_time(cuts):
    loader = loader_of(cuts, shuffle=False)
    next(iter(loader))
    assert ids_of(loader) == ids_of(loader)


def test_buckets_hold_padding_down(tmp_path):
    from lhotse.cut import MonoCut

    rng = np.random.default_rng(0)
    made = [MonoCut(id=str(i), start=0, duration=d, channel=0) for i, d in enumerate(rng.gamma(4, 1, 2000))]
    plan = BatchPlan(made, batch_seconds=40)
    batches = [drawn.cuts for drawn in plan.epoch(0)]
    padded = sum(len(batch) * max(cut.duration for cut in batch) for batch in batches)
    assert 1 - plan.duration / padded < 0.05


def test_bucket_bounds():
    assert bucket_bounds(np.array([1.0, 1, 1, 1, 2, 2, 4]), 3) == [1.0, 2.0, 4.0]
    assert bucket_bounds(np.array([2.0]), 5) == [2.0]


def test_what_does_not_fit_is_listed(cuts, caplog):
    with caplog.at_level(logging.WARNING):
        loader = loader_of(cuts, min_seconds=0.4, max_seconds=1.5)
    short = [str(i) for i, d in enumerate(DURATIONS) if d < 0.4]
    long = [str(i) for i, d in enumerate(DURATIONS) if d > 1.5]
    assert (loader.plan.too_short, loader.plan.too_long) == (short, long) and short and long
    assert f"{len(long)} utterances are left out because they are too long: {long[0]}," in caplog.text
    assert loader.plan.num_utterances == 40 - len(short) - len(long)


def test_a_folder_of_several_sets_of_cuts_names_them(tmp_path):
    for part in ("train", "dev"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "cuts.jsonl.gz").touch()
    with pytest.raises(FileNotFoundError, match=rf"; there is {tmp_path}/dev and {tmp_path}/train"):
        make_loader(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_seconds": 0}, "`batch_seconds` must be positive, but is 0"),
        ({"num_buckets": 0}, "`num_buckets` must be positive, but is 0"),
        ({"batch_utterances": -1}, "`batch_utterances` must be positive, but is -1"),
        (
            {"batch_seconds": 0.1},
            "jsonl: must hold an utterance of 0 to 0.1 s, but hold none; 0 are shorter and 40 longer; see",
        ),
        ({"rank": 2, "world_size": 2}, r"`rank` must lie in \[0, 2\), but is 2"),
        ({"num_workers": -1}, "`num_workers` must be at least 0, but is -1"),
    ],
)
def test_settings_out_of_range(cuts, options, message):
    with pytest.raises(ValueError, match=message):
        loader_of(cuts, **options)


# ---- several processes


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_what_one_process_sees(cuts, world_size):
    def endless(loader: BatchLoader):
        while True:
            yield from loader

    alone = ids_of(itertools.islice(endless(loader_of(cuts)), 36))
    ranks = [endless(loader_of(cuts, rank=rank, world_size=world_size)) for rank in range(world_size)]
    together = [next(rank)["ids"] for _ in range(36 // world_size) for rank in ranks]
    assert together == alone
    passes = [
        ids_of(loader_of(cuts, rank=r, world_size=world_size, shuffle=False)) for r in range(world_size)
    ]
    assert sorted(itertools.chain(*itertools.chain(*passes))) == sorted(map(str, range(40)))


# ---- resuming


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_goes_on_with_the_very_next_batch(cuts, num_workers):
    whole = loader_of(cuts)
    num_batches = [len(ids_of(whole)) for _ in range(2)]
    for consumed in (0, 1, 3, num_batches[0] - 1, num_batches[0], num_batches[0] + 2):
        loader = loader_of(cuts, num_workers=num_workers)
        stream = itertools.chain.from_iterable(itertools.repeat(loader))
        for _ in range(consumed):
            next(stream)
        state = json.loads(json.dumps(loader.state_dict()))
        expected = list(itertools.islice(stream, num_batches[0]))
        resumed = loader_of(cuts, num_workers=0)
        resumed.load_state_dict(state)
        again = itertools.islice(itertools.chain.from_iterable(itertools.repeat(resumed)), num_batches[0])
        assert all(equal(one, other) for one, other in zip(expected, again, strict=True)), consumed
        assert resumed.state_dict() == loader.state_dict()


def test_a_process_of_two_goes_on_across_the_end_of_an_epoch(cuts):
    def stream(loader: BatchLoader):
        return itertools.chain.from_iterable(itertools.repeat(loader))

    for rank in (0, 1):
        options = {"rank": rank, "world_size": 2}
        expected = ids_of(itertools.islice(stream(loader_of(cuts, **options)), 24))
        for consumed in range(0, 20, 3):
            loader = loader_of(cuts, **options)
            batches = stream(loader)
            for _ in range(consumed):
                next(batches)
            resumed = loader_of(cuts, **options)
            resumed.load_state_dict(loader.state_dict())
            assert ids_of(itertools.islice(stream(resumed), 24 - consumed)) == expected[consumed:]


def test_a_state_of_other_data_is_refused(cuts, tmp_path):
    state = loader_of(cuts).state_dict()
    other = write_cuts(tmp_path, DURATIONS[:-1])
    for changed in (loader_of(other), loader_of(cuts, batch_seconds=7.0), loader_of(cuts, seed=4)):
        with pytest.raises(
            ValueError, match="`state` must come from a loader of the same cuts, seed and batch settings"
        ):
            changed.load_state_dict(state)
    loader_of(cuts, num_workers=1).load_state_dict(state)


def test_loading_draws_nothing_from_the_generators_of_others(cuts):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for num_workers in (0, 1):
        list(loader_of(cuts, num_workers=num_workers))
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


# ---- broken recordings


def test_workers_send_their_batches_where_files_and_shared_memory_are_limited(cuts):
    """What a worker cannot send nobody would ever get, so a failure here is a timeout."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
from unispeech.data.batches import make_loader
batches = list(make_loader({str(cuts)!r}, label2id={{"no": 0, "yes": 1}}, num_workers=1))
assert max(batch["input_values"].nbytes for batch in batches) > 20_000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_hear_no_signals_of_the_group(cuts):
    loader = loader_of(cuts, num_workers=1)
    next(iter(loader))
    [worker] = multiprocessing.active_children()
    assert os.getpgid(worker.pid) == worker.pid != os.getpgrp()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_recording_is_left_out_counted_and_named(tmp_path, caplog, num_workers):
    path = write_cuts(tmp_path, DURATIONS)
    (tmp_path / "5.wav").unlink()
    (tmp_path / "7.wav").write_text("text")
    loader = loader_of(path, num_workers=num_workers)
    with caplog.at_level(logging.WARNING):
        names = [sorted(itertools.chain(*ids_of(loader))) for _ in range(2)]
    assert names == [sorted(str(i) for i in range(40) if i not in {5, 7})] * 2
    assert loader.unreadable.keys() == {"5", "7"} and loader.num_unreadable == 4
    assert caplog.text.count("5: left out, its audio cannot be read") == 1
    assert "must be audio" in loader.unreadable["7"]


def test_a_batch_of_which_nothing_is_left_is_passed_over(tmp_path):
    path = write_cuts(tmp_path, [0.5, 2.0])
    (tmp_path / "1.wav").unlink()
    loader = loader_of(path, batch_utterances=1)
    assert ids_of(loader) == [["0"]] and loader.epoch == 1
    (tmp_path / "0.wav").unlink()
    with pytest.raises(
        ManifestError, match=r"one recording of 2 must be readable, but none is; this one: .* no such file"
    ):
        list(loader)
    half = loader_of(path, batch_utterances=1, world_size=2)
    with pytest.raises(
        ManifestError, match=r"a recording must be readable, but none is; this one: .* no such file"
    ):
        list(half)


# ---- real speech


@pytest.mark.shared_data
def test_shared_speech_in_batches(shared_dir, tmp_path):
    from unispeech.data.corpora import Preparation, prepare_corpus
    from unispeech.data.selection import Condition

    where = (Condition.parse("dataset=speechocean762"),)
    source = shared_dir / "data" / "speech" / "manifest.jsonl"
    report = prepare_corpus(source, tmp_path, Preparation(part="dev", where=where))
    loader = make_loader(tmp_path, vocabulary=Vocabulary.load(tmp_path), batch_seconds=60)
    seconds = padding = 0.0
    for batch in loader:
        seconds += float(batch["num_samples"].sum()) / 16_000
        padding += padding_fraction(batch) * batch["input_values"].numel() / 16_000
    assert seconds == pytest.approx(report.kept["en"].duration, abs=0.1)
    assert padding / (padding + seconds) < 0.1


KILLED_IN_AN_EPOCH = """
import multiprocessing, os, signal, sys
from unispeech.data.batches import make_loader
loader = make_loader(sys.argv[1], batch_seconds=1.0, num_workers=1)
next(iter(loader))
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_outlive_a_run_that_is_killed(tmp_path):
    cuts = write_cuts(tmp_path / "cuts", [1.0] * 40)
    script = [sys.executable, "-c", KILLED_IN_AN_EPOCH, str(cuts)]
    # The worker writes to the same pipe, which is at its end only when both processes are.
    killed = subprocess.run(script, stdout=subprocess.PIPE, timeout=60)
    assert killed.stdout.split()
    assert killed.returncode == -signal.SIGKILL
