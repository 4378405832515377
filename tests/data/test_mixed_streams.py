"""Mixed streams: shares, crops, epochs, resuming, and what is said of streams that cannot be used."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_batches import DURATIONS, VOCABULARY, cut_of, equal, ids_of, loader_of, write_cuts

from unispeech.data.augmentation import Augmentation
from unispeech.data.batches import BatchLoader
from unispeech.data.streams import Stream, make_mixed_loader, next_stream
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary

RATE = 16_000


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    return write_cuts(tmp_path_factory.mktemp("labelled"), DURATIONS)


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Unlabelled recordings whose samples say where they stand."""
    folder = tmp_path_factory.mktemp("unlabelled")
    rows = []
    for index, duration in enumerate([0.2, 0.9, 1.0, 1.5, 2.5, 3.0, 4.0, 7.0] * 3):
        num_samples = round(duration * RATE)
        ramp = np.arange(num_samples) / 2**17
        soundfile.write(folder / f"{index}.wav", ramp, RATE, subtype="FLOAT")
        rows.append(json.dumps(cut_of(f"u{index}", f"{index}.wav", num_samples, {}, [["a", 0.0, 0.1]])))
    (folder / "cuts.jsonl").write_text("\n".join(rows))
    return folder / "cuts.jsonl"


def mixed_of(*streams: Stream, **options) -> BatchLoader:
    return make_mixed_loader(
        streams, **{"vocabulary": VOCABULARY, "batch_seconds": 6.0, "seed": 3, **options}
    )


def pair(cuts, ramps, share: float = 0.5) -> tuple[Stream, Stream]:
    return (
        Stream(cuts=cuts, share=1 - share, is_labelled=True),
        Stream(cuts=ramps, share=share, is_labelled=False),
    )


def endless(loader: BatchLoader):
    return itertools.chain.from_iterable(itertools.repeat(loader))


def is_unlabelled(batch) -> bool:
    return batch["ids"][0].startswith("u")


# ---- crops


def test_crops_leave_no_padding_and_lose_no_long_utterance(ramps):
    loader = loader_of(ramps, crop=True, min_seconds=0.5, max_seconds=2.0, batch_seconds=6.0)
    places = []
    for _ in range(4):
        seen = []
        for batch in loader:
            assert batch["attention_mask"].all() and batch["input_values"].numel() <= 6.0 * RATE
            assert batch["input_values"].shape[1] <= 2.0 * RATE
            assert batch["labels"].tolist() == [[-100]] * len(batch["ids"])
            assert "frame_labels" not in batch
            seen += batch["ids"]
        assert sorted(seen) == sorted(f"u{i}" for i in range(24) if i % 8)
    assert loader.plan.too_long == [] and len(loader.plan.too_short) == 3
    loader = loader_of(ramps, crop=True, max_seconds=1.0, do_normalize=False)
    for batch in itertools.islice(endless(loader), 30):
        starts = batch["input_values"][:, 0] * 2**17
        ends = batch["input_values"][:, -1] * 2**17
        assert torch.equal(starts, starts.round())  # the segment itself, not a resampled neighbour
        assert ((ends - starts).round() + 1 == batch["input_values"].shape[1]).all()
        places += [
            (float(start), name) for start, name in zip(starts, batch["ids"], strict=True) if name == "u7"
        ]
    # a 7 s recording is cut to 1 s anywhere in it
    assert len({place for place, _ in places}) == len(places) > 3 and max(places)[0] > 2 * RATE


@pytest.mark.parametrize("num_workers", [0, 2])
def test_crops_are_the_same_with_any_number_of_workers_and_after_a_stop(ramps, num_workers):
    options = {"crop": True, "max_seconds": 2.0, "augmentation": Augmentation(speed=(0.9, 1.1))}
    expected = list(itertools.islice(endless(loader_of(ramps, **options)), 25))
    assert all(batch["attention_mask"].all() for batch in expected)
    loader = loader_of(ramps, **options, num_workers=num_workers)
    stream = endless(loader)
    seen = list(itertools.islice(stream, 7))
    resumed = loader_of(ramps, **options, num_workers=num_workers)
    resumed.load_state_dict(loader.state_dict())
    seen += itertools.islice(endless(resumed), 18)
    assert all(equal(one, other) for one, other in zip(expected, seen, strict=True))


def test_crops_at_other_sample_rates_are_equally_long(tmp_path):
    rows = []
    for index, rate in enumerate((8000, 44_100, 22_050, 16_000)):
        soundfile.write(tmp_path / f"{index}.wav", np.random.default_rng(0).normal(0, 0.1, 3 * rate), rate)
        row = cut_of(str(index), f"{index}.wav", 48_000, {})
        row["recording"].update(sampling_rate=rate, num_samples=3 * rate)
        rows.append(json.dumps(row))
    (tmp_path / "cuts.jsonl").write_text("\n".join(rows))
    loader = loader_of(tmp_path / "cuts.jsonl", crop=True, max_seconds=1.2345, batch_seconds=10.0)
    for batch in itertools.islice(endless(loader), 4):
        assert len(batch["ids"]) == 4 and batch["attention_mask"].all()
        assert abs(batch["input_values"].shape[1] - 1.2345 * RATE) < 3


def test_crops_of_recordings_shorter_than_they_claim_leave_no_padding(ramps, tmp_path):
    rows = []
    for index, num_samples in enumerate((16_000, 15_500, 15_000)):
        soundfile.write(tmp_path / f"{index}.wav", np.linspace(0, 0.1, num_samples), RATE)
        rows.append(json.dumps(cut_of(str(index), f"{index}.wav", 16_000, {})))
    (tmp_path / "cuts.jsonl").write_text("\n".join(rows))
    (batch,) = loader_of(tmp_path / "cuts.jsonl", crop=True)
    assert batch["num_samples"].tolist() == [15_000] * 3 and batch["attention_mask"].all()


def test_crops_without_a_vocabulary_and_with_classes(ramps):
    assert "labels" not in next(iter(loader_of(ramps, crop=True, vocabulary=None)))
    batch = next(iter(loader_of(ramps, crop=True, vocabulary=None, label2id={"no": 0})))
    assert batch["labels"].tolist() == [-100] * len(batch["ids"])


# ---- shares


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))
def test_every_stream_keeps_to_its_share(weights):
    shares = [weight / sum(weights) for weight in weights]
    counts = [0] * len(shares)
    for number in range(1, 200):
        counts[next_stream(shares, counts)] += 1
        assert all(abs(count - share * number) < 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("share", [0.5, 0.3, 0.8])
def test_batches_come_by_their_shares(cuts, ramps, share):
    loader = mixed_of(*pair(cuts, ramps, share), max_seconds=2.0)
    num_unlabelled = 0
    for number, batch in enumerate(itertools.islice(endless(loader), 60), 1):
        assert len({name.startswith("u") for name in batch["ids"]}) == 1
        num_unlabelled += is_unlabelled(batch)
        assert abs(num_unlabelled - number * share) < 1
        assert batch["labels"].shape[0] == len(batch["ids"])
        assert (batch["labels"] == -100).all() == is_unlabelled(batch)


def test_every_stream_runs_through_its_own_epochs(cuts, ramps):
    loader = mixed_of(*pair(cuts, ramps, 0.3), max_seconds=1.5)
    names = Counter()
    for epoch in range(3):
        assert loader.epoch == epoch
        labelled = list(itertools.chain.from_iterable(ids for ids in ids_of(loader)))
        assert sorted(n for n in labelled if not n.startswith("u")) == sorted(
            str(i) for i, d in enumerate(DURATIONS) if d <= 1.5
        )
        names.update(n for n in labelled if n.startswith("u"))
    assert max(names.values()) - min(names[f"u{i}"] for i in range(24)) <= 1
    assert (loader.plan.num_utterances, loader.plan.duration > 0) == (
        24 + sum(d <= 1.5 for d in DURATIONS),
        True,
    )


def test_the_first_stream_is_what_it_is_alone(cuts, ramps):
    alone = ids_of(loader_of(cuts))
    mixed = [ids for ids in ids_of(mixed_of(*pair(cuts, ramps))) if not ids[0].startswith("u")]
    assert mixed == alone
    assert ids_of(mixed_of(Stream(cuts=cuts, share=1.0, is_labelled=True))) == alone


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_what_one_process_sees(cuts, ramps, world_size):
    options = {"max_seconds": 2.0, "augmentation": Augmentation(noise_prob=0.5)}
    alone = list(itertools.islice(endless(mixed_of(*pair(cuts, ramps, 0.4), **options)), 48))
    ranks = [
        endless(mixed_of(*pair(cuts, ramps, 0.4), **options, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [next(rank) for _ in range(48 // world_size) for rank in ranks]
    assert all(equal(one, other) for one, other in zip(alone, together, strict=True))


def test_streams_of_the_same_cuts_have_orders_of_their_own(cuts):
    stream = Stream(cuts=cuts, share=1.0, is_labelled=True)
    batches = ids_of(itertools.islice(endless(mixed_of(stream, stream)), 80))
    first, second = batches[::2], batches[1::2]
    orders = [list(itertools.chain.from_iterable(part)) for part in (first, second)]
    # no epoch of one is an epoch of the other, not even a later one
    assert not any(orders[0][i : i + 40] == orders[1][:40] for i in range(len(orders[0])))


def test_streams_that_are_all_labelled(cuts, tmp_path):
    other = write_cuts(tmp_path, [1.0] * 12, phones="c")
    streams = [Stream(cuts=path, share=2.0, is_labelled=True) for path in (cuts, other)]
    batches = list(itertools.islice(endless(mixed_of(*streams)), 20))
    assert sum(batch["labels"].tolist()[0] == [3] for batch in batches) == 10
    assert not any((batch["labels"] == -100).any() for batch in batches)


# ---- resuming


@pytest.mark.parametrize(("num_workers", "rank", "world_size"), [(0, 0, 1), (2, 0, 1), (0, 1, 2)])
def test_a_mixed_run_goes_on_with_the_very_next_batch(cuts, ramps, num_workers, rank, world_size):
    def fresh(num_workers: int) -> BatchLoader:
        return mixed_of(
            *pair(cuts, ramps, 0.6),
            max_seconds=2.0,
            augmentation=Augmentation(speed=(0.9, 1.1)),
            language_exponent=0.5,
            num_workers=num_workers,
            rank=rank,
            world_size=world_size,
        )

    expected = list(itertools.islice(endless(fresh(0)), 50))
    for consumed in (8, 33):
        loader = fresh(num_workers)
        stream = endless(loader)
        for _ in range(consumed):
            next(stream)
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = fresh(num_workers)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == loader.state_dict()
        again = itertools.islice(endless(resumed), 50 - consumed)
        assert all(equal(one, other) for one, other in zip(expected[consumed:], again, strict=True))
        # and the first goes on as if nobody had looked
        ahead = list(itertools.islice(stream, 50 - consumed))
        assert all(equal(one, other) for one, other in zip(expected[consumed:], ahead, strict=True))


def test_a_state_of_other_streams_is_refused(cuts, ramps):
    streams = pair(cuts, ramps)
    state = mixed_of(*streams).state_dict()
    labelled = replace(streams[1], is_labelled=True)
    for changed in (
        mixed_of(*pair(cuts, ramps, 0.4)),
        mixed_of(*streams, max_seconds=1.0),
        mixed_of(streams[0]),
        mixed_of(streams[0], labelled, allow_unlabelled=True),
    ):
        with pytest.raises(ValueError, match="`state` must come from a loader of the same cuts"):
            changed.load_state_dict(state)
    mixed_of(*pair(cuts, ramps), num_workers=1).load_state_dict(state)


def test_a_long_stream_is_not_drawn_anew_in_every_epoch_of_a_short_one(cuts, ramps, tmp_path, monkeypatch):
    from unispeech.data.sampling import BatchPlan

    short = write_cuts(tmp_path, [1.0] * 3)
    starts = []
    epoch = BatchPlan.epoch

    def counted(plan, number, *, start=0):
        starts.append(start)
        return epoch(plan, number, start=start)

    monkeypatch.setattr(BatchPlan, "epoch", counted)
    list(itertools.islice(endless(mixed_of(*pair(short, ramps))), 40))
    assert set(starts) == {0}


# ---- what cannot be used


def test_a_stream_without_usable_utterances_is_named(cuts, tmp_path):
    empty = tmp_path / "cuts.jsonl"
    empty.write_text("")
    with pytest.raises(ManifestError, match=rf"{empty}: must hold an utterance of .* but hold none"):
        mixed_of(*pair(cuts, empty))
    short = write_cuts(tmp_path / "short", [0.1, 0.2])
    with pytest.raises(ManifestError, match=rf"{short}: .* hold none; 2 are shorter and 0 longer"):
        mixed_of(*pair(cuts, short), min_seconds=0.5)


def test_phones_that_the_vocabulary_lacks_are_listed_together(cuts, tmp_path):
    other = write_cuts(tmp_path / "other", [0.5] * 3, phones="x a b x")
    third = write_cuts(tmp_path / "third", [0.5], phones="y c")
    few = Vocabulary.build(["a c"], kind="phones")
    streams = [Stream(cuts=path, share=1.0, is_labelled=True) for path in (other, third)]
    with pytest.raises(
        ManifestError,
        match=rf"{other}, {third}: phones must be in the vocabulary, but these are not: "
        r"x \(6 times, first in 0\), b \(3 times, first in 0\), y \(1 time, first in 0\); prepare",
    ):
        mixed_of(*streams, vocabulary=few)
    many = write_cuts(tmp_path / "many", [0.5], phones=" ".join(map(chr, range(ord("a"), ord("z") + 1))))
    with pytest.raises(ManifestError, match=r"t \(1 time, first in 0\), .* and 4 more; prepare"):
        mixed_of(Stream(cuts=many, share=1.0, is_labelled=True), vocabulary=few)
    # what has no targets needs none
    mixed_of(*pair(cuts, other), vocabulary=VOCABULARY)
    with pytest.raises(ManifestError, match=r"0: label must be one of the classes, but is 'no'"):
        mixed_of(*streams, vocabulary=None, label2id={"yes": 1})


def test_tagged_vocabularies_ask_for_a_language(cuts):
    tagged = Vocabulary.build(["a b"], kind="phones", languages=["en"])
    with pytest.raises(ManifestError, match=r"a \(40 times, .*cuts must have one of the languages en, or"):
        loader_of(cuts, vocabulary=tagged)


def test_settings_out_of_range(cuts):
    with pytest.raises(ValueError, match="`streams` must hold at least one stream, but is empty"):
        mixed_of()
    for share in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"`share` must be positive, but is {share:g}"):
            Stream(cuts=cuts, share=share, is_labelled=True)


def test_a_stream_that_is_gone_ends_the_run(cuts, ramps, tmp_path):
    gone = write_cuts(tmp_path, [0.5] * 30)
    for wav in tmp_path.glob("*.wav"):
        wav.unlink()
    loader = mixed_of(*pair(ramps, gone, 0.1), min_seconds=0.3, max_seconds=1.0, allow_unlabelled=True)
    with pytest.raises(
        ManifestError, match=r"one recording of 30 must be readable, but none is; this one: .*no such file"
    ):
        list(itertools.islice(endless(loader), 200))
    # one that can be read is enough
    soundfile.write(tmp_path / "7.wav", np.zeros(8000), RATE)
    loader = mixed_of(*pair(ramps, gone, 0.1), min_seconds=0.3, max_seconds=1.0, allow_unlabelled=True)
    list(itertools.islice(endless(loader), 100))


def test_nothing_readable_is_an_error(tmp_path):
    paths = [write_cuts(tmp_path / name, [0.5, 0.6]) for name in ("one", "two")]
    for path in paths:
        for wav in path.parent.glob("*.wav"):
            wav.unlink()
    with pytest.raises(
        ManifestError, match=r"recording.* must be readable, but none is; this one: .*no such"
    ):
        list(mixed_of(*pair(*paths)))
