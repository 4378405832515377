"""Languages by exponent: the published ratios, and epochs that draw them anew."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_batches import DURATIONS, cut_of, ids_of, loader_of, write_cuts

from unispeech.data import sampling
from unispeech.data.cuts import CutFiles
from unispeech.data.languages import LanguageResampling, language_ratios
from unispeech.data.sampling import BatchPlan


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """36 utterances of English, 4 of Spanish; every id of the Spanish ones begins with es."""
    folder = tmp_path_factory.mktemp("cuts")
    write_cuts(folder, DURATIONS)
    rows = []
    for index, duration in enumerate(DURATIONS):
        language = "es" if index % 10 == 0 else "en"
        row = cut_of(f"{language}-{index}", f"{index}.wav", round(duration * 16_000), {"phones": "a b"})
        row["supervisions"][0]["language"] = language
        rows.append(json.dumps(row))
    (folder / "cuts.jsonl").write_text("\n".join(rows))
    return folder / "cuts.jsonl"


def counts_of(batches) -> Counter:
    return Counter(itertools.chain.from_iterable(ids_of(batches)))


def test_the_published_ratios():
    hours = {"en": 1350.0, "es": 168.0, "fr": 353.0, "it": 90.0}
    ratios = language_ratios(hours, 0.5)
    assert ratios == pytest.approx({"en": 0.684, "es": 1.94, "fr": 1.34, "it": 2.65}, abs=0.005)
    shares = {name: ratios[name] * hours[name] / sum(hours.values()) for name in hours}
    assert shares == pytest.approx({"en": 0.471, "es": 0.166, "fr": 0.241, "it": 0.122}, abs=0.001)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8), st.floats(0, 1))
def test_the_whole_keeps_its_length(durations, exponent):
    named = {str(index): duration for index, duration in enumerate(durations)}
    ratios = language_ratios(named, exponent)
    assert sum(ratios[name] * named[name] for name in named) == pytest.approx(sum(durations))
    assert language_ratios(named, 1.0) == pytest.approx(dict.fromkeys(named, 1.0))
    even = language_ratios(named, 0.0)
    assert all(even[n] * named[n] == pytest.approx(sum(durations) / len(named)) for n in named)


def test_draws_have_the_size_asked_for():
    languages = ["en"] * 900 + ["es"] * 100
    resampling = LanguageResampling(languages, np.ones(1000), 0.5)
    counts = resampling.draw(np.random.default_rng(0))
    # 0.9 ** 0.5 to 0.1 ** 0.5 is 3 to 1
    assert counts[:900].sum() == 750 and counts[900:].sum() == 250 and resampling.num_utterances == 1000
    assert counts[:900].max() == 1 and counts[900:].max() > 3
    assert (counts != resampling.draw(np.random.default_rng(1))).any()


def test_one_language_comes_whole():
    resampling = LanguageResampling(["en"] * 50, np.linspace(1, 2, 50), 0.5)
    assert resampling.draw(np.random.default_rng(0)).tolist() == [1] * 50


def test_epochs_hold_languages_by_their_exponent(cuts):
    loader = loader_of(cuts, language_exponent=0.5)
    hours = {"es": sum(DURATIONS[::10])}
    hours["en"] = sum(DURATIONS) - hours["es"]
    epochs = [counts_of(loader) for _ in range(5)]
    for counts in epochs:
        seconds = Counter()
        for name, count in counts.items():
            seconds[name[:2]] += count * DURATIONS[int(name[3:])]
        assert counts.total() == loader.plan.num_utterances
        assert (seconds["es"] / seconds["en"]) ** 2 == pytest.approx(hours["es"] / hours["en"], rel=0.3)
        assert max(count for name, count in counts.items() if name.startswith("en")) == 1
    assert any(max(counts.values()) > 2 for counts in epochs)
    assert len({tuple(sorted(counts.items())) for counts in epochs}) == 5
    assert counts_of(loader_of(cuts, language_exponent=0.5)) == epochs[0]
    assert counts_of(loader_of(cuts, language_exponent=0.5, seed=9)) != epochs[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_over_drawn_languages_goes_on(cuts, num_workers):
    whole = loader_of(cuts, language_exponent=0.3)
    expected = [batch["ids"] for _ in range(3) for batch in whole]
    for consumed in (1, 4, 12):
        loader = loader_of(cuts, language_exponent=0.3, num_workers=num_workers)
        stream = itertools.chain.from_iterable(itertools.repeat(loader))
        seen = ids_of(itertools.islice(stream, consumed))
        resumed = loader_of(cuts, language_exponent=0.3, num_workers=num_workers)
        resumed.load_state_dict(loader.state_dict())
        stream = itertools.chain.from_iterable(itertools.repeat(resumed))
        assert seen + ids_of(itertools.islice(stream, len(expected) - consumed)) == expected


def test_processes_share_the_drawn_languages(cuts):
    alone = ids_of(loader_of(cuts, language_exponent=0.5))
    ranks = [ids_of(loader_of(cuts, language_exponent=0.5, rank=rank, world_size=2)) for rank in range(2)]
    assert [ranks[index % 2][index // 2] for index in range(len(alone))] == alone


def test_cuts_without_a_language_are_a_language_of_their_own():
    from lhotse.cut import MonoCut

    made = [MonoCut(id=str(i), start=0, duration=1.0, channel=0) for i in range(20)]
    plan = BatchPlan(made, batch_seconds=5.0, language_exponent=0.0)
    assert sorted(cut.id for drawn in plan.epoch(0) for cut in drawn.cuts) == sorted(map(str, range(20)))


@pytest.mark.parametrize("exponent", [None, 0.3])
def test_large_corpora_are_mixed_though_they_lie_in_files_of_their_own(tmp_path, monkeypatch, exponent):
    paths = []
    for language, count in (("en", 300), ("es", 100)):
        rows = []
        for index in range(count):
            row = cut_of(f"{language}-{index}", "none.wav", 16_000, {})
            row["supervisions"][0]["language"] = language
            rows.append(json.dumps(row))
        paths.append(tmp_path / f"{language}.jsonl")
        paths[-1].write_text("\n".join(rows))

    def order(size: int) -> tuple[BatchPlan, list[str]]:
        monkeypatch.setattr(sampling, "_BUFFER_SIZE", size)
        plan = BatchPlan(CutFiles(paths), batch_seconds=10.0, language_exponent=exponent)
        return plan, [cut.id[:2] for drawn in plan.epoch(0) for cut in drawn.cuts]

    plan, mixed = order(40)
    whole, in_memory = order(1000)
    assert Counter(mixed) == Counter(in_memory) and Counter(mixed).total() == plan.num_utterances
    for begin in range(0, 400, 100):
        share = mixed[begin : begin + 100].count("es") / 100
        assert share == pytest.approx(Counter(mixed)["es"] / 400, abs=0.12)
    # the order of what fits into memory is that of earlier versions
    assert plan.fingerprint != whole.fingerprint


def test_settings_out_of_range(cuts):
    with pytest.raises(ValueError, match=r"`exponent` must lie in \[0, 1\], but is 1.5"):
        loader_of(cuts, language_exponent=1.5)
    with pytest.raises(ValueError, match="`language_exponent` must be None without `shuffle`"):
        loader_of(cuts, language_exponent=0.5, shuffle=False)
    with pytest.raises(ValueError, match="`state` must come from a loader of the same cuts"):
        loader_of(cuts, language_exponent=0.5).load_state_dict(loader_of(cuts).state_dict())
